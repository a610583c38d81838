//! `relay-runner install DIRECTORY`: copies this binary into a volume that the tool's container mounts, so that an unmodified image of a tool
//! has the runner as its entry point. The certificates go with it: the tool's image may have none, or others than one would trust.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Where the runner's own image has the certificates of those whom it trusts to name AWS's servers.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What they are called beside an installed runner.
const INSTALLED: &str = "ca-certificates.crt";

/// Copies, then renames, so that the other container never sees half a binary. The runner comes last: where it is, the certificates are.
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

/// The certificates that were installed beside this runner; `None` where it was not installed, and the image's own serve.
pub(crate) fn authorities() -> Option<Vec<u8>> {
    let beside = std::env::current_exe().ok()?.with_file_name(INSTALLED);
    fs::read(beside).ok().filter(|pem| pem.starts_with(b"-----BEGIN CERTIFICATE-----"))
}
