//! What can be set with `--option key=value`: the places where AWS is not documented, times, and what the built-in targets need.

use std::path::PathBuf;
use std::time::Duration;

/// Settings with their defaults. The defaults are quick and kind; a test asks for the unkind.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A name cannot be used again for this long after DeleteQueue (AWS: 60 s).
    pub queue_deleted_recently: Duration,
    /// Does a RunTask with `failures` use up its client token? AWS does not say.
    pub failures_use_up_token: bool,
    /// Send "ECS Task State Change" events to the launcher.
    pub task_events: bool,
    /// Send a scheduled event to the launcher each such period; zero is never.
    pub schedule: Duration,
    /// Time a task spends in PROVISIONING and in PENDING.
    pub provisioning: Duration,
    /// See `provisioning`.
    pub pending: Duration,
    /// Delays before the second and the third try of an asynchronous invocation.
    pub lambda_retry: [Duration; 2],
    /// The function's time-out.
    pub function_timeout: Duration,
    /// Life of credentials that the sandbox mints.
    pub credentials: Duration,
    /// Most entries that the log keeps.
    pub log_limit: usize,
    /// The AWS command line, for `demo/cloudformation`; searched on PATH if not set.
    pub aws: Option<PathBuf>,
    /// Endpoint for `demo/cloudformation`, with its credentials.
    pub cloudformation_endpoint: Option<String>,
    /// See `cloudformation_endpoint`.
    pub cloudformation_access_key: String,
    /// See `cloudformation_endpoint`.
    pub cloudformation_secret_key: String,
    /// Overrides for the configuration of targets, for use with a third-party emulator.
    pub topic: Option<String>,
    /// See `topic`.
    pub bucket: Option<String>,
    /// See `topic`.
    pub target_key: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            queue_deleted_recently: ms(0),
            failures_use_up_token: false,
            task_events: true,
            schedule: ms(0),
            provisioning: ms(3),
            pending: ms(3),
            lambda_retry: [ms(100), ms(200)],
            function_timeout: ms(60_000),
            credentials: ms(3_600_000),
            log_limit: 500_000,
            aws: None,
            cloudformation_endpoint: None,
            cloudformation_access_key: "test".to_owned(),
            cloudformation_secret_key: "test".to_owned(),
            topic: None,
            bucket: None,
            target_key: None,
        }
    }
}

impl Settings {
    /// Applies one `key=value`; the error names what was wrong.
    pub fn set(&mut self, option: &str) -> Result<(), String> {
        let (key, value) = option.split_once('=').ok_or_else(|| format!("option `{option}` is not key=value"))?;
        let ms = || value.parse().map(Duration::from_millis).map_err(|_| format!("option `{key}` wants milliseconds"));
        let flag = || match value {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(format!("option `{key}` wants true or false")),
        };
        match key {
            "queue_deleted_recently_ms" => self.queue_deleted_recently = ms()?,
            "failures_use_up_token" => self.failures_use_up_token = flag()?,
            "task_events" => self.task_events = flag()?,
            "schedule_ms" => self.schedule = ms()?,
            "provisioning_ms" => self.provisioning = ms()?,
            "pending_ms" => self.pending = ms()?,
            "lambda_retry_1_ms" => self.lambda_retry[0] = ms()?,
            "lambda_retry_2_ms" => self.lambda_retry[1] = ms()?,
            "function_timeout_ms" => self.function_timeout = ms()?,
            "credentials_ms" => self.credentials = ms()?,
            "log_limit" => {
                self.log_limit = value.parse().map_err(|_| "option `log_limit` wants a number".to_owned())?
            }
            "aws" => self.aws = Some(PathBuf::from(value)),
            "cloudformation_endpoint" => self.cloudformation_endpoint = Some(value.to_owned()),
            "cloudformation_access_key" => value.clone_into(&mut self.cloudformation_access_key),
            "cloudformation_secret_key" => value.clone_into(&mut self.cloudformation_secret_key),
            "topic" => self.topic = Some(value.to_owned()),
            "bucket" => self.bucket = Some(value.to_owned()),
            "target_key" => self.target_key = Some(value.to_owned()),
            _ => return Err(format!("unknown option `{key}`")),
        }
        Ok(())
    }
}
