//! The last messages about a deployment: what happened, who has to act, and what to do next. The
//! exit code comes from [`relay_engine::conclude`].

use std::time::Duration;

use relay_aws::Kind;
use relay_engine::conclude::{is_open, never_ran};
use relay_engine::{End, Missing};
use relay_protocol::frame::{Finished, Tried};
use relay_protocol::outcome::{ExitCode, Outcome};
use relay_protocol::time::plain_elapsed;
use relay_protocol::{DeploymentId, Reason};
use serde_json::{Value, json};

use crate::result::{Verdict, verdict};
use crate::show::Show;
use crate::tail::Tail;

/// Prints the last messages.
pub(crate) fn say(show: &mut Show, tail: &Tail, code: u8, stopping: Option<ExitCode>, id: &DeploymentId) {
    let end = tail.inbox.poll_end();
    let facts = facts(end, code);
    match end {
        Some(End::Finished { finished, missing, verified, record }) => {
            let ran_out = stopping == Some(ExitCode::TimedOut);
            say_finished(show, tail, (code, ran_out), finished, (missing, *verified));
            if let Err(problem) = record {
                show.warn(&format!("this end is not proved by a signed record: {problem}"));
            }
        }
        Some(End::Tried(tried)) => say_tried(show, tried),
        Some(End::Refused { reason, message }) => {
            show.end_line("refused", &format!("{message} ({reason})"), false, facts);
            hint(show, *reason);
        }
        Some(End::Stopped { reason: reason @ (Reason::Cancelled | Reason::TimedOut), started: false, .. }) => {
            let text = format!("{} ({reason}) before anything ran, exit {code}", reason.words());
            show.end_line("stopped", &text, false, facts);
        }
        Some(End::Stopped { reason, message, started: false }) if never_ran(*reason) => {
            show.end_line("never started", &format!("{message} ({reason})"), false, facts);
            hint(show, *reason);
        }
        Some(End::NeverStarted { reason, message }) => {
            show.end_line("never started", &format!("{message} ({reason})"), false, facts);
            hint(show, *reason);
        }
        Some(End::Stopped { reason: reason @ (Reason::Cancelled | Reason::TimedOut), .. }) => {
            let text = format!("{} ({reason}), exit {code}; the runner did not report how far it got", reason.words());
            show.end_line("stopped", &text, false, facts);
            hint(show, *reason);
        }
        Some(End::Stopped { reason, message, .. }) => {
            show.end_line("outcome unknown", &format!("the task has stopped ({reason}): {message}"), false, facts);
            hint(show, *reason);
        }
        Some(End::Silent { waiting_for, after, .. }) => {
            let text = format!("no message arrived for {} while waiting for {waiting_for}", took(*after));
            show.end_line("outcome unknown", &text, false, facts);
        }
        None => {
            let asked = match (tail.canceller.has_asked(), stopping) {
                (true, _) => "; relay asked it to stop, and it may still be stopping",
                (false, Some(_)) => "; relay did not ask it to stop, and it continues",
                (false, None) => "",
            };
            show.end_line("outcome unknown", &format!("relay exited before the end of {id}{asked}"), false, facts);
        }
    }
    if is_open(end) {
        say_what_is_known(show, tail);
    }
    say_what_was_not_shown(show, tail);
}

/// The end as fields, for programs.
fn facts(end: Option<&End>, exit_code: u8) -> Value {
    let Verdict { by, reason, .. } = verdict(end);
    json!({ "exit_code": exit_code, "decided_by": by, "reason": reason })
}

/// Tells of frames that came and were not shown.
fn say_what_was_not_shown(show: &mut Show, tail: &Tail) {
    let inbox = &tail.inbox;
    if inbox.earlier() > 0 {
        show.warn(&format!(
            "{} frames from before this call arrived late and were not shown; the previous call has most likely shown them",
            inbox.earlier()
        ));
    }
    if inbox.unvouched() > 0 {
        show.warn(&format!(
            "{} frames were not shown, because no key that a pin vouches for has signed them",
            inbox.unvouched()
        ));
    }
    if inbox.dropped() > 0 {
        show.warn(&format!("{} frames that were not signed by this deployment's keys were dropped", inbox.dropped()));
    }
}

/// Prints the answer to a dry run.
pub(crate) fn say_tried(show: &mut Show, tried: &Tried) {
    let Tried { reason, message, policies, requesters, approvals_missing, configuration_digest, revision, .. } = tried;
    let as_whom = requesters.join(", ");
    let (name, text) = match reason {
        None => ("would run", format!("allowed by {} (signer {as_whom}); nothing was started", policies.join(", "))),
        Some(reason) => ("would be refused", format!("{message} ({reason}; signer {as_whom}); nothing was started")),
    };
    let more = json!({
        "reason": reason,
        "policies": policies,
        "requesters": requesters,
        "approvals_missing": approvals_missing,
        "configuration_sha256": configuration_digest,
        "revision": revision,
    });
    show.result(name, &text, more);
    if let Some(reason) = reason {
        hint(show, *reason);
    }
}

fn hint(show: &mut Show, reason: Reason) {
    show.hint(reason.hint());
}

/// Prints the end that the runner reported.
fn say_finished(
    show: &mut Show,
    tail: &Tail,
    (code, ran_out): (u8, bool),
    finished: &Finished,
    (missing, verified): (&Missing, bool),
) {
    let facts = facts(tail.inbox.poll_end(), code);
    let took = took(tail.clock.elapsed());
    let output = if verified && tail.inbox.came_late() {
        "output complete from where this call began; the digests cover the whole output, so relay did not check them"
            .to_owned()
    } else if verified {
        "output verified".to_owned()
    } else {
        let or = if tail.inbox.came_late() {
            ", or an earlier call has shown them; the archive should have the whole output: relay-admin log"
        } else {
            ""
        };
        format!("output INCOMPLETE: {} frames and {} bytes never arrived{or}", missing.frames, missing.bytes)
    };
    let whose = match &finished.step {
        Some(step) if code != 0 && tail.progress.rolled_back() => format!(" of step {step}, the rollback ran"),
        Some(step) if code != 0 => format!(" of step {step}"),
        _ => String::new(),
    };
    match &finished.outcome {
        Outcome::Exited { signal: Some(signal), .. } => {
            let text = format!("signal {signal}, exit {code}{whose}, {took}, {output}");
            show.end_line("finished", &text, verified, facts);
        }
        Outcome::Exited { .. } => {
            show.end_line("finished", &format!("exit {code}{whose}, {took}, {output}"), verified, facts);
        }
        Outcome::Ended { reason: Reason::Cancelled, .. } if ran_out => {
            let text = format!("stopped, because the --timeout has passed, exit {code}, {took}, {output}");
            show.end_line("finished", &text, false, facts);
            show.hint("allow more time with --timeout, or find out what hangs");
        }
        Outcome::Ended { reason, message } => {
            let words = reason.words();
            show.end_line("finished", &format!("{words} ({reason}), exit {code}, {took}, {output}"), false, facts);
            if message != words {
                show.warn(message);
            }
            hint(show, *reason);
        }
    }
}

fn say_what_is_known(show: &mut Show, tail: &Tail) {
    if let Some(trouble) = tail.follower.trouble() {
        show.warn(&format!("cannot read the reply queue: {trouble}"));
        if trouble.kind == Kind::Credentials {
            show.hint("CI's credentials expired before the deployment ended: give the job a longer session, or one that renews itself (such as a web identity's), then follow the deployment with relay attach");
        }
    }
    let offset = tail.inbox.offset();
    match tail.inbox.task_arn() {
        Some(arn) => {
            let cluster = arn.split('/').nth(1).unwrap_or("CLUSTER");
            show.warn(&format!(
                "known: the task is {arn}; {} bytes of stdout and {} of stderr are verified",
                offset.stdout, offset.stderr
            ));
            show.warn(&format!(
                "to find out more, in the target account: aws ecs describe-tasks --cluster {cluster} --tasks {arn}"
            ));
        }
        None => {
            let known = match tail.progress.phases.published {
                Some(_) => "relay published the request, and no answer arrived",
                None => "no message of the deployment arrived",
            };
            show.warn(&format!(
                "known: {known}; look into the launcher's log and its dead-letter queue in the target account"
            ));
        }
    }
}

fn took(elapsed: Duration) -> String {
    if elapsed.as_secs() < 10 {
        return format!("{:.1}s", elapsed.as_secs_f64());
    }
    plain_elapsed(elapsed)
}
