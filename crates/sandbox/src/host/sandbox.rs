//! Start and stop of the sandbox.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::environment::{self, Environment};
use super::faults::{FaultRules, Plan};
use super::folder::Folder;
use super::settings::Settings;
use super::shared::{Ends, Host, Places, ThirdParty};
use super::targets::Given;
use super::tls::{self, Https};
use super::{effects, launchers, server};

/// How to start a sandbox.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// 0 takes any free port.
    pub port: u16,
    /// State folder; a temporary one if not named.
    pub state: Option<PathBuf>,
    /// Fault file.
    pub faults: Option<PathBuf>,
    /// The number of launcher processes; 0 starts none.
    pub launchers: usize,
    /// The folder of `bootstrap`, `relay-runner` and `relay`; by default that of the sandbox's
    /// program.
    pub bin_dir: Option<PathBuf>,
    /// Further targets.
    pub targets: Given,
    /// Settings.
    pub settings: Settings,
    /// The emulator that serves everything but ECS.
    pub third_party: Option<ThirdParty>,
}

/// A running sandbox.
#[derive(Debug)]
pub struct Sandbox {
    pub(super) host: Arc<Host>,
    pub(super) environment: Environment,
    address: SocketAddr,
    ended: mpsc::Receiver<()>,
    /// Holds a temporary state folder until the end.
    _temporary: Option<Folder>,
}

impl Sandbox {
    /// Binds the port, fills the accounts, starts the launchers and begins to serve.
    ///
    /// # Errors
    ///
    /// If the port is taken, a file or a folder cannot be read, or the launcher is not built.
    pub async fn start(options: Options) -> Result<Self, String> {
        let plan = match &options.faults {
            None => Plan::default(),
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
                FaultRules::parse(&text).map_err(|e| format!("{}: {e}", file.display()))?
            }
        };
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await.map_err(|e| format!("cannot bind: {e}"))?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        let (state_dir, temporary) = state_folder(options.state.as_deref())?;
        let bin_dir = match options.bin_dir {
            Some(dir) => dir.canonicalize().map_err(|e| format!("{}: {e}", dir.display()))?,
            None => std::env::current_exe().ok().and_then(|p| p.parent().map(Path::to_owned)).unwrap_or_default(),
        };
        let https = Https::bind().await?;
        let authority = tls::write(&https.authority, &state_dir)?;
        let (endpoint, secure) = (format!("http://{address}"), https.endpoint.clone());
        let places = Places { state_dir, bin_dir, endpoint, secure, authority };
        let (host, Ends { asked, ended }) = Host::new(options.settings, places, options.third_party, plan);
        let host = Arc::new(host);
        tokio::spawn(effects::serve(Arc::clone(&host), asked));
        let (environment, facts) = environment::prepare(&host, &options.targets)?;
        tokio::spawn(server::serve(Arc::clone(&host), listener, None));
        tokio::spawn(https.serve(Arc::clone(&host)));
        if options.launchers > 0 && host.third_party.is_none() {
            launchers::start(&host, options.launchers, &facts).await?;
        }
        if !host.settings.schedule.is_zero() {
            tokio::spawn(environment::schedule(Arc::clone(&host)));
        }
        Ok(Self { host, environment, address, ended, _temporary: temporary })
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The environment for a command, as pairs.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment.pairs
    }

    /// Notes for the user about the targets, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.environment.notes.sentences
    }

    /// Ends all child processes, and waits up to six seconds for them.
    pub async fn stop(mut self) {
        self.host.shut_down();
        let _ = tokio::time::timeout(Duration::from_secs(6), self.ended.recv()).await;
    }
}

fn state_folder(named: Option<&Path>) -> Result<(PathBuf, Option<Folder>), String> {
    match named {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            Ok((dir.canonicalize().map_err(|e| e.to_string())?, None))
        }
        None => {
            let dir = Folder::new("relay-sandbox-").map_err(|e| e.to_string())?;
            Ok((dir.path().to_owned(), Some(dir)))
        }
    }
}
