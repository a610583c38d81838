//! The differences between Linux, macOS and Windows, on all of which `relay` runs. Only this crate
//! has conditional code: `unix.rs` and `windows.rs` have the same functions.
//!
//! relay's other programs run on Linux (`relay-admin` on macOS too) and need no such layer.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests fail by panicking"))]

#[cfg(feature = "signals")]
pub mod signals;
#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod system;
mod temporary;

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::path::{Component, Path};

pub use temporary::Temporary;

/// Standard output without a buffer. A write blocks until the stream takes some of the bytes, even
/// if another process has made the open file non-blocking.
pub fn stdout() -> impl Write + Send + 'static {
    system::stdout()
}

/// Standard error, in the same way.
pub fn stderr() -> impl Write + Send + 'static {
    system::stderr()
}

/// Whether stdout and stderr are the same file, terminal or pipe. On Windows only a console is.
pub fn is_one_stream() -> bool {
    system::is_one_stream()
}

/// Whether this file is stdout. On Windows no file is.
pub fn is_stdout(file: &File) -> bool {
    system::is_stdout(file)
}

/// Creates a file that only its owner can read and write. On Windows, whoever may read its folder
/// can read it too.
///
/// # Errors
///
/// If the file exists, or cannot be created.
pub fn create_private(path: &Path) -> io::Result<File> {
    system::create_private(path)
}

/// Opens a file to write to it, and creates it if there is none. Neither opening nor writing
/// blocks, even if it is a pipe; on Windows a pipe may block.
///
/// # Errors
///
/// If it cannot be opened. [`has_no_reader`] recognises a pipe that nobody reads.
pub fn open_without_blocking(path: &Path) -> io::Result<File> {
    system::open_without_blocking(path)
}

/// Whether [`open_without_blocking`] failed because nobody reads the pipe.
pub fn has_no_reader(error: &io::Error) -> bool {
    system::has_no_reader(error)
}

/// The permission bits of a file, where the system has them. Windows has none.
pub fn mode(metadata: &Metadata) -> Option<u32> {
    system::mode(metadata)
}

/// An open folder, whose files are opened without following links.
#[derive(Debug)]
pub struct Folder(system::Folder);

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    ///
    /// If it is no folder, or cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        system::Folder::open(path).map(Self)
    }

    /// Opens the file `name`, whose components are separated by `/`, to read it. It does not block
    /// on a pipe. The file is `None` if a component of the name is a link or leads elsewhere, as
    /// `..` does, or if another file stands where a folder was expected.
    ///
    /// On Windows, somebody may put a link in the place of a folder while this function runs. It
    /// then follows the link.
    ///
    /// # Errors
    ///
    /// If there is no such file, or it cannot be opened.
    pub fn file(&self, name: &str) -> io::Result<Option<File>> {
        let is_plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if is_plain { self.0.file(name) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_component_of_a_name_may_be_a_link() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("b")).unwrap();
        std::fs::write(outside.path().join("b/secret"), "secret").unwrap();
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("a")).unwrap();
        std::fs::write(place.path().join("a/file"), "fine").unwrap();
        symlink(outside.path(), place.path().join("folder")).unwrap();
        symlink(outside.path().join("b/secret"), place.path().join("a/link")).unwrap();
        let folder = Folder::open(place.path()).unwrap();
        let mut text = String::new();
        folder.file("a/file").unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "fine");
        for name in ["a/link", "folder/b/secret", "a/file/b", "../x", "/etc/hostname"] {
            assert!(folder.file(name).unwrap().is_none(), "{name}");
        }
        assert_eq!(folder.file("a/none").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
