//! Windows.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Opens a link, or what else redirects, itself (`CreateFileW`).
const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;

pub(crate) fn stdout() -> impl Write + Send + 'static {
    Stream::new(io::stdout())
}

pub(crate) fn stderr() -> impl Write + Send + 'static {
    Stream::new(io::stderr())
}

/// A console takes only valid UTF-8, so anything else is replaced there. Files and pipes take every
/// byte.
struct Stream<W>(W);

impl<W> Stream<W> {
    fn new(stream: W) -> Self {
        // An old console that cannot show colours shows their codes.
        let _ = anstyle_query::windows::enable_ansi_colors();
        Self(stream)
    }
}

impl<W: Write + IsTerminal> Write for Stream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.is_terminal() {
            for chunk in bytes.utf8_chunks() {
                self.0.write_all(chunk.valid().as_bytes())?;
                if !chunk.invalid().is_empty() {
                    self.0.write_all("\u{FFFD}".as_bytes())?;
                }
            }
        } else {
            self.0.write_all(bytes)?;
        }
        self.0.flush()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Two pipes cannot be told from one here, so only a console is one stream.
pub(crate) fn is_one_stream() -> bool {
    io::stdout().is_terminal() && io::stderr().is_terminal()
}

pub(crate) fn is_stdout(_file: &File) -> bool {
    false
}

pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

pub(crate) fn open_without_blocking(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

pub(crate) fn has_no_reader(_error: &io::Error) -> bool {
    false
}

pub(crate) fn mode(_metadata: &Metadata) -> Option<u32> {
    None
}

#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if path.metadata()?.is_dir() { Ok(Self(path.to_owned())) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    pub(crate) fn file(&self, name: &str) -> io::Result<Option<File>> {
        let mut place = self.0.clone();
        let (folders, _) = name.rsplit_once('/').unwrap_or_default();
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            place.push(part);
            if !place.symlink_metadata()?.is_dir() {
                return Ok(None);
            }
        }
        let place = self.0.join(name);
        let file = OpenOptions::new().read(true).custom_flags(FILE_FLAG_OPEN_REPARSE_POINT).open(&place)?;
        Ok((!file.metadata()?.is_symlink()).then_some(file))
    }
}
