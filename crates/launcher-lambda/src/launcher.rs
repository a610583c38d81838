//! What every part of the launcher shares: settings, AWS clients, and the configurations that it
//! has read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use relay_aws::Sdk;
use relay_aws::keys::Keys;
use relay_aws::objects::Objects;
use relay_aws::queues::Queues;
use relay_aws::tasks::{Definition, Tasks};
use relay_policy::{Configuration, Pin};
use relay_protocol::Timestamp;
use relay_protocol::limits::START_DELAY_MAX;

use crate::answer::Answers;
use crate::settings::Settings;

/// The variable of the task definition that holds the configuration.
const CONFIGURATION: &str = "RELAY_CONFIGURATION";

/// The launcher: its settings, its AWS clients, and a cache of configurations.
#[derive(Debug)]
pub(crate) struct Launcher {
    pub(crate) settings: Settings,
    pub(crate) tasks: Tasks,
    pub(crate) objects: Objects,
    pub(crate) queues: Queues,
    pub(crate) answers: Answers,
    /// For the public halves of target keys.
    pub(crate) keys: Keys,
    /// Configurations by the ARN of their revision, which never changes.
    configurations: Mutex<HashMap<String, Arc<Configuration>>>,
}

/// A target whose configuration is verified, ready for a decision.
pub(crate) struct Target {
    pub(crate) definition: Definition,
    pub(crate) configuration: Arc<Configuration>,
}

impl Launcher {
    /// Creates the AWS clients from the environment, in the region of the topic.
    pub(crate) async fn new(settings: Settings) -> Self {
        let sdk = Sdk::from_environment(Some(settings.topic.region())).await;
        Self {
            tasks: Tasks::new(&sdk),
            objects: Objects::new(&sdk),
            queues: Queues::new(&sdk),
            answers: Answers::new(&sdk, &settings.answer_key),
            keys: Keys::new(&sdk),
            configurations: Mutex::new(HashMap::new()),
            settings,
        }
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
