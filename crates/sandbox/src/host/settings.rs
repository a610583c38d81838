//! The settings of `--option key=value`: behaviour that AWS does not document, times, and values
//! for the built-in targets.

use std::path::PathBuf;
use std::time::Duration;

use crate::services::Rules;

/// Settings. The defaults are fast and lenient; a test asks for harsher behaviour.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the services need to know.
    pub(crate) rules: Rules,
    /// Whether the launcher calls AWS over HTTPS.
    pub launcher_https: bool,
    /// The interval between the launcher's scheduled events; zero disables them.
    pub schedule: Duration,
    /// How long a task stays in PROVISIONING.
    pub provisioning: Duration,
    /// How long a task stays in PENDING.
    pub pending: Duration,
    /// The maximum number of entries in the log.
    pub log_limit: usize,
    /// The AWS command line, for `demo/cloudformation`; searched on PATH if not set.
    pub aws: Option<PathBuf>,
    /// The endpoint of `demo/cloudformation`; the next two fields are its credentials.
    pub cloudformation_endpoint: Option<String>,
    /// See `cloudformation_endpoint`.
    pub cloudformation_access_key: String,
    /// See `cloudformation_endpoint`.
    pub cloudformation_secret_key: String,
    /// The topic that targets use instead of the sandbox's own; for a third-party emulator.
    pub topic: Option<String>,
    /// See `topic`.
    pub bucket: Option<String>,
    /// See `topic`.
    pub evidence: Option<String>,
    /// See `topic`.
    pub target_key: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            rules: Rules {
                queue_deleted_recently: ms(0),
                failures_use_up_token: false,
                task_events: true,
                lambda_retry: [ms(100), ms(200)],
                function_timeout: ms(60_000),
                credentials: ms(3_600_000),
            },
            launcher_https: false,
            schedule: ms(0),
            provisioning: ms(3),
            pending: ms(3),
            log_limit: 500_000,
            aws: None,
            cloudformation_endpoint: None,
            cloudformation_access_key: "test".to_owned(),
            cloudformation_secret_key: "test".to_owned(),
            topic: None,
            bucket: None,
            evidence: None,
            target_key: None,
        }
    }
}

impl Settings {
    /// Applies one `key=value`.
    ///
    /// # Errors
    ///
    /// If there is no such setting, or the value is not one of its kind.
    pub fn set(&mut self, option: &str) -> Result<(), String> {
        let (key, value) = option.split_once('=').ok_or_else(|| format!("option `{option}` is not key=value"))?;
        let ms = || {
            value
                .parse()
                .map(Duration::from_millis)
                .map_err(|_| format!("option `{key}` must be a number of milliseconds"))
        };
        let flag = || match value {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(format!("option `{key}` must be true or false")),
        };
        match key {
            "queue_deleted_recently_ms" => self.rules.queue_deleted_recently = ms()?,
            "failures_use_up_token" => self.rules.failures_use_up_token = flag()?,
            "task_events" => self.rules.task_events = flag()?,
            "launcher_https" => self.launcher_https = flag()?,
            "schedule_ms" => self.schedule = ms()?,
            "provisioning_ms" => self.provisioning = ms()?,
            "pending_ms" => self.pending = ms()?,
            "lambda_retry_1_ms" => self.rules.lambda_retry[0] = ms()?,
            "lambda_retry_2_ms" => self.rules.lambda_retry[1] = ms()?,
            "function_timeout_ms" => self.rules.function_timeout = ms()?,
            "credentials_ms" => self.rules.credentials = ms()?,
            "log_limit" => {
                self.log_limit = value.parse().map_err(|_| "option `log_limit` must be a number".to_owned())?
            }
            "aws" => self.aws = Some(PathBuf::from(value)),
            "cloudformation_endpoint" => self.cloudformation_endpoint = Some(value.to_owned()),
            "cloudformation_access_key" => value.clone_into(&mut self.cloudformation_access_key),
            "cloudformation_secret_key" => value.clone_into(&mut self.cloudformation_secret_key),
            "topic" => self.topic = Some(value.to_owned()),
            "bucket" => self.bucket = Some(value.to_owned()),
            "evidence" => self.evidence = Some(value.to_owned()),
            "target_key" => self.target_key = Some(value.to_owned()),
            _ => return Err(format!("unknown option `{key}`")),
        }
        Ok(())
    }
}
