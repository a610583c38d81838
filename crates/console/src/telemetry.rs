//! Logs: structured JSON for the launcher and the runner, plain lines for people.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::outlet::{Blocking, Outlet, To};

/// Sets up JSON log lines on stderr at level `info`. They contain no payloads, because relay logs
/// none.
pub fn json() {
    json_to(|| Blocking(To::Stderr));
}

/// Does the same as [`json`], but through an outlet that never blocks.
pub fn json_by(outlet: &Outlet) {
    let outlet = outlet.clone();
    json_to(move || outlet.clone());
}

/// Keeps the SDK and hyper quiet, whatever the environment says. At TRACE they would print whole
/// requests.
fn json_to<W: std::io::Write + 'static>(writer: impl Fn() -> W + Send + Sync + 'static) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy("info,aws=warn,hyper=warn,lambda_runtime=warn");
    // `target` is relay's target. The module that speaks would have the same name, and a line with
    // one name twice is no JSON to a strict reader.
    let format = tracing_subscriber::fmt().json().flatten_event(true).with_target(false);
    // A second set-up in one process, as in tests, is not an error.
    let _ = format.with_env_filter(filter).with_writer(writer).try_init();
}

/// Sets up plain log lines on stderr. They are off unless `RELAY_LOG` asks for them, as
/// `RELAY_LOG=debug` does.
pub fn plain() {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::OFF.into()).with_env_var("RELAY_LOG").from_env_lossy();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Blocking(To::Stderr)).try_init();
}
