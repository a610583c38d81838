//! The runner's image on a real Docker engine: it meets what a target's task definition asks of it.
//! The tests need the output of `cargo xtask package`, in the folder that RELAY_PACKAGE names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::process::Command;

use relay_protocol::Envelope;
use relay_tests::Deployed;
use relay_tests::kit::docker::{Containers, docker, runner_image};
use relay_tests::kit::targets::{Head, SHELL};
use serde_json::{Value, json};

/// As `relay-admin target render` writes it: root in a container with few capabilities, so that the
/// tool can have its own user.
const RENDERED: &[&str] = &[
    "--user 0",
    "--init",
    "--cap-drop AUDIT_WRITE --cap-drop MKNOD --cap-drop NET_BIND_SERVICE --cap-drop NET_RAW --cap-drop SETFCAP --cap-drop SETPCAP",
    WORK,
];
/// The work directory, with the owner and mode of a volume.
const WORK: &str = "--tmpfs /work:exec,mode=755";

fn apart() -> Head {
    Head { uid: 65_532, ..Head::default() }
}

fn isolation(done: &Deployed) -> Value {
    let envelope = Envelope::parse(done.result("/record").to_string().as_bytes(), 1 << 20).unwrap();
    let record: Value = serde_json::from_slice(envelope.unverified_payload()).unwrap();
    record["predicate"]["isolation"].clone()
}

#[test]
fn the_image_is_the_runner_and_nothing_else() {
    let Some(image) = runner_image() else { return };
    let made: Value =
        serde_json::from_str(&docker(&["image", "inspect", "--format", "{{json .Config}}", image])).unwrap();
    assert_eq!(made["User"], "65532:65532");
    assert_eq!(made["Entrypoint"], json!(["/relay-runner"]));
    let container = docker(&["create", image]);
    let files = Command::new("sh").args(["-c", &format!("docker export {container} | tar -t")]).output().unwrap();
    docker(&["rm", "--volumes", &container]);
    let files = String::from_utf8(files.stdout).unwrap();
    // Files that the engine itself puts into each container.
    let engine = [".dockerenv", "dev/", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "proc/", "sys/"];
    let is_own = |file: &&str| !file.ends_with('/') && !engine.iter().any(|place| file.starts_with(place));
    let own: Vec<&str> = files.lines().filter(is_own).collect();
    assert_eq!(own, ["etc/ssl/certs/ca-certificates.crt", "relay-runner"]);
    // Without its pinned arguments, the image does nothing.
    let bare = Command::new("docker").args(["run", "--rm", "--read-only", image]).output().unwrap();
    assert_eq!(bare.status.code(), Some(120), "{}", String::from_utf8_lossy(&bare.stderr));
}

#[test]
fn in_an_unmodified_image_the_tool_is_another_user() {
    let Some(containers) = Containers::start(RENDERED, &apart()) else { return };
    let script = "stat -c '%n %u %a' /relay/*; echo $(id -u) $(id -g) $(id -G)
        echo kept > file && cat file
        for place in /file /relay/relay-runner /work/file; do (echo x > $place) 2>/dev/null && echo $place can be written; done
        for runner in 1 $PPID; do cat /proc/$runner/environ >environ 2>/dev/null && echo the environment can be read; done
        exit 37";
    let done = containers.script(script).run().exits(37);
    assert_eq!(done.out(), "/relay/ca-certificates.crt 0 644\n/relay/relay-runner 0 755\n65532 65532 65532\nkept\n");
    assert_eq!(isolation(&done), "uid");
    let task = containers.sandbox().task_when(&task_arn(&done), "STOPPED");
    assert_eq!(task.exit_code(), Some(37), "the container's own code");
}

#[test]
fn without_root_the_tool_is_the_runners_user() {
    let Some(containers) =
        Containers::start(&["--user 65532:65532", "--cap-drop ALL", "--tmpfs /work:exec,mode=1777"], &apart())
    else {
        return;
    };
    let script = "id -u; cat /proc/1/environ > environ 2>/dev/null && echo the environment can be read; true";
    let done = containers.script(script).run().exits(0);
    assert_eq!(done.out(), "65532\n");
    assert_eq!(isolation(&done), "none");
}

/// With one user for runner and tool, the kernel keeps the tool from the runner's memory. But an
/// init as the first process has the task's variables, and shows them; the record must not promise
/// more than that.
#[test]
fn an_init_that_shows_the_tasks_variables_is_told() {
    let head = Head { role: Some("arn:aws:iam::222222222222:role/relay-deploy/payments"), ..Head::default() };
    for (flags, shown, expected) in [(&[WORK][..], false, "credentials"), (&["--init", WORK], true, "none")] {
        let Some(containers) = Containers::start(flags, &head) else { return };
        let script = "cat /proc/1/environ > environ 2>/dev/null && echo shown; true";
        let done = containers.script(script).run().exits(0);
        assert_eq!((done.out() == "shown\n", isolation(&done)), (shown, json!(expected)), "{flags:?}");
    }
}

/// `docker stop` works as ECS stops a task: SIGTERM to the first process, which is the runner or an
/// init.
#[test]
fn a_stopped_container_ends_gracefully() {
    for (flags, first) in [(&[WORK][..], "relay-runner"), (RENDERED, "docker-init")] {
        let Some(containers) = Containers::start(flags, &apart()) else { return };
        // The recipe's own signal is INT; terraform releases its lock on it.
        let script = "trap 'echo told; sleep 0.2; echo released; exit 9' INT; trap 'echo TERM' TERM
            cat /proc/1/comm; echo begun; while :; do sleep 0.05; done";
        let running = containers.script(script).start();
        running.until_stdout("begun");
        docker(&["stop", "--time", "60", &containers.container()]);
        let done = running.wait().exits(122);
        assert_eq!(done.out(), format!("{first}\nbegun\ntold\nreleased\n"));
        assert_eq!(*done.result("/reason"), json!("stopped"));
        // The last frame was sent: it has the digests and the record.
        assert_eq!(*done.result("/output/verified"), json!(true));
        assert_eq!(isolation(&done), "uid");
        let task = containers.sandbox().task_when(&task_arn(&done), "STOPPED");
        assert_eq!(task.exit_code(), Some(122), "killed, it would be 137");
    }
}

/// A rollback that says which processes it finds, apart from its own.
const LOOK: &str = r#"
[[rollback]]
name = "look"
run = ["sh", "-c", "for one in /proc/[0-9]*; do read -r name < $one/comm; [ $one = /proc/$$ ] || case $name in sh|sleep|setsid) echo left $name;; esac; done; echo looked"]
"#;

/// One process ignores signals in a session of its own, another one hops through sessions and never
/// lives for long. Both are gone when the rollback begins: with the runner as PID 1 or behind an
/// init, with a user for the tool or without one.
#[test]
fn nothing_of_the_tool_outlives_its_step() {
    let script = r#"
        echo 'sleep 0.05; (setsid sh $0 > /dev/null 2>&1 &)' > hop
        sh hop
        setsid sh -c 'trap "" TERM INT HUP; while :; do sleep 1; done' > /dev/null 2>&1 &
        sleep 0.3; echo begun; exit 3"#;
    let body = format!("{SHELL}{LOOK}");
    for flags in [&[WORK][..], RENDERED] {
        for head in [apart(), Head::default()] {
            let Some(containers) = Containers::with(flags, &head, &body) else { return };
            let done = containers.script(script).run().exits(3);
            assert_eq!(done.out(), "begun\nlooked\n", "{flags:?}, uid {}", head.uid);
        }
    }
}

/// Running out of memory ends the tool, not the runner.
#[test]
fn a_tool_that_runs_out_of_memory_is_told_from_a_lost_task() {
    let Some(containers) = Containers::start(&[WORK, "--memory 96m", "--memory-swap 96m"], &apart()) else { return };
    let done = containers.script("echo begun; exec dd if=/dev/zero of=/dev/null bs=512M count=1").run().exits(137);
    assert_eq!(done.out(), "begun\n");
    assert_eq!(*done.result("/decided_by"), json!("tool"));
    assert_eq!(isolation(&done), "uid");
}

fn task_arn(done: &Deployed) -> String {
    done.result("/task_arn").as_str().unwrap().to_owned()
}
