//! A temporary folder that is removed when it is dropped, whatever a tool has made in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(prefix: &str) -> std::io::Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix(prefix).tempdir()?.keep()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    /// By `rm`, which does not recurse: the standard library overflows the stack on a tree that is
    /// nested deeply enough.
    fn drop(&mut self) {
        let removed = Command::new("rm").args(["-rf", "--"]).arg(&self.0).stderr(Stdio::null()).status();
        if removed.is_err() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
