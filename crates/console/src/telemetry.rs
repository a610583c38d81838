//! Logs: structured JSON for the launcher and the runner, plain lines for people.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::outlet::Outlet;

/// Sets up JSON lines on stderr at `info`, without payloads: nothing in relay logs one.
pub fn json() {
    json_to(std::io::stderr);
}

/// The same, by an outlet that never blocks.
pub fn json_by(outlet: &Outlet) {
    let outlet = outlet.clone();
    json_to(move || outlet.clone());
}

/// The SDK and hyper keep quiet, whatever the environment says; at TRACE they would print requests whole.
fn json_to<W: std::io::Write + 'static>(writer: impl Fn() -> W + Send + Sync + 'static) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy("info,aws=warn,hyper=warn,lambda_runtime=warn");
    // A second set-up in one process (tests) is no error.
    let _ = tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(writer).try_init();
}

/// Sets up plain lines on stderr, only for who asks with `RELAY_LOG=debug`.
pub fn plain() {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::OFF.into()).with_env_var("RELAY_LOG").from_env_lossy();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
