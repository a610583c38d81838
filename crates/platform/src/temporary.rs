//! A temporary file that can be opened again by a path.

use std::fs::File;
use std::io;
use std::path::PathBuf;

/// On Linux the file has no name, so nothing is left behind however the process ends. Elsewhere it
/// has one until it is dropped; a process that is killed leaves it behind.
#[derive(Debug)]
pub struct Temporary(system::Inner);

impl Temporary {
    /// Creates an empty file for this user alone, in the folder for temporary files.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn new() -> io::Result<Self> {
        system::new().map(Self)
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        system::file(&mut self.0)
    }

    /// A path that opens the file anew, from its beginning, while this value lives.
    pub fn path(&self) -> PathBuf {
        system::path(&self.0)
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::os::fd::AsRawFd as _;

    pub(super) use std::fs::File as Inner;

    pub(super) fn new() -> std::io::Result<Inner> {
        tempfile::tempfile()
    }

    pub(super) fn file(file: &mut Inner) -> &mut Inner {
        file
    }

    pub(super) fn path(file: &Inner) -> std::path::PathBuf {
        // On macOS this path would share the position of the open file.
        format!("/dev/fd/{}", file.as_raw_fd()).into()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) use tempfile::NamedTempFile as Inner;

    pub(super) fn new() -> std::io::Result<Inner> {
        Inner::new()
    }

    pub(super) fn file(file: &mut Inner) -> &mut std::fs::File {
        file.as_file_mut()
    }

    pub(super) fn path(file: &Inner) -> std::path::PathBuf {
        file.path().to_owned()
    }
}
