//! The fault layer. Rules from a file decide which faults each call gets, reproducibly from a seed.
//!
//! Each rule has its own generator, so adding a rule does not change what the others do.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::holds::Holds;
use crate::services::fault::{Fault, Faults, Kind, SplitMix, spread};
use crate::services::operation_names;
use crate::wire::service::Service;

/// A fault file, TOML or JSON: `seed = 7` and `[[rule]]` tables.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    #[serde(default)]
    pub(crate) seed: u64,
    #[serde(default, alias = "rules")]
    pub(crate) rule: Vec<Rule>,
}

/// One rule. By default it applies to every matching call, without a limit on their number.
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
    /// The number of matching calls to let through before the rule applies.
    #[serde(default)]
    after: u64,
    /// The rule applies only from `from_ms` until `until_ms` after the plan was set.
    #[serde(default)]
    from_ms: u64,
    until_ms: Option<u64>,
    delay_ms: Option<[u64; 2]>,
    /// The rule applies only if a logged parameter of the call (queue, topic, key, task, …) or the
    /// caller's role contains this text.
    #[serde(rename = "match")]
    matching: Option<String>,
    /// Substring of the caller's role or user.
    by: Option<String>,
    /// Replaces the default error code or ECS reason of the kind.
    code: Option<String>,
    /// The rule spares as many calls as this allows.
    quota: Option<Quota>,
}

/// A rate limit as AWS has them: a bucket of `burst` calls, filled again by `per_second`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quota {
    burst: f64,
    per_second: f64,
}

fn any() -> String {
    "*".to_owned()
}

fn always() -> f64 {
    1.0
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    random: SplitMix,
    seen: u64,
    applied: u64,
    /// Calls that the quota has spared beyond what has been filled again, and the time of the last
    /// one in milliseconds after the plan was set.
    spent: f64,
    spent_at: u64,
}

impl Active {
    /// Whether the quota still allows a call at this time.
    fn spares(&mut self, at_ms: u64) -> bool {
        let Some(Quota { burst, per_second }) = self.rule.quota else { return false };
        let passed = Duration::from_millis(at_ms.saturating_sub(self.spent_at)).as_secs_f64();
        self.spent = (self.spent - passed * per_second).max(0.0);
        self.spent_at = at_ms;
        let spares = self.spent + 1.0 <= burst;
        self.spent += if spares { 1.0 } else { 0.0 };
        spares
    }
}

#[derive(Debug)]
pub(crate) struct FaultRules {
    state: Mutex<(Instant, Vec<Active>)>,
    pub(crate) holds: Holds,
}

impl FaultRules {
    pub(crate) fn new(plan: Plan) -> Self {
        let faults = Self { state: Mutex::new((Instant::now(), Vec::new())), holds: Holds::new() };
        faults.replace(plan);
        faults
    }

    /// Parses a plan: as JSON if it starts with `{`, otherwise as TOML. A rule that can never apply
    /// is an error.
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
            spent: 0.0,
            spent_at: 0,
        });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (Instant::now(), rules.collect());
        // Do this under the lock, so that every call that the old rules decided has the old plan's
        // number and is released.
        self.holds.let_go();
    }

    pub(crate) fn decide(
        &self,
        service: Service,
        operation: &str,
        caller: &str,
        subject: impl FnOnce() -> String,
    ) -> Faults {
        let mut faults = Faults::default();
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, rules) = &mut *guard;
        if rules.is_empty() {
            return faults;
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
            // Draw even if the rule does not apply, so that `count` and `after` do not shift the
            // sequence.
            let draw = active.random.unit();
            if active.seen <= rule.after || rule.count.is_some_and(|c| active.applied >= c) || draw >= rule.probability
            {
                continue;
            }
            if active.spares(elapsed) {
                continue;
            }
            let rule = &active.rule;
            active.applied += 1;
            faults.plan = self.holds.plan();
            let random = active.random.next();
            faults.salt ^= random;
            faults.list.push(Fault {
                kind: rule.kind,
                time: rule.delay_ms.map(|span| spread(span, random)),
                words: rule.code.clone(),
            });
        }
        faults
    }
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
            return Err("delay_ms must have the smaller number first".to_owned());
        }
        let mut why = None;
        for service in Service::ALL {
            for operation in operation_names(service).into_iter().filter(|name| self.is_for(service, name)) {
                match self.kind.unsuited(service, operation) {
                    None => return Ok(()),
                    reason => why = why.or(reason),
                }
            }
        }
        let named = format!("{}:{}", self.service, self.operation);
        Err(match why {
            None => format!("there is no operation {named}"),
            Some(why) => format!("`{}` cannot apply to {named}: {why}", self.kind.name()),
        })
    }
}

/// A kind, for documents and tests.
#[derive(Debug, Clone, Serialize)]
pub struct KindOfFault {
    /// Its name in a fault file.
    pub name: &'static str,
    /// What happens.
    pub what: &'static str,
    /// Operations for which it has no meaning, as `service:Operation`, with the reason.
    pub unsuited: BTreeMap<String, &'static str>,
}

/// All kinds, with the operations that they do not belong to.
pub fn kinds_of_faults() -> Vec<KindOfFault> {
    let describe = |kind: &Kind| KindOfFault {
        name: kind.name(),
        what: kind.what(),
        unsuited: Service::ALL
            .into_iter()
            .flat_map(|service| operation_names(service).into_iter().map(move |operation| (service, operation)))
            .filter_map(|(service, operation)| {
                Some((format!("{}:{operation}", service.name()), kind.unsuited(service, operation)?))
            })
            .collect(),
    };
    Kind::ALL.iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions(text: &str, n: usize) -> Vec<bool> {
        let faults = FaultRules::new(FaultRules::parse(text).unwrap());
        (0..n)
            .map(|_| {
                faults.decide(Service::Sqs, "SendMessage", "role/a", || "q".to_owned()).failure(Service::Sqs).is_some()
            })
            .collect()
    }

    #[test]
    fn a_quota_spares_its_burst_and_then_its_rate() {
        let plan = FaultRules::parse(
            "[[rule]]\nservice = \"ecs\"\noperation = \"RunTask\"\nkind = \"throttle\"\nquota = { burst = 2, per_second = 1 }\n",
        );
        let rule = plan.unwrap().rule.remove(0);
        let mut active = Active { rule, random: SplitMix(1), seen: 0, applied: 0, spent: 0.0, spent_at: 0 };
        assert_eq!(
            [0, 0, 0, 900, 1_000, 1_001, 9_000, 9_000, 9_000].map(|at| active.spares(at)),
            [true, true, false, false, true, false, true, true, false]
        );
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
        let refused = |rule: &str| FaultRules::parse(&format!("[[rule]]\n{rule}")).unwrap_err();
        assert!(refused("kind = \"erorr\"").contains("unknown variant `erorr`, expected one of `error`"));
        assert_eq!(
            refused("kind = \"error\"\nservice = \"sqs\"\noperation = \"SendMesage\""),
            "rule 1: there is no operation sqs:SendMesage"
        );
        assert_eq!(
            refused("kind = \"partial-batch\"\noperation = \"SendMessage\""),
            "rule 1: `partial-batch` cannot apply to *:SendMessage: only a batch has entries that can fail separately"
        );
        assert!(refused("kind = \"error\"\nprobability = 50").contains("between 0 and 1"));
        assert!(refused("kind = \"delay\"\ndelay_ms = [5, 1]").contains("smaller number first"));
        // One of many is enough.
        assert!(FaultRules::parse("[[rule]]\nkind = \"partial-batch\"").is_ok());
    }

    #[test]
    fn the_document_has_each_kind_in_these_words() {
        let document = include_str!("../../../../docs/reliability.md");
        for kind in Kind::ALL {
            let line = format!("| `{}` | {} |", kind.name(), kind.what());
            assert!(document.contains(&line), "docs/reliability.md: {line}");
        }
        let example = document.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        assert_eq!(FaultRules::parse(example).unwrap().rule.len(), 3);
    }
}
