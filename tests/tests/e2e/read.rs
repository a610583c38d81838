//! What people read of a deployment: the report, the history, the summary of a CI run, sections and
//! times in the log; and `relay redeploy`, which reads a record.

use std::sync::Arc;

use relay_tests::{Options, Sandbox, eventually};
use serde_json::{Value, json};

fn sandbox() -> Arc<Sandbox> {
    Sandbox::start(Options::default())
}

/// Waits until everything that a deployment leaves is in the evidence.
fn until_recorded(sandbox: &Sandbox, id: &str) {
    eventually("the end of the evidence", || {
        let stopped = sandbox.tasks_of(id).iter().all(|task| task.status() == "STOPPED");
        (stopped && sandbox.evidence(id, "runner/000000.jsonl").is_some()).then_some(())
    });
}

const COLOURS: &str = r"printf '\033[31mred\033[0m <b>bold</b>\n'; echo '<script>alert(1)</script>' >&2; echo url=https://x >> $RELAY_OUTPUT";

#[test]
fn a_report_shows_the_log_and_what_is_proved() {
    let sandbox = sandbox();
    let done = sandbox.shell(COLOURS).run().exits(0);
    let id = done.id();
    until_recorded(&sandbox, &id);
    let evidence = sandbox.evidence_folder(&id);
    let call = sandbox.relay(&["report", evidence.path().to_str().unwrap(), "--out", "-"]);
    std::fs::write(call.folder().join("relay.toml"), sandbox.pins("demo/shell")).unwrap();
    let page = call.run().exits(0).out();
    for part in [
        "demo/shell <span class=\"ok\">succeeded</span>",
        "<i class=\"f1\">red</i> &lt;b&gt;bold&lt;/b&gt;",
        "<p class=\"e\"",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "proved: whole: ",
        "<th>who asked</th><td class=\"\">sandbox-ci",
        "<th>url</th><td>https://x</td>",
        "until the runner started",
        "Content-Security-Policy",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // A frame that somebody has changed is not shown, and the page says so.
    let frames = evidence.path().join("runner/000000.jsonl");
    let text = std::fs::read_to_string(&frames).unwrap();
    std::fs::write(&frames, text.replacen("\"sig\":\"", "\"sig\":\"AAAA", 1)).unwrap();
    let call = sandbox.relay(&["report", evidence.path().to_str().unwrap()]);
    std::fs::write(call.folder().join("relay.toml"), sandbox.pins("demo/shell")).unwrap();
    let (file, folder) = (call.folder().join(format!("relay-report-{id}.html")), call.folder());
    let running = call.start();
    let page =
        eventually("the page", || std::fs::read_to_string(&file).ok().filter(|page| page.ends_with("</html>\n")));
    assert!(page.contains("NOT PROVED: "), "{page}");
    drop((running.wait().exits(0), folder));
}

#[test]
fn a_report_of_a_result_file_has_the_phases() {
    let sandbox = sandbox();
    for (target, code, word) in [("demo/shell", 3, "exit 3"), ("demo/nothing", 120, "unverified")] {
        let done = sandbox.deploy(target).param("script", "exit 3").run().exits(code);
        let call = sandbox.relay(&["report", "result.json", "--out", "-"]);
        std::fs::write(call.folder().join("result.json"), done.result("").to_string()).unwrap();
        std::fs::write(call.folder().join("relay.toml"), sandbox.pins("demo/shell")).unwrap();
        let page = call.run().exits(0).out();
        assert!(page.contains("did not succeed") && page.contains(word) && page.contains("asking"), "{page}");
        assert_eq!(page.contains("tool runs"), code == 3, "{page}");
    }
}

#[test]
fn the_history_says_what_runs_now() {
    let sandbox = sandbox();
    let history = |arguments: &[&str]| {
        let call = sandbox.relay(&["history", "demo/shell", "--evidence", &sandbox.evidence_bucket()]);
        // An operator, who may read the evidence; CI may not.
        call.args(arguments).env("AWS_ACCESS_KEY_ID", "222222222222")
    };
    history(&[]).run().exits(0).says("it has no deployment");
    let good = sandbox.shell("exit 0").run().exits(0).id();
    let bad = sandbox.shell("exit 3").run().exits(3).id();
    for id in [&good, &bad] {
        until_recorded(&sandbox, id);
    }
    sandbox.deploy("demo/shell").param("script", "x").param("odd", "x").run().exits(120);
    let done = history(&[]).run().exits(0);
    let (out, err) = (done.out(), done.err());
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].contains(" parameter "), "{out}");
    assert!(lines[1].contains(&bad) && lines[1].contains(" exit 3 ") && lines[1].contains("by sandbox-ci"), "{out}");
    assert!(lines[2].contains(&good) && lines[2].ends_with("script=exit 0"), "{out}");
    assert!(err.contains(&format!("now: {good}")) && err.contains("a later deployment did not succeed"), "{err}");
    let out = history(&["--output", "json", "--last", "2"]).run().exits(0).out();
    let last: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(last.len(), 2);
    assert_eq!((&last[1]["deployment_id"], &last[1]["exit_code"]), (&json!(bad), &json!(3)));
    // CI has no rights on the evidence, and pins of another account prove nothing.
    let call = sandbox.relay(&["history", "demo/shell", "--evidence", &sandbox.evidence_bucket()]);
    call.run().exits(125).says("AccessDenied");
    let wrong = sandbox.variable("RELAY_ANSWER_PUBLIC_KEY").to_owned();
    let done = history(&["--target-key", &wrong]).run().exits(0);
    assert!(done.out().contains("NOT PROVED: the pinned target key has not signed it"), "{}", done.out());
}

#[test]
fn a_record_is_deployed_again() {
    let sandbox = sandbox();
    let first = sandbox.shell("echo once more; exit 4").run().exits(4);
    let record = first.result("/record").to_string();
    let call = sandbox.relay(&["redeploy", "record.json"]);
    std::fs::write(call.folder().join("record.json"), &record).unwrap();
    let again = call.run().exits(4).says(&format!("repeats {}", first.id()));
    assert_eq!(again.out(), "once more\n");
    // The result file has the record too.
    let call = sandbox.relay(&["redeploy", "result.json", "--quiet"]);
    std::fs::write(call.folder().join("result.json"), first.result("").to_string()).unwrap();
    assert_eq!(call.run().exits(4).out(), "once more\n");
    // A record that somebody has changed, or that another key has signed, is not repeated.
    let payload = first.result("/record/payload").as_str().unwrap().to_owned();
    let other = if payload.starts_with("eyJf") { "eyJg" } else { "eyJf" };
    let odd = record.replace(&payload, &format!("{other}{}", &payload[4..]));
    let call = sandbox.relay(&["redeploy", "record.json"]);
    std::fs::write(call.folder().join("record.json"), odd).unwrap();
    call.run().exits(119);
    let answer = sandbox.variable("RELAY_ANSWER_PUBLIC_KEY").to_owned();
    let call = sandbox.relay(&["redeploy", "record.json", "--target-key", &answer]);
    std::fs::write(call.folder().join("record.json"), &record).unwrap();
    call.run().exits(119).says("does not repeat");
}

#[test]
fn the_summary_and_the_id_are_written_for_the_steps_that_follow() {
    let sandbox = sandbox();
    let call = sandbox.shell("echo '``` plan'; echo a=1 >> $RELAY_OUTPUT; exit 7");
    let folder = call.folder();
    let running = call.args(&["--summary-file", "summary.md", "--id-file", "id"]).start();
    // The id is there before the deployment has ended.
    let id = eventually("the id", || std::fs::read_to_string(folder.join("id")).ok().filter(|id| id.ends_with('\n')));
    let summary = eventually("the summary", || {
        std::fs::read_to_string(folder.join("summary.md")).ok().filter(|text| text.contains("</details>"))
    });
    let done = running.wait().exits(7);
    assert_eq!(id.trim(), done.id());
    assert!(summary.starts_with("### relay: demo/shell failed: the tool exited with 7\n"), "{summary}");
    assert!(summary.contains("````text\n``` plan\n````") && summary.contains("a=1"), "{summary}");
    let call = sandbox.shell("exit 0").args(&["--summary-file", "/nowhere/summary.md"]);
    call.run().exits(119).says("cannot write the summary file");
}

/// A tool whose output looks like commands of GitHub's runner.
#[test]
fn github_hears_no_command_of_the_tool() {
    let sandbox = sandbox();
    let script = "echo '::error::from the tool'; echo '::set-output name=a::b' >&2; printf '::endgroup::'";
    let call = sandbox.shell(script).args(&["--fold", "github"]);
    call.run().exits(119).says("--fold github needs stdout and stderr in one stream");
    let call = sandbox.shell(script).env("GITHUB_ACTIONS", "true");
    let log = call.through(&["sh", "-c", "exec \"$0\" \"$@\" 2>&1"]).run().exits(0).out();
    let (mut token, mut heard) = (None, Vec::new());
    for line in log.lines() {
        match (&token, line.strip_prefix("::stop-commands::")) {
            (None, Some(found)) => token = Some(format!("::{found}::")),
            (Some(ends), _) if line == ends => token = None,
            (None, None) if line.starts_with("::") => heard.push(line),
            _ => {}
        }
    }
    assert_eq!(heard, ["::group::relay step 1/1 shell", "::endgroup::"], "{log}");
    assert!(log.contains("::error::from the tool") && token.is_none(), "{log}");
}

#[test]
fn lines_begin_with_the_time_if_wanted() {
    let sandbox = sandbox();
    let done =
        sandbox.shell("echo one; printf two; sleep 1; echo; echo three >&2").args(&["--timestamps"]).run().exits(0);
    let bare = |text: &str| {
        let lines = text.lines().map(|line| line.split_once("Z ").map_or(line, |(_, rest)| rest).to_owned());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(bare(&done.out()), ["one", "two"]);
    let err = bare(&done.err());
    assert!(err.contains(&"three".to_owned()) && err.iter().any(|line| line.starts_with("relay finished")), "{err:?}");
    assert!(done.err().lines().all(|line| line.starts_with("20") && &line[23..25] == "Z "), "{}", done.err());
}

#[test]
fn every_code_is_explained_and_a_wrong_one_is_not() {
    let sandbox = sandbox();
    assert!(sandbox.relay(&["explain", "busy"]).run().exits(0).out().contains("exit code 120"));
    assert!(sandbox.relay(&["explain"]).run().exits(0).out().lines().count() > 30);
    sandbox.relay(&["explain", "buzy"]).run().exits(119).says("did you mean busy?");
}
