//! Linux and macOS.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, fstat, open, openat};
use rustix::io::Errno;

pub(crate) fn stdout() -> impl Write + Send + 'static {
    Patient(io::stdout())
}

pub(crate) fn stderr() -> impl Write + Send + 'static {
    Patient(io::stderr())
}

/// Writes to the descriptor, past any buffer. Whether a descriptor blocks belongs to the open file
/// and not to a process, so another process may have changed it. A full pipe then reports an error,
/// which says nothing about the stream.
struct Patient<F>(F);

impl<F: AsFd> Write for Patient<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                Err(Errno::WOULDBLOCK) => match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None) {
                    Err(error) if error != Errno::INTR => return Err(error.into()),
                    _ => {}
                },
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn is_one_stream() -> bool {
    is_same_file(io::stdout(), io::stderr())
}

pub(crate) fn is_stdout(file: &File) -> bool {
    is_same_file(file, io::stdout())
}

fn is_same_file(one: impl AsFd, other: impl AsFd) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

pub(crate) fn open_without_blocking(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags).open(path)
}

pub(crate) fn has_no_reader(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NXIO.raw_os_error())
}

#[allow(clippy::unnecessary_wraps, reason = "the other system has no mode")]
pub(crate) fn mode(metadata: &Metadata) -> Option<u32> {
    Some(metadata.permissions().mode())
}

/// How a folder is opened on the way to a file. Linux needs no right to read its names for that.
#[cfg(target_os = "linux")]
const WAY: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const WAY: OFlags = OFlags::RDONLY;

#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, WAY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    pub(crate) fn file(&self, name: &str) -> io::Result<Option<File>> {
        let way = WAY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut folder = None;
        let mut rest = name;
        while let Some((first, more)) = rest.split_once('/') {
            let parent = folder.as_ref().unwrap_or(&self.0);
            match openat(parent, first, way, Mode::empty()) {
                Ok(opened) => folder = Some(opened),
                Err(Errno::LOOP | Errno::NOTDIR) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            rest = more;
        }
        match openat(folder.as_ref().unwrap_or(&self.0), rest, flags, Mode::empty()) {
            Ok(opened) => Ok(Some(opened.into())),
            Err(Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, pipe};

    use super::*;

    #[test]
    fn a_full_pipe_that_does_not_block_is_no_error() {
        let (mut reader, writer) = pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        // More than a pipe holds.
        let much = vec![7; 1 << 20];
        let text = much.clone();
        let thread = std::thread::spawn(move || Patient(writer).write_all(&text));
        let mut found = Vec::new();
        reader.read_to_end(&mut found).unwrap();
        thread.join().unwrap().unwrap();
        assert!(found == much);
    }
}
