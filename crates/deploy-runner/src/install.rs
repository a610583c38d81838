//! `relay-runner install DIRECTORY`: copies this binary into a volume that the tool's container mounts, so that an unmodified image of a tool
//! has the runner as its entry point.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Copies, then renames, so that the other container never sees half a binary.
pub(crate) fn install(directory: &str) -> io::Result<()> {
    let directory = Path::new(directory);
    let own = std::env::current_exe()?;
    let half = directory.join(".relay-runner.new");
    fs::copy(own, &half)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o755))?;
    fs::rename(half, directory.join("relay-runner"))
}
