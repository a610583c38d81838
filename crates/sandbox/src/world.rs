//! Everything that the sandbox holds, in one place that all operations are given; each service's state is its own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::dispatch::{Answer, Call, Handler};
use crate::ecs::{self, Ecs};
use crate::error::{AwsError, Outcome};
use crate::faults::{Faults, Plan};
use crate::iam::{Iam, Principal};
use crate::kms::Kms;
use crate::lambda::Lambda;
use crate::launcher::Launchers;
use crate::log::Log;
use crate::s3::S3;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::sns::Sns;
use crate::sqs::Sqs;

/// The account that CI is in.
pub const CI_ACCOUNT: &str = "111111111111";
/// The account that is deployed to.
pub const TARGET_ACCOUNT: &str = "222222222222";
/// The one region.
pub const REGION: &str = "eu-west-1";

/// What a container gets its credentials from.
pub(crate) const CREDENTIALS: &[(&str, Handler)] = &[("Get", Handler::Now(credentials))];

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) state_dir: PathBuf,
    pub(crate) bin_dir: PathBuf,
    /// `http://127.0.0.1:PORT`
    pub(crate) endpoint: String,
    /// Only ECS is served here, all else by a third-party emulator; a file, or a folder of files, has the credentials for tasks.
    pub(crate) third_party: Option<String>,
    pub(crate) task_credentials: Option<PathBuf>,
    pub(crate) log: Log,
    pub(crate) faults: Faults,
    pub(crate) iam: Iam,
    pub(crate) ecs: Ecs,
    pub(crate) kms: Kms,
    pub(crate) lambda: Lambda,
    pub(crate) launchers: Launchers,
    pub(crate) s3: S3,
    pub(crate) secrets: Secrets,
    pub(crate) sns: Sns,
    pub(crate) sqs: Sqs,
    shutdown: watch::Sender<bool>,
    alive: Mutex<Option<mpsc::Sender<()>>>,
}

impl World {
    /// An empty world, and the receiver that ends when no child is left.
    pub(crate) fn new(settings: Settings, endpoint: String, faults: Plan) -> (Self, mpsc::Receiver<()>) {
        let (alive, ended) = mpsc::channel(1);
        let world = Self {
            log: Log::new(settings.log_limit),
            settings,
            state_dir: PathBuf::new(),
            bin_dir: PathBuf::new(),
            endpoint,
            third_party: None,
            task_credentials: None,
            faults: Faults::new(faults),
            iam: Iam::default(),
            ecs: Ecs::default(),
            kms: Kms::default(),
            lambda: Lambda::default(),
            launchers: Launchers::default(),
            s3: S3::default(),
            secrets: Secrets::default(),
            sns: Sns::default(),
            sqs: Sqs::default(),
            shutdown: watch::Sender::new(false),
            alive: Mutex::new(Some(alive)),
        };
        (world, ended)
    }

    /// To be held by whoever watches over a child: the sandbox ends when all are dropped.
    pub(crate) fn alive(&self) -> Option<mpsc::Sender<()>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kills the launcher or the task whose session it is; nobody else's process is known here.
    pub(crate) fn kill_caller(&self, caller: &Principal) {
        match caller.slot {
            Some(slot) => self.launchers.kill(slot),
            None => ecs::kill(self, &caller.session),
        }
    }

    pub(crate) async fn shutting_down(&self) {
        // The sender lives as long as `self`.
        let _ = self.shutdown.subscribe().wait_for(|down| *down).await;
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        *self.shutdown.borrow()
    }

    pub(crate) fn shut_down(&self) {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shutdown.send_replace(true);
    }
}

fn credentials(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let (role, principal) = ecs::credentials(world, call.text("task").unwrap_or_default())?;
    if let Some(named) = &world.task_credentials {
        // A folder has a file for each role, by its name: a runner refuses to be anybody else.
        let file = if named.is_dir() { named.join(format!("{}.json", principal.role_name())) } else { named.clone() };
        let failed = |error: String| AwsError::new(500, "InternalFailure", format!("{}: {error}", file.display()));
        let text = std::fs::read(&file).map_err(|e| failed(e.to_string()))?;
        let value: Value = serde_json::from_slice(&text).map_err(|e| failed(e.to_string()))?;
        return Ok(Answer::Json(value));
    }
    call.note("role", role.as_str());
    let minted = world.iam.mint(principal, world.settings.credentials);
    Ok(Answer::Json(json!({
        "RoleArn": role, "AccessKeyId": minted.access_key, "SecretAccessKey": minted.secret_key,
        "Token": minted.token, "Expiration": minted.expiration(),
    })))
}
