//! The fault layer: rules from a file, decided around every operation by `dispatch`, from a seed.
//!
//! Each rule has its own generator, so adding a rule does not change what the others do.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::dispatch::Service;
use crate::error::AwsError;
use crate::holds::Holds;

/// A fault file, TOML or JSON: `seed = 7` and `[[rule]]` tables.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    #[serde(default)]
    pub(crate) seed: u64,
    #[serde(default, alias = "rules")]
    pub(crate) rule: Vec<Rule>,
}

/// One rule. Without `probability` it always applies; without `count` for ever.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    #[serde(default = "any")]
    service: String,
    #[serde(default = "any")]
    operation: String,
    kind: Kind,
    #[serde(default = "always")]
    probability: f64,
    count: Option<u64>,
    /// Matching operations to let pass first.
    #[serde(default)]
    after: u64,
    /// The rule sleeps before and after this window, counted from the moment the plan was set.
    #[serde(default)]
    from_ms: u64,
    until_ms: Option<u64>,
    delay_ms: Option<[u64; 2]>,
    /// Substring of the queue, topic, key, task or target concerned.
    #[serde(rename = "match")]
    matching: Option<String>,
    /// Substring of the caller's role or user.
    by: Option<String>,
    code: Option<String>,
}

fn any() -> String {
    "*".to_owned()
}

fn always() -> f64 {
    1.0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Error,
    Throttle,
    TimeoutBefore,
    TimeoutAfter,
    Duplicate,
    Delay,
    Reorder,
    PartialBatch,
    Outage,
    Conflict,
    LostResponse,
    RunTaskFailures,
    HoldBefore,
    HoldAfter,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Error => "error",
            Kind::Throttle => "throttle",
            Kind::TimeoutBefore => "timeout-before",
            Kind::TimeoutAfter => "timeout-after",
            Kind::Duplicate => "duplicate",
            Kind::Delay => "delay",
            Kind::Reorder => "reorder",
            Kind::PartialBatch => "partial-batch",
            Kind::Outage => "outage",
            Kind::Conflict => "conflict",
            Kind::LostResponse => "lost-response",
            Kind::RunTaskFailures => "run-task-failures",
            Kind::HoldBefore => "hold-before",
            Kind::HoldAfter => "hold-after",
        }
    }
}

/// What the rules ask of one operation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Effects {
    pub(crate) fail: Option<AwsError>,
    pub(crate) hang_up_before: bool,
    pub(crate) hang_up_after: bool,
    pub(crate) duplicate: bool,
    pub(crate) reorder: bool,
    pub(crate) partial_batch: bool,
    pub(crate) run_task_failures: bool,
    /// Held before its effect, or between its effect and its answer, while this plan is in force.
    pub(crate) hold_before: Option<u64>,
    pub(crate) hold_after: Option<u64>,
    pub(crate) delay: Option<Duration>,
    /// Randomness for the operation's own choices (which entry, which order).
    pub(crate) salt: u64,
    pub(crate) applied: Vec<&'static str>,
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    random: SplitMix,
    seen: u64,
    applied: u64,
}

#[derive(Debug)]
pub(crate) struct Faults {
    state: Mutex<(Instant, Vec<Active>)>,
    pub(crate) holds: Holds,
}

impl Faults {
    pub(crate) fn new(plan: Plan) -> Self {
        let faults = Self { state: Mutex::new((Instant::now(), Vec::new())), holds: Holds::new() };
        faults.replace(plan);
        faults
    }

    /// Reads a plan as JSON if it looks like it, else as TOML.
    pub(crate) fn parse(text: &str) -> Result<Plan, String> {
        if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|e| e.to_string())
        } else {
            toml::from_str(text).map_err(|e| e.to_string())
        }
    }

    pub(crate) fn replace(&self, plan: Plan) {
        let seed = plan.seed;
        let rules = plan.rule.into_iter().zip(1_u64..).map(|(rule, position)| Active {
            rule,
            random: SplitMix(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ position.wrapping_mul(0xd134_2543_de82_ef95)),
            seen: 0,
            applied: 0,
        });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (Instant::now(), rules.collect());
        // Under the lock: whoever was decided about by the old rules belongs to the old plan.
        self.holds.let_go();
    }

    pub(crate) fn decide(
        &self,
        service: Service,
        operation: &str,
        caller: &str,
        subject: impl FnOnce() -> String,
    ) -> Effects {
        let mut effects = Effects::default();
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, rules) = &mut *guard;
        if rules.is_empty() {
            return effects;
        }
        let elapsed = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let subject = subject();
        for active in rules {
            let rule = &active.rule;
            let hit = (rule.service == "*" || rule.service.eq_ignore_ascii_case(service.name()))
                && (rule.operation == "*" || rule.operation.eq_ignore_ascii_case(operation))
                && rule.matching.as_ref().is_none_or(|m| subject.contains(m.as_str()))
                && rule.by.as_ref().is_none_or(|by| caller.contains(by.as_str()))
                && elapsed >= rule.from_ms
                && rule.until_ms.is_none_or(|end| elapsed < end);
            if !hit {
                continue;
            }
            active.seen += 1;
            // Drawn even if the rule then does not apply: `count` and `after` must not shift the sequence.
            let draw = active.random.unit();
            if active.seen <= rule.after || rule.count.is_some_and(|c| active.applied >= c) || draw >= rule.probability
            {
                continue;
            }
            active.applied += 1;
            let random = active.random.next();
            effects.salt ^= random;
            effects.apply(rule, service, random, self.holds.plan());
        }
        effects
    }
}

impl Effects {
    fn apply(&mut self, rule: &Rule, service: Service, random: u64, plan: u64) {
        self.applied.push(rule.kind.name());
        let error = |status, code: &'static str| {
            let message = "A fault of the sandbox.";
            Some(match &rule.code {
                Some(code) => AwsError::new(if status == 500 { 400 } else { status }, code.clone(), message),
                None => AwsError::new(status, code, message),
            })
        };
        let spread =
            |[low, high]: [u64; 2]| Duration::from_millis(low + random % (high.saturating_sub(low).saturating_add(1)));
        match rule.kind {
            Kind::Error => self.fail = error(500, service.internal_error()),
            Kind::Throttle => {
                self.fail = error(if service == Service::S3 { 503 } else { 400 }, service.throttle_error())
            }
            Kind::Outage => self.fail = error(503, "ServiceUnavailable"),
            Kind::Conflict => {
                let code = if service == Service::S3 { "ConditionalRequestConflict" } else { "ConflictException" };
                self.fail = error(409, code);
            }
            Kind::TimeoutBefore => self.hang_up_before = true,
            Kind::TimeoutAfter | Kind::LostResponse => self.hang_up_after = true,
            Kind::Duplicate => self.duplicate = true,
            Kind::Reorder => self.reorder = true,
            Kind::PartialBatch => self.partial_batch = true,
            Kind::RunTaskFailures => self.run_task_failures = true,
            Kind::HoldBefore => self.hold_before = Some(plan),
            Kind::HoldAfter => self.hold_after = Some(plan),
            Kind::Delay => self.delay = Some(spread(rule.delay_ms.unwrap_or([10, 200]))),
        }
        // A hang-up may take its time, as a real time-out does.
        if matches!(rule.kind, Kind::TimeoutBefore | Kind::TimeoutAfter | Kind::LostResponse) {
            self.delay = rule.delay_ms.map(spread).or(self.delay);
        }
    }
}

/// SplitMix64: small, seedable, and good enough to choose faults.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        let top = u32::try_from(self.next() >> 32).unwrap_or(0);
        f64::from(top) / 4_294_967_296.0
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 1).unwrap_or(0) % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions(text: &str, n: usize) -> Vec<bool> {
        let faults = Faults::new(Faults::parse(text).unwrap());
        (0..n).map(|_| faults.decide(Service::Sqs, "SendMessage", "role/a", || "q".to_owned()).fail.is_some()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let plan = "seed = 7\n[[rule]]\nservice = \"sqs\"\nkind = \"error\"\nprobability = 0.3\n";
        let first = decisions(plan, 200);
        assert_eq!(first, decisions(plan, 200));
        assert_ne!(first, decisions(&plan.replace('7', "8"), 200));
        let hits = first.iter().filter(|h| **h).count();
        assert!((30..90).contains(&hits), "{hits}");
    }

    #[test]
    fn after_count_and_match_bound_a_rule() {
        let plan = r#"{"rule":[{"kind":"throttle","after":2,"count":1}]}"#;
        assert_eq!(decisions(plan, 5), [false, false, true, false, false]);
        assert_eq!(decisions(r#"{"rule":[{"kind":"throttle","match":"other"}]}"#, 1), [false]);
        assert_eq!(decisions(r#"{"rule":[{"kind":"throttle","by":"role/b"}]}"#, 1), [false]);
        assert_eq!(decisions(r#"{"rule":[{"kind":"throttle","by":"role/a"}]}"#, 1), [true]);
        assert!(Faults::parse("[[rule]]\nkind = \"erorr\"").is_err());
    }
}
