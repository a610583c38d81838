//! Virtual environments of Python for third-party tools, made by `tests/venv.sh` in the user's
//! cache.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::tree::root;

/// The path of a tool, or the reason why it cannot be installed here.
pub(crate) type Had = Result<PathBuf, String>;

/// A virtual environment with the packages that the file `list` names.
pub(crate) fn environment(list: &str) -> Outcome<Had> {
    let output = Command::new(root().join("tests/venv.sh")).arg(root().join(list)).stdin(Stdio::null()).output()?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(Ok(PathBuf::from(said(&output.stdout)))),
        Some(3) => Ok(Err(said(&output.stderr))),
        _ => Err(format!("tests/venv.sh {list}: {}", said(&output.stderr)).into()),
    }
}
