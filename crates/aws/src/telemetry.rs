//! Logs: structured JSON for the launcher and the runner, plain lines for people.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Sets up JSON lines on stderr at `info`, without payloads: nothing in relay logs one. The SDK and hyper keep quiet, whatever the environment
/// says; at TRACE they would print requests whole.
pub fn json() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy("info,aws=warn,hyper=warn,lambda_runtime=warn");
    // A second set-up in one process (tests) is no error.
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}

/// Sets up plain lines on stderr, only for who asks with `RELAY_LOG=debug`.
pub fn plain() {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::OFF.into()).with_env_var("RELAY_LOG").from_env_lossy();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
