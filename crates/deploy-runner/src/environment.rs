//! Removes every environment variable that the runner must not read (clause RUN-3). A RunTask
//! override can set any variable, such as a proxy, an endpoint or a file of trusted certificates.
//! Libraries read these even if the runner does not, so the runner re-executes itself without them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use relay_protocol::outcome;

/// The variables that the runner may read: one whose content is pinned, one that names a signed
/// request, and those with the container's credentials and metadata.
const ALLOWED: &[&str] = &[
    "RELAY_CONFIGURATION",
    "RELAY_REQUEST",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "ECS_CONTAINER_METADATA_URI_V4",
];

/// Re-executes this program with a clean environment and the same `arguments`. Returns `Ok` only if
/// the environment was clean already.
///
/// # Errors
///
/// Returns the exit code for the process if the program cannot be re-executed.
pub fn cleanse(arguments: &[String]) -> Result<(), ExitCode> {
    let Some(kept) = kept(std::env::vars_os()) else { return Ok(()) };
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let error = Command::new(program).args(arguments).env_clear().envs(kept).exec();
    relay_console::telemetry::json();
    tracing::error!(%error, "the runner cannot restart itself with a clean environment");
    Err(outcome::ExitCode::Fault.code().into())
}

/// Blocks two attacks by the tool on the runner. A set-user-id program in the tool's image gains no
/// privileges, and a tool that runs as the runner's own user cannot read the runner's memory or
/// environment. Call this before the process has a second thread.
pub(crate) fn harden() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// The variables to keep, or `None` if there is nothing to drop.
fn kept(variables: impl Iterator<Item = (OsString, OsString)>) -> Option<Vec<(OsString, OsString)>> {
    let allowed = |name: &OsStr| name.to_str().is_some_and(|name| ALLOWED.contains(&name));
    let (kept, others): (Vec<_>, Vec<_>) = variables.partition(|(name, _)| allowed(name));
    if others.is_empty() { None } else { Some(kept) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn names(given: &[&str]) -> Option<Vec<String>> {
        let variables = given.iter().map(|name| (OsString::from(name), OsString::from("x")));
        kept(variables).map(|kept| kept.into_iter().map(|(name, _)| name.into_string().unwrap()).collect())
    }

    // clause: RUN-3
    #[test]
    fn whatever_an_override_could_set_is_dropped() {
        assert_eq!(names(&["RELAY_CONFIGURATION", "RELAY_REQUEST"]), None);
        let odd = [
            "RELAY_REQUEST",
            "AWS_ENDPOINT_URL",
            "AWS_REGION",
            "HTTPS_PROXY",
            "SSL_CERT_FILE",
            "RELAY_REQUEST2",
            "AWS_ACCESS_KEY_ID",
        ];
        assert_eq!(names(&odd), Some(vec!["RELAY_REQUEST".to_owned()]));
    }
}
