//! The exit code for every kind of end (clauses OUT-1 to OUT-4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use relay_engine::conclude::{Conclusion, Strict, conclude, is_busy, is_open};
use relay_engine::proof::Unproved;
use relay_engine::{End, Missing};
use relay_protocol::frame::{Finished, Tried};
use relay_protocol::outcome::{ExitCode, Outcome};
use relay_protocol::record::StreamDigest;
use relay_protocol::{Digest, Reason};

const LAX: Strict = Strict { output: false, record: false };

fn finished(outcome: Outcome, verified: bool, record: Result<(), Unproved>) -> End {
    let empty = StreamDigest { bytes: 0, sha256: Digest::of(b"") };
    let finished = Finished {
        outcome,
        step: None,
        frames: 1,
        stdout: empty,
        stderr: empty,
        outputs: BTreeMap::new(),
        record_sha256: Digest::of(b""),
        record: None,
        record_problem: None,
    };
    End::Finished { finished: Box::new(finished), missing: Missing::default(), verified, record }
}

fn exited(code: u8) -> End {
    finished(Outcome::Exited { code, signal: None }, true, Ok(()))
}

fn ended(reason: Reason) -> End {
    finished(Outcome::Ended { reason, message: String::new() }, true, Ok(()))
}

fn stopped(reason: Reason, started: bool) -> End {
    End::Stopped { reason, message: String::new(), started }
}

fn silent() -> End {
    End::Silent { waiting_for: "the runner", after: Duration::ZERO, task_arn: None }
}

fn tried(reason: Option<Reason>) -> End {
    let digest = Digest::of(b"");
    End::Tried(Box::new(Tried {
        request_digest: digest,
        reason,
        message: String::new(),
        policies: Vec::new(),
        requesters: Vec::new(),
        approvals_missing: 0,
        configuration_digest: digest,
        revision: String::new(),
        target_key_id: String::new(),
        saved: Vec::new(),
    }))
}

// clause: OUT-1, OUT-3, OUT-4
#[test]
fn every_end_has_its_exit_code() {
    let refused = |reason| End::Refused { reason, message: String::new() };
    let never = |reason| End::NeverStarted { reason, message: String::new() };
    let interrupted = Some(ExitCode::Interrupted);
    for (end, stopping, code) in [
        (Some(exited(0)), None, 0),
        (Some(exited(37)), None, 37),
        (Some(exited(37)), interrupted, 37),
        (Some(ended(Reason::Cancelled)), None, 130),
        (Some(ended(Reason::Cancelled)), Some(ExitCode::Terminated), 143),
        (Some(ended(Reason::Stopped)), Some(ExitCode::Terminated), 143),
        (Some(ended(Reason::Stopped)), None, 122),
        (Some(ended(Reason::TimedOut)), interrupted, 124),
        (Some(ended(Reason::Busy)), None, 120),
        (Some(refused(Reason::Policy)), None, 120),
        (Some(never(Reason::Capacity)), None, 121),
        (Some(stopped(Reason::Cancelled, true)), None, 130),
        (Some(stopped(Reason::Cancelled, true)), Some(ExitCode::Terminated), 143),
        (Some(stopped(Reason::TimedOut, true)), interrupted, 124),
        (Some(stopped(Reason::Capacity, false)), None, 121),
        (Some(stopped(Reason::Capacity, true)), None, 122),
        (Some(stopped(Reason::Lost, false)), None, 122),
        (Some(silent()), None, 122),
        (Some(tried(None)), None, 0),
        (Some(tried(Some(Reason::Policy))), None, 120),
        (None, None, 122),
        (None, interrupted, 130),
        (None, Some(ExitCode::TimedOut), 122),
    ] {
        assert_eq!(conclude(end.as_ref(), stopping, LAX).code(), code, "{end:?} {stopping:?}");
    }
    // A tool's 120 is not relay's, and a dry run's 0 is no tool's.
    assert_eq!(conclude(Some(&exited(120)), None, LAX), Conclusion::Tool(120));
    assert_eq!(conclude(Some(&tried(None)), None, LAX), Conclusion::WouldRun);
}

// clause: OUT-3, FRM-20
#[test]
fn what_is_demanded_and_not_proved_is_123() {
    let with = |output, record| Strict { output, record };
    let outcome = || Outcome::Exited { code: 0, signal: None };
    for (verified, record, strict, code) in [
        (true, Ok(()), with(true, true), 0),
        (false, Ok(()), with(false, true), 0),
        (false, Ok(()), with(true, false), 123),
        (true, Err(Unproved::NoPin), with(true, false), 0),
        (true, Err(Unproved::NoPin), with(false, true), 123),
    ] {
        let end = finished(outcome(), verified, record);
        assert_eq!(conclude(Some(&end), None, strict).code(), code, "{end:?} {strict:?}");
    }
}

// clause: OUT-4
#[test]
fn what_is_open_and_what_is_busy() {
    let open = [None, Some(silent()), Some(stopped(Reason::Lost, false)), Some(stopped(Reason::Capacity, true))];
    assert!(open.iter().all(|end| is_open(end.as_ref())));
    let closed = [exited(1), stopped(Reason::Capacity, false), tried(None)];
    assert!(!closed.iter().any(|end| is_open(Some(end))));
    let busy = End::Refused { reason: Reason::Busy, message: String::new() };
    assert!(is_busy(&busy) && is_busy(&ended(Reason::Busy)));
    assert!(!is_busy(&exited(120)) && !is_busy(&ended(Reason::Stopped)));
    assert!(!is_busy(&End::Refused { reason: Reason::Policy, message: String::new() }));
}
