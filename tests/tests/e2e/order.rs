//! Compares the calls of launcher and runner, from the sandbox's log, with those that the engine
//! needs, in the engine's order. A driver that skips a call or swaps two fails here.

use relay_engine::launch::admission::{self, Found, Ran};
use relay_engine::run;
use relay_tests::kit::sandbox::Entry;
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox};

/// The sequence of needs of an admission, given what each need learns.
fn admission_path(learn: impl Fn(admission::Need, &mut admission::Known)) -> Vec<admission::Need> {
    let mut known = admission::Known::default();
    let mut path = vec![admission::next(known)];
    while let Some(need) = path.last().copied().filter(|need| *need != admission::Need::Answer) {
        learn(need, &mut known);
        assert_ne!(admission::next(known), need, "the test learns nothing from it");
        path.push(admission::next(known));
    }
    path
}

/// The need that a call of the launcher serves.
fn of_launcher(entry: &Entry) -> Option<admission::Need> {
    use relay_protocol::claim::Verdict;
    let key = entry.text("key");
    match (entry.service.as_str(), entry.operation.as_str()) {
        ("s3", "GetObject") if key.ends_with("/claim") => Some(admission::Need::ReadClaim),
        ("s3", "GetObject") if key.starts_with("locks/") => Some(admission::Need::Authorise),
        ("s3", "PutObject") if key.ends_with("/request.json") => Some(admission::Need::Store),
        ("s3", "PutObject") if key.ends_with("/launcher/vsa.json") => Some(admission::Need::Summarise),
        ("s3", "PutObject") if key.ends_with("/launcher/record.json") => Some(admission::Need::Record),
        ("s3", "PutObject") if key.ends_with("/claim") => Some(admission::Need::Claim(Verdict::Refused)),
        ("ecs", "ListTasks") => Some(admission::Need::ListTasks),
        ("ecs", "RunTask") => Some(admission::Need::RunTask),
        ("sqs", "SendMessageBatch") => Some(admission::Need::Answer),
        _ => None,
    }
}

fn launcher_calls(sandbox: &Sandbox) -> Vec<admission::Need> {
    let log = sandbox.log();
    let own = log.iter().filter(|entry| entry.principal.ends_with("/relay-launcher"));
    let mut needs: Vec<_> = own.filter_map(of_launcher).collect();
    // Two calls of ListTasks serve one need: running tasks and stopped tasks.
    needs.dedup();
    needs
}

// clause: LAU-7, LAU-8, LAU-10
#[test]
fn the_launcher_calls_in_the_engines_order() {
    let nothing = |need, known: &mut admission::Known| match need {
        admission::Need::ReadClaim => known.claim = Found::Nothing,
        admission::Need::ListTasks => known.task = Found::Nothing,
        admission::Need::RunTask => known.ran = Some(Ran::Task),
        admission::Need::Claim(_) => known.claim = Found::Verdict,
        admission::Need::Store => known.stored = Some(true),
        admission::Need::Summarise => known.summarised = true,
        admission::Need::Record => known.recorded = true,
        _ => {}
    };
    let sandbox = Sandbox::start(Options { launchers: 1, ..Options::default() });
    sandbox.shell("true").run().exits(0);
    sandbox.launcher_idle();
    let admitted = admission_path(|need, known| {
        nothing(need, known);
        if need == admission::Need::Authorise {
            known.allowed = Some(true);
        }
    });
    assert_eq!(launcher_calls(&sandbox), admitted);

    // Nobody can read the lock, so it counts as held: the request is refused, and claimed before
    // the answer.
    let sandbox = Sandbox::start(
        Options { launchers: 1, ..Options::default() }
            .target("test/one", target("test/one", &Head { concurrency: 1, ..Head::default() }, SHELL)),
    );
    sandbox.operator().put_object(&sandbox.bucket(), "locks/test/one/0", b"{\"version\":2}".to_vec());
    sandbox.deploy("test/one").param("script", "true").run().exits(120);
    sandbox.launcher_idle();
    let refused = admission_path(|need, known| {
        nothing(need, known);
        if need == admission::Need::Authorise {
            known.allowed = Some(false);
        }
    });
    assert_eq!(launcher_calls(&sandbox), refused);
}

// clause: CLM-5, RUN-8, LCK-1
#[test]
fn the_runner_calls_in_the_engines_order() {
    use run::Need;
    let sandbox = Sandbox::start(Options::default());
    let done = sandbox.shell("echo ran").run().exits(0);
    let task = sandbox.tasks_of(&done.id()).pop().unwrap();
    sandbox.task_when(task.arn(), "STOPPED");
    let log = sandbox.done_by(&task);
    let calls = |service: &str, operation: &str, key: &str| {
        let is = |entry: &&Entry| entry.is(service, operation) && entry.ok && entry.text("key").contains(key);
        log.iter().filter(is).map(|entry| entry.n).collect::<Vec<_>>()
    };
    let (signs, sends) = (calls("kms", "Sign", ""), calls("sqs", "SendMessageBatch", ""));
    let locks = calls("s3", "PutObject", "locks/");
    // The first and last calls that each need must have made. Deciding and running the tool make no
    // calls.
    let mut called = [
        (calls("s3", "PutObject", "/claim")[0], Need::Claim),
        (signs[0], Need::Vouch),
        (sends[0], Need::SayStarted),
        (locks[0], Need::TakeLock),
        (calls("sqs", "ReceiveMessage", "")[0], Need::LookForCancel),
        (locks[1], Need::Release),
        (calls("s3", "PutObject", "/runner/record.json")[0], Need::Record),
        (sends[sends.len() - 1], Need::Finish),
    ];
    called.sort_unstable_by_key(|(n, _)| *n);
    let mut known = run::Known::default();
    let mut needed = Vec::new();
    loop {
        let need = run::next(&known);
        if need == Need::Exit {
            break;
        }
        known.went_well(need);
        if !matches!(need, Need::Authorise | Need::RunTool) {
            needed.push(need);
        }
    }
    assert_eq!(called.map(|(_, need)| need).to_vec(), needed);
    assert_eq!((signs.len(), locks.len()), (2, 2), "the vouch and the record; taken and given back");
}
