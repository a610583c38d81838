//! What all parts of the host share.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::sync::{OnceCell, mpsc, watch};

use super::faults::{FaultRules, Plan};
use super::log::Log;
use super::processes::{Launchers, Tasks};
use super::settings::Settings;
use crate::services::lambda::Lambda;
use crate::services::principal::Principal;
use crate::services::{Effect, REGION, Services, TARGET_ACCOUNT, lock};

/// The running sandbox.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) settings: Settings,
    pub(super) places: Places,
    /// Where everything but ECS is, if a third-party emulator serves it.
    pub(super) third_party: Option<ThirdParty>,
    pub(super) log: Log,
    pub(super) faults: FaultRules,
    pub(super) services: Services,
    pub(super) launchers: Launchers,
    pub(super) tasks: Tasks,
    /// Whether the function `jwks` has run.
    pub(super) keys_fetched: OnceCell<()>,
    /// The key of the function `ledger`.
    pub(super) ledger_key: OnceLock<String>,
    /// What the services ask for; `effects` carries it out.
    effects: mpsc::UnboundedSender<Effect>,
    shutdown: watch::Sender<bool>,
    alive: Mutex<Option<mpsc::Sender<()>>>,
}

/// A third-party emulator. With it, the sandbox serves only ECS.
#[derive(Debug, Clone)]
pub struct ThirdParty {
    /// Its address.
    pub endpoint: String,
    /// The credentials that tasks are given: one file, or a folder with a file for each role.
    pub credentials: PathBuf,
}

/// Where things are.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Logs, and the work of the tasks.
    pub(super) state_dir: PathBuf,
    /// The folder of `bootstrap`, `relay-runner`, `relay` and `relay-admin`.
    pub(super) bin_dir: PathBuf,
    /// `http://127.0.0.1:PORT`
    pub(super) endpoint: String,
    /// `https://localhost:PORT`, with a certificate of the sandbox's own authority.
    pub(super) secure: String,
    /// The file of that authority's certificate.
    pub(super) authority: PathBuf,
}

/// The other ends of the host's channels.
#[derive(Debug)]
pub(super) struct Ends {
    /// What the services ask for.
    pub(super) asked: mpsc::UnboundedReceiver<Effect>,
    /// Closes when no child process is left.
    pub(super) ended: mpsc::Receiver<()>,
}

impl Host {
    /// A host with empty services.
    pub(super) fn new(settings: Settings, places: Places, third_party: Option<ThirdParty>, plan: Plan) -> (Self, Ends) {
        let (alive, ended) = mpsc::channel(1);
        let (effects, asked) = mpsc::unbounded_channel();
        let services = Services::new(settings.rules, &places.secure);
        lock(&services.sts).any_key = third_party.is_some();
        let host = Self {
            log: Log::new(settings.log_limit),
            settings,
            places,
            third_party,
            faults: FaultRules::new(plan),
            services,
            launchers: Launchers::default(),
            tasks: Tasks::default(),
            keys_fetched: OnceCell::new(),
            ledger_key: OnceLock::new(),
            effects,
            shutdown: watch::Sender::new(false),
            alive: Mutex::new(Some(alive)),
        };
        (host, Ends { asked, ended })
    }

    /// The endpoint of everything but ECS.
    pub(super) fn aws(&self) -> &str {
        self.third_party.as_ref().map_or(&self.places.endpoint, |other| &other.endpoint)
    }

    /// The relay bucket.
    pub(super) fn bucket(&self) -> String {
        self.settings.bucket.clone().unwrap_or_else(|| format!("relay-{TARGET_ACCOUNT}-{REGION}"))
    }

    /// The evidence bucket.
    pub(super) fn evidence(&self) -> String {
        self.settings.evidence.clone().unwrap_or_else(|| format!("relay-evidence-{TARGET_ACCOUNT}-{REGION}"))
    }

    /// Queues the effects that a service requested. After the sandbox has stopped, they are
    /// ignored.
    pub(super) fn ask(&self, effects: Vec<Effect>) {
        for effect in effects {
            let _ = self.effects.send(effect);
        }
    }

    /// Changes the function's state, and queues the resulting effects.
    pub(super) fn with_lambda<T>(&self, change: impl FnOnce(&mut Lambda, &mut Vec<Effect>) -> T) -> T {
        let mut effects = Vec::new();
        let result = change(&mut lock(&self.services.lambda), &mut effects);
        self.ask(effects);
        result
    }

    /// Each task that watches a child process holds a clone. The sandbox ends when all are dropped.
    pub(super) fn alive(&self) -> Option<mpsc::Sender<()>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kills the launcher or the task that `caller` identifies. Other callers are not the host's
    /// processes.
    pub(super) fn kill_caller(&self, caller: &Principal) {
        match caller.slot {
            Some(slot) => self.launchers.kill(slot),
            None => self.tasks.kill(&caller.session),
        }
    }

    pub(super) async fn shutting_down(&self) {
        // The sender lives as long as `self`.
        let _ = self.shutdown.subscribe().wait_for(|down| *down).await;
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        *self.shutdown.borrow()
    }

    pub(super) fn shut_down(&self) {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shutdown.send_replace(true);
    }
}
