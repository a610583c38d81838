//! Turns facts into findings, without any input or output.

use relay_aws::probe::Probe;
use relay_console::Failure;
use relay_engine::Pins;
use relay_protocol::frame::Tried;
use relay_protocol::limits::CLOCK_SKEW;
use relay_protocol::outcome::ExitCode;
use relay_protocol::time::plain_duration;
use relay_protocol::{Reason, TopicArn};

use super::facts::{DryRun, Facts, Key, Queue, Store};
use crate::settings::{PIN_HINT, key_ids};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, but should be changed.
    Warn,
    /// A deployment will not work.
    Bad,
    /// It was not checked.
    Skip,
}

impl Level {
    /// The name, as printed.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Skip => "skip",
        }
    }
}

/// One result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) check: &'static str,
    pub(super) text: String,
    pub(super) remedy: Option<String>,
    /// The exit code of the command if this finding is bad.
    pub(super) exit: Option<ExitCode>,
}

fn ok(check: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Ok, check, text: text.into(), remedy: None, exit: None }
}

fn warn(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Warn, remedy: Some(remedy.into()), ..ok(check, text) }
}

fn skip(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Skip, ..warn(check, text, remedy) }
}

/// The doctor exits with the code that a deployment would fail with.
fn bad(check: &'static str, failure: &Failure) -> Finding {
    let remedy = (!failure.hints.is_empty()).then(|| failure.hints.join("; "));
    Finding { level: Level::Bad, remedy, exit: Some(failure.exit), ..ok(check, failure.error.clone()) }
}

/// Returns all findings, in the order in which a deployment would meet them.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![topic(facts), key(facts), pins(facts)];
    if let Ok(topic) = &facts.topic {
        all.push(region(facts, topic));
    }
    all.extend(facts.endpoints.iter().map(|(name, value)| endpoint(name, value)));
    if let Some(first) = facts.proxies.first() {
        all.push(proxy(first, facts.probe.as_ref()));
    }
    match (&facts.probe, &facts.topic) {
        (Some(probe), Ok(topic)) => all.extend([identity(probe, topic), clock(probe)]),
        _ => all.push(skip("identity", "relay did not ask AWS", "configure the topic first: relay asks in its region")),
    }
    all.push(queues(facts));
    all.push(artifacts(facts));
    all.push(dry_run(facts));
    all
}

/// What the launcher says. A dry run shows at once whether topic, key, pins, target and policy
/// agree.
fn dry_run(facts: &Facts) -> Finding {
    let (answer, parameters) = match &facts.dry_run {
        DryRun::NotTried => {
            return skip(
                "dry run",
                "not checked: whether the launcher answers, knows the target and the key, fits the pins, and would allow a deployment",
                "only asking shows it: `relay doctor --try` asks, starts nothing, and leaves nothing behind",
            );
        }
        DryRun::NotPossible => return skip("dry run", "not made", "mend what is bad above first"),
        DryRun::Tried { answer, parameters } => (answer.as_ref(), *parameters),
    };
    match answer {
        Err(failure) => bad("dry run", failure),
        Ok(Tried { reason: None, policies, requesters, .. }) => {
            ok("dry run", format!("{} may deploy, allowed by {}", requesters.join(", "), policies.join(", ")))
        }
        // Everything before the parameters was in order.
        Ok(Tried { reason: Some(Reason::Parameter), message, .. }) if !parameters => skip(
            "dry run",
            format!(
                "the launcher knows the target and the key, and the pins fit; not checked: the policy, because {message}"
            ),
            "pass the target's parameters: --param NAME=VALUE",
        ),
        Ok(Tried { reason: Some(reason), message, .. }) => {
            bad("dry run", &Failure::because(*reason, format!("{message} ({reason})")).hint(reason.hint()))
        }
    }
}

fn topic(facts: &Facts) -> Finding {
    match &facts.topic {
        Ok(topic) => ok("topic", format!("{topic} for {}", facts.target)),
        Err(failure) => bad("topic", failure),
    }
}

fn key(facts: &Facts) -> Finding {
    let (public, file) = match &facts.key {
        Ok(Key::Public { public, file }) => (public, file),
        Ok(Key::Token { source, claims }) => {
            let claims: Vec<String> = claims.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            let text = format!(
                "{source} gave an identity token; the target's signers must fit its claims: {}",
                claims.join(", ")
            );
            return ok("key", text);
        }
        Err(failure) => return bad("key", failure),
    };
    match file {
        Some((file, mode)) if mode & 0o077 != 0 => warn(
            "key",
            format!("users other than the owner have access to {} (mode {:03o})", file.display(), mode & 0o777),
            format!("chmod 600 {}", file.display()),
        ),
        Some((file, _)) => ok("key", format!("{}; the target's signers must include {public}", file.display())),
        None => ok("key", format!("the target's signers must include {public}")),
    }
}

fn pins(facts: &Facts) -> Finding {
    match &facts.pins {
        Err(failure) => bad("pins", failure),
        Ok(Some(Pins { target, answer })) => {
            ok("pins", format!("target key {}, answer key {}", key_ids(target), key_ids(answer)))
        }
        Ok(None) => {
            warn("pins", format!("none for {}, so relay trusts the first runner that answers", facts.target), PIN_HINT)
        }
    }
}

fn region(facts: &Facts, topic: &TopicArn) -> Finding {
    let own = topic.region();
    match &facts.region {
        Some(other) if *other != own.as_str() => {
            ok("region", format!("{own}, from the topic; relay ignores {other} from the environment"))
        }
        _ => ok("region", format!("{own}, from the topic")),
    }
}

fn endpoint(name: &str, value: &str) -> Finding {
    let (scheme, rest) = value.split_once("://").unwrap_or(("", value));
    let authority = rest.split('/').next().unwrap_or_default();
    // A user name and a password may precede the host.
    let place = authority.rsplit('@').next().unwrap_or_default();
    let host = match place.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => place.split(':').next(),
    };
    if matches!(host, Some("127.0.0.1" | "localhost" | "::1")) {
        return ok("endpoint", format!("{name} points to {place} on this machine: a sandbox, not AWS"));
    }
    let clear = if scheme == "https" { "" } else { ", unencrypted" };
    warn(
        "endpoint",
        format!("{name} points to {place} instead of AWS{clear}"),
        "unset it, unless you operate this endpoint",
    )
}

fn proxy(name: &str, probe: Option<&Probe>) -> Finding {
    let text = format!("{name} is set, and relay uses it");
    match probe {
        Some(Probe { clocks: Some(_), .. }) => ok("proxy", format!("{text}; AWS answers")),
        _ => warn("proxy", text, "check that the proxy lets AWS's endpoints through, or name them in NO_PROXY"),
    }
}

fn identity(probe: &Probe, topic: &TopicArn) -> Finding {
    let identity = match &probe.identity {
        Ok(identity) => identity,
        Err(error) => return bad("identity", &Failure::aws("getting the caller's identity", error)),
    };
    let (arn, account) = (&identity.arn, &identity.account);
    if arn.ends_with(":root") || arn.contains(":user/") {
        return warn(
            "identity",
            format!("{arn} has long-lived keys"),
            "give CI a role: through the CI system's OIDC provider, or the role of the machine that it runs on",
        );
    }
    if *account == topic.account().as_str() {
        return warn(
            "identity",
            format!("{arn} is in the target account itself"),
            "give CI an account of its own, so that people who can edit a CI job stay outside the target account",
        );
    }
    ok("identity", format!("{arn}; the signer's ci_accounts must include {account}"))
}

fn clock(probe: &Probe) -> Finding {
    let Some((there, here)) = probe.clocks else {
        return skip("clock", "AWS returned no time to compare with", "see identity");
    };
    let off = here.since(there);
    let text = match off {
        ..0 => format!("{} behind AWS's", plain_duration(-off)),
        0 => "the same as AWS's".to_owned(),
        1.. => format!("{} ahead of AWS's", plain_duration(off)),
    };
    let remedy = format!("set this machine's clock (NTP): the target refuses a difference of more than {CLOCK_SKEW} s");
    match off.abs() {
        off if off > CLOCK_SKEW => bad("clock", &Failure::usage(text).hint(remedy)),
        off if off > CLOCK_SKEW / 2 => warn("clock", text, remedy),
        _ => ok("clock", text),
    }
}

fn queues(facts: &Facts) -> Finding {
    match &facts.queues {
        Queue::Fixed(Err(failure)) => bad("queues", failure),
        Queue::Fixed(Ok(queue)) => match &facts.topic {
            Ok(topic) if topic.region() != queue.region() => bad(
                "queues",
                &Failure::usage(format!(
                    "{} is in {}, but the topic is in {}",
                    queue.name(),
                    queue.region(),
                    topic.region()
                ))
                .hint("use a reply queue in the topic's region"),
            ),
            _ => skip(
                "queues",
                format!("not checked: whether relay may receive and delete messages in {}", queue.name()),
                "a check would take a running deployment's frames from the queue",
            ),
        },
        Queue::Tried => ok("queues", "a reply and a control queue were created, read and deleted"),
        Queue::SeeDryRun => skip("queues", "not known, because the dry run failed", "see dry run"),
        Queue::NotTried => skip(
            "queues",
            "not checked: whether these credentials may create, read and delete relay-* queues",
            "only an attempt shows it: `relay doctor --try` makes one, and leaves nothing behind",
        ),
    }
}

fn artifacts(facts: &Facts) -> Finding {
    let Store { bucket, prefix, answer } = match &facts.artifacts {
        Ok(Some(store)) => store,
        Ok(None) => return ok("artifacts", "no store is configured; only --artifact needs one"),
        Err(failure) => return bad("artifacts", failure),
    };
    let place = format!("s3://{bucket}/{prefix}");
    let error = match answer {
        None => return skip("artifacts", format!("not checked: whether {place} exists"), "see identity"),
        Some(Ok(())) => return ok("artifacts", format!("{place} is reachable; writing was not tried")),
        Some(Err(error)) => error,
    };
    match error.code.as_deref() {
        Some("NoSuchKey") => ok("artifacts", format!("{place} is reachable; writing was not tried")),
        Some("NoSuchBucket") => {
            bad("artifacts", &Failure::usage(format!("the bucket {bucket} does not exist")).hint("check `artifact_store` in relay.toml"))
        }
        Some("PermanentRedirect" | "AuthorizationHeaderMalformed") => bad(
            "artifacts",
            &Failure::usage(format!("the bucket {bucket} is not in the topic's region"))
                .hint("use a bucket in the topic's region"),
        ),
        Some("AccessDenied") => bad(
            "artifacts",
            // The general hint names one right; here two may be missing.
            &Failure::new(ExitCode::Fault, format!("reading an object in {place}: {error}")).hint(
                "allow s3:GetObject and s3:PutObject there, and s3:ListBucket on the bucket: without s3:ListBucket, a missing object looks like a forbidden one",
            ),
        ),
        _ => bad("artifacts", &Failure::aws(&format!("reading an object in {place}"), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::Key;
    use relay_aws::sessions::Identity;
    use relay_aws::{AwsError, Kind};
    use relay_protocol::Timestamp;
    use relay_protocol::keys::PrivateKey;

    fn identity(arn: &str, account: &str, skew: i64) -> Probe {
        let there = Timestamp::from_unix(1_000_000);
        Probe {
            identity: Ok(Identity { account: account.to_owned(), arn: arn.to_owned() }),
            clocks: Some((there, there.plus(skew))),
        }
    }

    fn no(code: &str) -> AwsError {
        let (operation, message) = ("sts:GetCallerIdentity", "no".to_owned());
        AwsError { operation, kind: Kind::Denied, code: Some(code.to_owned()), message, resources: Vec::new() }
    }

    fn tried() -> Tried {
        Tried {
            request_digest: relay_protocol::Digest::of(b"dry run"),
            reason: None,
            message: String::new(),
            policies: vec!["policy0".to_owned()],
            requesters: vec!["ci".to_owned()],
            approvals_missing: 0,
            configuration_digest: relay_protocol::Digest::of(b"configuration"),
            revision: "arn".to_owned(),
            target_key_id: String::new(),
            saved: Vec::new(),
        }
    }

    fn healthy() -> Facts {
        let public = PrivateKey::from_seed([1; 32]).public().clone();
        Facts {
            target: "payments/production".parse().unwrap(),
            topic: Ok("arn:aws:sns:eu-west-1:222222222222:relay".parse().unwrap()),
            key: Ok(Key::Public { public: public.clone(), file: Some(("ci.pem".into(), 0o100_600)) }),
            pins: Ok(Some(Pins { target: vec![public.clone()], answer: vec![public] })),
            region: None,
            endpoints: Vec::new(),
            proxies: Vec::new(),
            probe: Some(identity("arn:aws:sts::111111111111:assumed-role/ci/run", "111111111111", 1)),
            queues: Queue::Tried,
            dry_run: DryRun::Tried { answer: Box::new(Ok(tried())), parameters: false },
            artifacts: Ok(Some(Store {
                bucket: "b".to_owned(),
                prefix: "p/".to_owned(),
                answer: Some(Err(no("NoSuchKey"))),
            })),
        }
    }

    /// The level, the text with its remedy, and the exit code of the only finding of `check`.
    fn of(check: &str, change: impl FnOnce(&mut Facts)) -> (Level, String, Option<u8>) {
        let mut facts = healthy();
        change(&mut facts);
        let all = findings(&facts);
        let mut found = all.iter().filter(|finding| finding.check == check);
        let finding = found.next().unwrap_or_else(|| panic!("no finding for {check}: {all:?}"));
        assert_eq!(found.next(), None);
        // A bad finding always sets the exit code, and no other finding does.
        assert_eq!(finding.level == Level::Bad, finding.exit.is_some());
        let text = format!("{} — {}", finding.text, finding.remedy.as_deref().unwrap_or_default());
        (finding.level, text, finding.exit.map(ExitCode::code))
    }

    #[test]
    fn what_is_well_is_said_to_be_and_what_cannot_be_told_is_not() {
        for finding in findings(&healthy()) {
            assert_eq!(finding.level, Level::Ok, "{finding:?}");
        }
        assert_eq!(of("queues", |facts| facts.queues = Queue::NotTried).0, Level::Skip);
    }

    #[test]
    fn settings_are_119_and_a_no_of_aws_is_125() {
        let usage = || Failure::usage("odd").hint("mend it");
        let bad = |code| (Level::Bad, "odd — mend it".to_owned(), Some(code));
        assert_eq!(of("topic", |facts| facts.topic = Err(usage())), bad(119));
        assert_eq!(of("key", |facts| facts.key = Err(usage())), bad(119));
        assert_eq!(of("pins", |facts| facts.pins = Err(usage())), bad(119));
        assert_eq!(of("artifacts", |facts| facts.artifacts = Err(usage())), bad(119));
        assert_eq!(of("queues", |facts| facts.queues = Queue::Fixed(Err(usage()))), bad(119));
        let denied = || Failure { exit: ExitCode::Fault, ..usage() };
        let answer = |answer| {
            of("dry run", |facts| facts.dry_run = DryRun::Tried { answer: Box::new(answer), parameters: true })
        };
        assert_eq!(answer(Err(denied())), bad(125));
        let refused = |reason| Ok(Tried { reason: Some(reason), ..tried() });
        assert_eq!(answer(refused(Reason::Policy)).2, Some(120));
        assert_eq!(answer(refused(Reason::Parameter)).2, Some(120));
        let without = DryRun::Tried { answer: Box::new(refused(Reason::Parameter)), parameters: false };
        assert_eq!(of("dry run", |facts| facts.dry_run = without).0, Level::Skip);
        assert_eq!(of("dry run", |facts| facts.dry_run = DryRun::NotTried).0, Level::Skip);
        assert_eq!(of("dry run", |facts| facts.dry_run = DryRun::NotPossible).0, Level::Skip);
        let (level, text, code) = of("identity", |facts| {
            facts.probe = Some(Probe { identity: Err(no("InvalidClientTokenId")), clocks: None });
        });
        assert_eq!((level, code), (Level::Bad, Some(125)));
        assert!(text.contains("InvalidClientTokenId"), "{text}");
    }

    #[test]
    fn without_a_topic_nobody_is_asked() {
        let (level, ..) = of("identity", |facts| {
            facts.topic = Err(Failure::usage("odd"));
            facts.probe = None;
        });
        assert_eq!(level, Level::Skip);
    }

    #[test]
    fn keys_are_private_and_pinned() {
        let with = |file| {
            move |facts: &mut Facts| {
                let public = PrivateKey::from_seed([1; 32]).public().clone();
                facts.key = Ok(Key::Public { public, file });
            }
        };
        let mode = |mode| with(Some(("ci.pem".into(), mode)));
        assert_eq!(of("key", mode(0o100_400)).0, Level::Ok);
        let (level, text, _) = of("key", mode(0o100_640));
        assert!(level == Level::Warn && text.contains("mode 640") && text.contains("chmod 600 ci.pem"), "{text}");
        assert_eq!(of("key", with(None)).0, Level::Ok);
        let claims = [("/sub".to_owned(), "job".to_owned())].into();
        let (level, text, _) = of("key", |facts| facts.key = Ok(Key::Token { source: "GitHub".to_owned(), claims }));
        assert!(level == Level::Ok && text.contains("/sub = job"), "{text}");
        assert_eq!(of("pins", |facts| facts.pins = Ok(None)).0, Level::Warn);
    }

    #[test]
    fn identities_should_be_roles_in_another_account() {
        let level = |arn: &str, account: &str| of("identity", |facts| facts.probe = Some(identity(arn, account, 0))).0;
        assert_eq!(level("arn:aws:iam::111111111111:user/ci", "111111111111"), Level::Warn);
        assert_eq!(level("arn:aws:iam::111111111111:root", "111111111111"), Level::Warn);
        assert_eq!(level("arn:aws:sts::222222222222:assumed-role/ci/run", "222222222222"), Level::Warn);
    }

    #[test]
    fn a_clock_may_be_off_by_as_much_as_a_request_may() {
        let off = |skew| {
            let (level, text, code) = of("clock", |facts| facts.probe = Some(identity("arn:x", "1", skew)));
            (level, text.split(" — ").next().unwrap_or_default().to_owned(), code)
        };
        assert_eq!(off(0), (Level::Ok, "the same as AWS's".to_owned(), None));
        assert_eq!(off(-30), (Level::Ok, "30s behind AWS's".to_owned(), None));
        assert_eq!(off(31), (Level::Warn, "31s ahead of AWS's".to_owned(), None));
        assert_eq!(off(60), (Level::Warn, "1m00s ahead of AWS's".to_owned(), None));
        assert_eq!(off(-61), (Level::Bad, "1m01s behind AWS's".to_owned(), Some(119)));
    }

    #[test]
    fn an_endpoint_is_a_sandbox_only_on_this_machine() {
        let level = |value: &str| {
            of("endpoint", |facts| facts.endpoints = vec![("AWS_ENDPOINT_URL".to_owned(), value.to_owned())])
        };
        for here in ["http://127.0.0.1:4566", "http://localhost/x", "http://[::1]:1/"] {
            assert_eq!(level(here).0, Level::Ok, "{here}");
        }
        for elsewhere in
            ["http://127.0.0.1.evil.example:1", "https://localhost@evil.example/", "http://[::2]:1", "127.0.0.2"]
        {
            assert_eq!(level(elsewhere).0, Level::Warn, "{elsewhere}");
        }
        let (_, text, _) = level("http://user:secret@evil.example/path");
        assert!(text.contains("evil.example") && text.contains("unencrypted") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn a_proxy_matters_only_where_aws_does_not_answer() {
        let set = |facts: &mut Facts| facts.proxies = vec!["HTTPS_PROXY".to_owned()];
        assert_eq!(of("proxy", set).0, Level::Ok);
        let level = of("proxy", |facts| {
            set(facts);
            facts.probe.as_mut().unwrap().clocks = None;
        });
        assert_eq!(level.0, Level::Warn);
    }

    #[test]
    fn s3_tells_a_missing_object_from_a_missing_bucket_and_a_missing_right() {
        let answer = |answer| {
            let (level, _, code) = of("artifacts", |facts| {
                facts.artifacts.as_mut().unwrap().as_mut().unwrap().answer = answer;
            });
            (level, code)
        };
        assert_eq!(answer(Some(Ok(()))), (Level::Ok, None));
        assert_eq!(answer(None), (Level::Skip, None));
        assert_eq!(answer(Some(Err(no("NoSuchBucket")))), (Level::Bad, Some(119)));
        assert_eq!(answer(Some(Err(no("PermanentRedirect")))), (Level::Bad, Some(119)));
        assert_eq!(answer(Some(Err(no("AccessDenied")))), (Level::Bad, Some(125)));
        assert_eq!(of("artifacts", |facts| facts.artifacts = Ok(None)).0, Level::Ok);
    }

    #[test]
    fn a_fixed_queue_lies_in_the_topics_region() {
        let queue = |region: &str| {
            let url = format!("https://sqs.{region}.amazonaws.com/111111111111/replies").parse().unwrap();
            of("queues", |facts| facts.queues = Queue::Fixed(Ok(url))).0
        };
        assert_eq!((queue("eu-west-1"), queue("us-east-1")), (Level::Skip, Level::Bad));
    }
}
