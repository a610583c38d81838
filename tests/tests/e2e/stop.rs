//! Stopping stops: nothing of the tool is left after a step, a cancel or a timeout, whatever it
//! forked, before anything else happens.

use std::path::PathBuf;
use std::sync::Arc;

use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox};
use rustix::process::Signal;
use serde_json::json;

/// A daemon as they are made: its own session, no open pipes, no parent, deaf to polite signals. It
/// writes to the file until it is killed.
fn daemon(file: &str) -> String {
    format!(
        "(setsid sh -c 'trap \"\" HUP INT TERM; while :; do echo >> {file}; sleep 0.05; done' > /dev/null 2>&1 &)\nuntil [ -s {file} ]; do sleep 0.02; done\n"
    )
}

/// A process that goes on as a new process of a new session, many times in a second.
const HOPPER: &str = "cat > hop <<'END'\nsleep 0.03; echo >> $1; (setsid sh $0 $1 > /dev/null 2>&1 &)\nEND\n";

fn sandbox() -> (Arc<Sandbox>, PathBuf) {
    let rollback = "\n[[rollback]]\nname = \"look\"\nrun = [\"sh\", \"-c\", \"echo rolled back\"]\n";
    let one = Head { concurrency: 1, ..Head::default() };
    let options = Options::default()
        .target("test/stop", target("test/stop", &one, &format!("{SHELL}{rollback}")))
        .target("test/short", target("test/short", &Head { timeout: "2s", ..one.clone() }, SHELL));
    let sandbox = Sandbox::start(options);
    let file = sandbox.folder().join("written");
    (sandbox, file)
}

/// Asserts that nobody writes to the file any more.
#[track_caller]
fn is_still(file: &PathBuf) {
    let size = || std::fs::metadata(file).unwrap().len();
    let before = size();
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert!(before > 0 && before == size(), "something of the tool still writes");
}

// clause: CTL-5
#[test]
fn after_a_cancel_nothing_of_the_tool_is_left_and_the_target_is_free() {
    let (sandbox, file) = sandbox();
    let script = format!("{}echo begun; sleep 100", daemon(&file.display().to_string()));
    let running = sandbox.deploy("test/stop").param("script", &script).start();
    running.until_stdout("begun");
    running.signal(Signal::INT);
    let done = running.wait().exits(130);
    assert_eq!(done.out(), "begun\nrolled back\n");
    is_still(&file);
    sandbox.deploy("test/stop").param("script", "echo free").run().exits(0);
}

// clause: RUN-13
#[test]
fn after_a_timeout_nothing_of_the_tool_is_left() {
    let (sandbox, file) = sandbox();
    let script = format!("{}sleep 100", daemon(&file.display().to_string()));
    let done = sandbox.deploy("test/short").param("script", &script).run().exits(124);
    assert_eq!(*done.result("/reason"), json!("timed_out"));
    is_still(&file);
}

#[test]
fn what_a_step_leaves_behind_ends_with_it() {
    let (sandbox, file) = sandbox();
    let path = file.display().to_string();
    let scripts = [
        // It ends well, or fails and is rolled back; its daemon writes, or hops from process to
        // process.
        (format!("{}exit 0", daemon(&path)), 0),
        (format!("{}exit 7", daemon(&path)), 7),
        (format!("{HOPPER}(setsid sh hop {path} > /dev/null 2>&1 &)\nuntil [ -s {path} ]; do sleep 0.02; done"), 0),
    ];
    for (script, code) in scripts {
        drop(std::fs::remove_file(&file));
        sandbox.deploy("test/stop").param("script", &script).run().exits(code);
        is_still(&file);
    }
}

/// A wrapper that passes a signal on gets it alone; else its tool would get it twice.
#[test]
fn the_recipe_says_who_gets_the_signal() {
    let cancel = |to: &str| Head {
        cancel: match to {
            "group" => r#"{ signal = "TERM", grace = "20s" }"#,
            _ => r#"{ signal = "TERM", grace = "20s", to = "process" }"#,
        },
        ..Head::default()
    };
    let mut options = Options::default();
    for to in ["group", "process"] {
        let name = format!("test/{to}");
        options = options.target(&name, target(&name, &cancel(to), SHELL));
    }
    let sandbox = Sandbox::start(options);
    let script = "cat > tool <<'END'\ntrap 'echo told' TERM; echo begun; n=0; while [ $n -lt 40 ]; do sleep 0.05; n=$((n+1)); [ -f stop ] || n=0; done\nEND
        sh tool & tool=$!; trap 'sleep 0.3; kill -TERM $tool; sleep 0.3; touch stop' TERM; wait $tool; wait $tool; exit 0";
    for (to, times) in [("group", 2), ("process", 1)] {
        let running = sandbox.deploy(&format!("test/{to}")).param("script", script).start();
        running.until_stdout("begun");
        running.signal(Signal::INT);
        let done = running.wait();
        assert_eq!(done.out().matches("told").count(), times, "{to}: {}", done.out());
    }
}
