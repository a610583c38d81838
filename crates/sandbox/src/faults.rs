//! The fault layer: rules from a file, decided around every operation by `dispatch`, from a seed.
//!
//! Each rule has its own generator, so adding a rule does not change what the others do.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::dispatch::Service;
use crate::error::AwsError;
use crate::holds::Holds;
use crate::kinds::Kind;

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
    /// Substring of the queue, topic, key, task or target concerned, or of the caller's role.
    #[serde(rename = "match")]
    matching: Option<String>,
    /// Substring of the caller's role or user.
    by: Option<String>,
    /// An error code, or ECS's words, in place of the kind's own.
    code: Option<String>,
}

fn any() -> String {
    "*".to_owned()
}

fn always() -> f64 {
    1.0
}

/// What one rule asks of one operation.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) kind: Kind,
    /// Drawn from `delay_ms`, where the rule has it.
    pub(crate) time: Option<Duration>,
    /// The rule's `code`: an error code, or ECS's words.
    pub(crate) words: Option<String>,
}

/// What the rules ask of one operation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Effects {
    pub(crate) list: Vec<Effect>,
    /// The plan that decided, for what is held while it is in force.
    pub(crate) plan: u64,
    /// Randomness for the operation's own choices (which entry, which order).
    pub(crate) salt: u64,
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

    /// Reads a plan as JSON if it looks like it, else as TOML. A rule that could never apply is an error.
    pub(crate) fn parse(text: &str) -> Result<Plan, String> {
        let plan: Plan = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|e| e.to_string())?
        } else {
            toml::from_str(text).map_err(|e| e.to_string())?
        };
        for (rule, n) in plan.rule.iter().zip(1..) {
            rule.check().map_err(|error| format!("rule {n}: {error}"))?;
        }
        Ok(plan)
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
            let hit = rule.is_for(service, operation)
                && rule.kind.unsuited(service, operation).is_none()
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
            effects.plan = self.holds.plan();
            let random = active.random.next();
            effects.salt ^= random;
            effects.list.push(Effect {
                kind: rule.kind,
                time: rule.delay_ms.map(|span| spread(span, random)),
                words: rule.code.clone(),
            });
        }
        effects
    }
}

/// A time between the two, by chance.
fn spread([low, high]: [u64; 2], random: u64) -> Duration {
    Duration::from_millis(low + random % (high.saturating_sub(low).saturating_add(1)))
}

impl Rule {
    fn is_for(&self, service: Service, operation: &str) -> bool {
        (self.service == "*" || self.service.eq_ignore_ascii_case(service.name()))
            && (self.operation == "*" || self.operation.eq_ignore_ascii_case(operation))
    }

    fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(format!("probability = {} is not between 0 and 1", self.probability));
        }
        if self.delay_ms.is_some_and(|[low, high]| low > high) {
            return Err("delay_ms wants the smaller number first".to_owned());
        }
        let mut why = None;
        for service in Service::ALL {
            for operation in service.operation_names().filter(|name| self.is_for(service, name)) {
                match self.kind.unsuited(service, operation) {
                    None => return Ok(()),
                    reason => why = why.or(reason),
                }
            }
        }
        let named = format!("{}:{}", self.service, self.operation);
        Err(match why {
            None => format!("there is no operation {named}"),
            Some(why) => format!("`{}` means nothing for {named}: {why}", self.kind.name()),
        })
    }
}

impl Effects {
    pub(crate) fn get(&self, kind: Kind) -> Option<&Effect> {
        self.list.iter().find(|effect| effect.kind == kind)
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.get(kind).is_some()
    }

    /// How long the operation, or what it brings, is to take.
    pub(crate) fn delay(&self) -> Option<Duration> {
        self.get(Kind::Delay).map(|effect| effect.time.unwrap_or_else(|| spread([10, 200], self.salt)))
    }

    /// The error that is answered in place of the operation's own answer.
    pub(crate) fn failure(&self, service: Service) -> Option<AwsError> {
        self.list.iter().find_map(|effect| {
            let (status, code) = match effect.kind {
                Kind::Error => (500, service.internal_error()),
                Kind::Throttle => (if service == Service::S3 { 503 } else { 400 }, service.throttle_error()),
                Kind::Outage => (503, "ServiceUnavailable"),
                Kind::Conflict if service == Service::S3 => (409, "ConditionalRequestConflict"),
                Kind::Conflict => (409, "ConflictException"),
                _ => return None,
            };
            let message = "A fault of the sandbox.";
            Some(match &effect.words {
                Some(code) => AwsError::new(if status == 500 { 400 } else { status }, code.clone(), message),
                None => AwsError::new(status, code, message),
            })
        })
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
        (0..n)
            .map(|_| {
                faults.decide(Service::Sqs, "SendMessage", "role/a", || "q".to_owned()).failure(Service::Sqs).is_some()
            })
            .collect()
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
    }

    #[test]
    fn a_rule_that_could_never_apply_is_refused_in_plain_words() {
        let refused = |rule: &str| Faults::parse(&format!("[[rule]]\n{rule}")).unwrap_err();
        assert!(refused("kind = \"erorr\"").contains("unknown variant `erorr`, expected one of `error`"));
        assert_eq!(
            refused("kind = \"error\"\nservice = \"sqs\"\noperation = \"SendMesage\""),
            "rule 1: there is no operation sqs:SendMesage"
        );
        assert_eq!(
            refused("kind = \"partial-batch\"\noperation = \"SendMessage\""),
            "rule 1: `partial-batch` means nothing for *:SendMessage: only a batch has parts that fail by themselves"
        );
        assert!(refused("kind = \"error\"\nprobability = 50").contains("between 0 and 1"));
        assert!(refused("kind = \"delay\"\ndelay_ms = [5, 1]").contains("smaller number first"));
        // One of many is enough.
        assert!(Faults::parse("[[rule]]\nkind = \"partial-batch\"").is_ok());
    }
}
