//! `relay-runner install DIRECTORY` copies this binary into a volume that the tool's container
//! mounts, so that an unmodified image of a tool can have the runner as its entry point. The CA
//! certificates are copied too: the tool's image may have none, or ones that should not be trusted.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The CA certificates in the runner's own image, which authenticate AWS's servers.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The name of the CA certificates beside an installed runner.
const INSTALLED: &str = "ca-certificates.crt";

/// Copies each file and then renames it, so that the other container never sees half a binary. The
/// runner is placed last: where it is present, the certificates are too.
pub(crate) fn install(directory: &str) -> io::Result<()> {
    let directory = Path::new(directory);
    if Path::new(CERTIFICATES).is_file() {
        place(Path::new(CERTIFICATES), directory, INSTALLED, 0o644)?;
    }
    place(&std::env::current_exe()?, directory, "relay-runner", 0o755)
}

fn place(from: &Path, directory: &Path, name: &str, mode: u32) -> io::Result<()> {
    let half = directory.join(format!(".{name}.new"));
    fs::copy(from, &half)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(mode))?;
    fs::rename(half, directory.join(name))
}

/// The CA certificates installed beside this runner. `None` if it was not installed; the
/// certificates of its own image then apply.
pub(crate) fn authorities() -> Option<Vec<u8>> {
    let beside = std::env::current_exe().ok()?.with_file_name(INSTALLED);
    fs::read(beside).ok().filter(|pem| pem.starts_with(b"-----BEGIN CERTIFICATE-----"))
}
