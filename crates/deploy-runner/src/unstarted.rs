//! Why a program could not be started, in words that say what to change. The system's own word for
//! a missing interpreter is "No such file or directory", although the program is there.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Explains `error`, with which the start of `program` in `directory` failed. `path` is the
/// variable `PATH` of the step, and `user` is the user id that it would have had.
pub(crate) fn why(program: &str, path: &str, directory: &Path, user: Option<u32>, error: &io::Error) -> String {
    let Some(found) = candidates(program, path, directory).into_iter().find(|file| is_there(file)) else {
        let place = if program.contains('/') { "in the image".to_owned() } else { format!("on its PATH, {path}") };
        return format!("it is not {place}");
    };
    let shown = found.display();
    let who = user.map_or_else(|| "the runner's user".to_owned(), |user| format!("user {user}"));
    if let Some(closed) = found.ancestors().skip(1).find(|folder| !may_enter(folder, user)) {
        return format!("{who} may not enter {}, in which {shown} lies: install it elsewhere", closed.display());
    }
    let Ok(metadata) = found.metadata() else { return format!("{shown} cannot be read: {error}") };
    if metadata.is_dir() {
        return format!("{shown} is a folder");
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return format!("{shown} is not executable: set its mode, for example with chmod +x");
    }
    match interpreter(&found) {
        Some(line) if line.ends_with(b"\r") => {
            format!("the first line of {shown} ends with CR LF: save the file with LF line ends")
        }
        Some(line) => {
            let name = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty()).unwrap_or_default();
            let file = Path::new(OsStr::from_bytes(name));
            if file.exists() {
                format!("{shown}: {error}")
            } else {
                format!("{shown} names the interpreter {}, which is not in the image", file.display())
            }
        }
        None if error.kind() == io::ErrorKind::NotFound => {
            format!("{shown} needs a dynamic linker that is not in the image: link it statically, or add its libraries")
        }
        None => format!("{shown}: {error}"),
    }
}

/// The files that the system would try, in its order.
fn candidates(program: &str, path: &str, directory: &Path) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![directory.join(program)];
    }
    path.split(':').map(|folder| directory.join(folder).join(program)).collect()
}

/// Whether there is such a file, as far as this process can see.
fn is_there(file: &Path) -> bool {
    file.symlink_metadata().is_ok()
}

/// Whether `user` may enter `folder`. `None` is this process, which has just looked inside.
fn may_enter(folder: &Path, user: Option<u32>) -> bool {
    let (Some(user), Ok(metadata)) = (user, folder.metadata()) else { return true };
    // The tool's group has the same number as its user, and it has no other groups.
    let bit = match (metadata.uid() == user, metadata.gid() == user) {
        (true, _) => 0o100,
        (false, true) => 0o010,
        (false, false) => 0o001,
    };
    metadata.permissions().mode() & bit != 0
}

/// The first line of a script behind `#!`, without its line feed; `None` for another file.
fn interpreter(file: &Path) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    // Linux reads 256 bytes (`BINPRM_BUF_SIZE`).
    std::fs::File::open(file).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.split(|byte| *byte == b'\n').next()?.strip_prefix(b"#!")?;
    Some(line.to_vec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    /// Tries to start a file with this text and these modes, and returns the message.
    fn said(text: &str, mode: u32, folder_mode: u32, user: Option<u32>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("in");
        std::fs::create_dir(&inner).unwrap();
        let file = inner.join("tool");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(folder_mode)).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let error =
            std::process::Command::new(&file).spawn().map_or_else(|error| error, |_| io::ErrorKind::Other.into());
        let path = inner.to_str().unwrap();
        why("tool", path, Path::new("/"), user, &error).replace(path, "/in")
    }

    #[test]
    fn each_cause_has_its_own_words() {
        let cases = [
            (said("#!/bin/sh\r\n", 0o755, 0o755, None), "the first line of /in/tool ends with CR LF"),
            (said("#! /no/such -x\n", 0o755, 0o755, None), "names the interpreter /no/such, which is not in the image"),
            (said("#!/bin/sh\n", 0o644, 0o755, None), "/in/tool is not executable"),
            (said("#!/bin/sh\n", 0o755, 0o700, Some(12_345)), "user 12345 may not enter /in, in which /in/tool lies"),
            (said("", 0o755, 0o755, None), "/in/tool: "),
            (
                why("tool", "/no:/nor", Path::new("/"), None, &io::ErrorKind::NotFound.into()),
                "it is not on its PATH, /no:/nor",
            ),
            (why("/no/tool", "", Path::new("/"), None, &io::ErrorKind::NotFound.into()), "it is not in the image"),
            (why("usr", "/", Path::new("/"), None, &io::ErrorKind::PermissionDenied.into()), "/usr is a folder"),
        ];
        for (said, expected) in cases {
            assert!(said.contains(expected), "{said:?} does not say {expected:?}");
        }
    }
}
