//! What every part of the launcher shares: settings, AWS clients, and the configurations that it
//! has read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use relay_aws::events::Events;
use relay_aws::keys::Keys;
use relay_aws::objects::Objects;
use relay_aws::queues::Queues;
use relay_aws::tasks::{Definition, Tasks};
use relay_aws::{AwsError, Sdk};
use relay_policy::{Configuration, Pin};
use relay_protocol::limits::START_DELAY_MAX;
use relay_protocol::{TargetName, Timestamp};

use crate::answer::Answers;
use crate::settings::Settings;

/// The variable of the task definition that holds the configuration.
const CONFIGURATION: &str = "RELAY_CONFIGURATION";

/// How long the newest revision of a target is taken for the newest (clause LAU-2).
const REVISION_LIFETIME: Duration = Duration::from_secs(5);

/// How many targets' revisions are remembered. Strangers can name any number.
const REVISIONS_MAX: usize = 1_000;

/// How many unverified messages one container answers in a second (clause LAU-5), and for how many
/// it asks ECS again.
const UNVERIFIED_MAX: u32 = 5;

/// The launcher: its settings, its AWS clients, and a cache of configurations.
#[derive(Debug)]
pub(crate) struct Launcher {
    pub(crate) settings: Settings,
    pub(crate) tasks: Tasks,
    pub(crate) objects: Objects,
    pub(crate) queues: Queues,
    pub(crate) answers: Answers,
    /// For those who watch deployments.
    pub(crate) events: Events,
    /// For the public halves of target keys.
    pub(crate) keys: Keys,
    /// Configurations by the ARN of their revision, which never changes.
    configurations: Mutex<HashMap<String, Arc<Configuration>>>,
    /// The newest revision of a target, or that there is none, and when ECS said so.
    revisions: Mutex<HashMap<TargetName, (Instant, Option<Definition>)>>,
    /// How often unverified messages were answered.
    pub(crate) unverified: Rate,
    /// How often ECS was asked again because of one.
    doubts: Rate,
}

/// How often something was done in the last second.
#[derive(Debug, Default)]
pub(crate) struct Rate(Mutex<Option<(Instant, u32)>>);

impl Rate {
    /// Whether it may be done once more now.
    pub(crate) fn may(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (second, count) = match *last {
            Some((second, count)) if now.duration_since(second) < Duration::from_secs(1) => (second, count),
            _ => (now, 0),
        };
        let may = count < UNVERIFIED_MAX;
        *last = Some((second, if may { count + 1 } else { count }));
        may
    }
}

/// A target whose configuration is verified, ready for a decision.
pub(crate) struct Target {
    pub(crate) definition: Definition,
    pub(crate) configuration: Arc<Configuration>,
}

impl Launcher {
    /// Creates the AWS clients from the environment, in the region of the topic.
    pub(crate) fn new(settings: Settings) -> Self {
        let sdk = Sdk::of_function(settings.topic.region());
        Self {
            tasks: Tasks::new(&sdk),
            objects: Objects::new(&sdk),
            queues: Queues::new(&sdk),
            answers: Answers::new(&sdk, &settings.answer_key),
            events: Events::new(&sdk),
            keys: Keys::new(&sdk),
            configurations: Mutex::new(HashMap::new()),
            revisions: Mutex::new(HashMap::new()),
            unverified: Rate::default(),
            doubts: Rate::default(),
            settings,
        }
    }

    /// The newest active revision of a target's task definition. ECS is asked at most once in
    /// [`REVISION_LIFETIME`], so that a flood of messages does not use up the account's calls.
    pub(crate) async fn definition(&self, target: &TargetName) -> Result<Option<Definition>, AwsError> {
        let known = self.revisions.lock().unwrap_or_else(PoisonError::into_inner).get(target).cloned();
        if let Some((at, definition)) = known
            && at.elapsed() < REVISION_LIFETIME
        {
            return Ok(definition);
        }
        let definition = self.tasks.definition(&target.family()).await?;
        let mut revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        if revisions.len() >= REVISIONS_MAX {
            revisions.clear();
        }
        revisions.insert(target.clone(), (Instant::now(), definition.clone()));
        Ok(definition)
    }

    /// Forgets a revision that ECS named before `since`, so that ECS is asked again. Returns
    /// whether it did: not more often than [`UNVERIFIED_MAX`] times in a second.
    pub(crate) fn forget_revision(&self, target: &TargetName, since: Instant) -> bool {
        let mut revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = revisions.get(target).is_some_and(|(at, _)| *at < since);
        is_old && self.doubts.may(Instant::now()) && revisions.remove(target).is_some()
    }

    /// The configuration that a revision pins (clause LAU-2).
    pub(crate) fn configuration(&self, definition: &Definition) -> Result<Arc<Configuration>, String> {
        let known = self.configurations.lock().unwrap_or_else(PoisonError::into_inner).get(&definition.arn).cloned();
        if let Some(configuration) = known {
            return Ok(configuration);
        }
        let arn = &definition.arn;
        let text = definition.environment.get(CONFIGURATION).ok_or_else(|| format!("{arn} has no {CONFIGURATION}"))?;
        let pin = Pin::parse(definition.entry_point.get(1..).unwrap_or_default()).ok().filter(|pin| pin.fits(text));
        let pin = pin.ok_or_else(|| format!("the entry point of {arn} does not pin its configuration"))?;
        let configuration =
            Configuration::parse(text).map_err(|error| format!("cannot read the configuration of {arn}: {error}"))?;
        if configuration.target != pin.target || configuration.topic != self.settings.topic {
            return Err(format!("the configuration of {arn} is for another target or topic"));
        }
        if configuration.evidence != self.settings.evidence {
            return Err(format!("the configuration of {arn} names another evidence bucket"));
        }
        let configuration = Arc::new(configuration);
        let mut known = self.configurations.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(arn.clone(), Arc::clone(&configuration));
        Ok(configuration)
    }
}

/// The latest end of a deployment that is admitted now: a slow start, its timeout and its grace.
pub(crate) fn deadline(configuration: &Configuration, now: Timestamp) -> Timestamp {
    now.plus(START_DELAY_MAX).plus(configuration.longest_run())
}

#[cfg(test)]
mod tests {
    use super::*;

    // clause: LAU-5
    #[test]
    fn a_rate_holds_for_each_second() {
        let (rate, now) = (Rate::default(), Instant::now());
        let allowed = (0..20).filter(|at| rate.may(now + Duration::from_millis(at * 10))).count();
        assert_eq!(allowed, UNVERIFIED_MAX as usize);
        assert!(rate.may(now + Duration::from_secs(1)));
    }
}
