//! Packing: a tree gives the same bytes wherever and whenever it is packed (clauses ART-1, ART-2).
//!
//! This file owns the bytes of the tar, the compression parameters and the digest. It leaves out
//! times, owners and most mode bits, because they would make two packings of one commit differ. It
//! refuses what could not be unpacked, with an error that says what to do.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use relay_platform::Folder;
use relay_protocol::Digest;
use relay_protocol::artifact::{TEXT, unpacked_limit};
use relay_protocol::encoding::printable;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};
use zstd::stream::write::Encoder;

use crate::pack_error::PackError;
use crate::tree::{Node, Tree};

/// The default level of zstd. It is a constant, because another level gives other bytes (clause
/// ART-2).
const LEVEL: i32 = 3;

/// Bytes of a name that fit into a tar header. A longer name goes into an entry of its own before
/// it.
const NAME_MAX: usize = 100;

const BLOCK: usize = 512;

/// The result of packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// SHA-256 of the packed bytes. It names the artifact and is the value of the parameter (clause
    /// ART-1).
    pub digest: Digest,
    /// The packed size in bytes.
    pub size: u64,
    /// The number of files, folders and links.
    pub entries: usize,
}

/// What the entry [`TEXT`] of an artifact is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// A file like any other.
    Any,
    /// There must be none, because approvers would take it for relay's own.
    None,
    /// Relay's own, with this content. No file may have its name.
    Own(Vec<u8>),
}

impl PackError {
    pub(crate) fn read(path: &Path, error: io::Error) -> Self {
        Self::Read { path: printable(&path.to_string_lossy()), error }
    }
}

/// Packs the `paths` below `root`, or everything below it if `paths` is empty. If `root` is a file,
/// it is packed under its own name. `text` says what the entry [`TEXT`] is (clause ART-7). The same
/// tree gives the same bytes (clause ART-2).
///
/// ```
/// use relay_artifact::{Text, pack};
///
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("hello.txt"), "hello\n")?;
/// let mut bytes = Vec::new();
/// let packed = pack(folder.path(), &[], Text::Any, &mut bytes)?;
/// assert_eq!(packed.digest, relay_protocol::Digest::of(&bytes));
/// assert_eq!((packed.size, packed.entries), (bytes.len() as u64, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// If something cannot be read or written, changes while it is packed, or could not be unpacked
/// again.
pub fn pack(root: &Path, paths: &[PathBuf], text: Text, out: impl Write) -> Result<Packed, PackError> {
    let mut tree = Tree::walk(root, paths)?;
    if !matches!(text, Text::Any) && tree.nodes.contains_key(TEXT) {
        return Err(PackError::Taken);
    }
    if let Text::Own(bytes) = text {
        tree.nodes.insert(TEXT.to_owned(), Node::Text { bytes });
    }
    let sink = Sink { out, sha: Sha256::new(), size: 0 };
    let here = if tree.base.as_os_str().is_empty() { Path::new(".") } else { &tree.base };
    let base = Folder::open(here).map_err(|error| PackError::read(here, error))?;
    let mut tar = Tar { zstd: Encoder::new(sink, LEVEL).map_err(PackError::Write)?, base, bytes: 0 };
    for (name, node) in &tree.nodes {
        match node {
            Node::Folder => tar.entry(name, EntryType::Directory, 0o755, 0)?,
            Node::Link { target } => tar.link(name, target)?,
            Node::Text { bytes } => tar.text(name, bytes)?,
            Node::File { mode } => tar.file(name, *mode, &tree.base.join(name))?,
        }
    }
    let bytes = tar.bytes;
    let mut sink = tar.finish()?;
    sink.flush().map_err(PackError::Write)?;
    if bytes > unpacked_limit(sink.size, u64::MAX) {
        return Err(PackError::Ratio { bytes, size: sink.size });
    }
    let digest = Digest::from_bytes(sink.sha.finalize().into());
    Ok(Packed { digest, size: sink.size, entries: tree.nodes.len() })
}

/// A tar that is being written.
struct Tar<W: Write> {
    zstd: Encoder<'static, Sink<W>>,
    /// The folder that all names are relative to.
    base: Folder,
    /// Bytes of all bodies, counted in the same way as during unpacking.
    bytes: u64,
}

impl<W: Write> Tar<W> {
    /// Writes a header, preceded by an entry for the name if the name is too long for it.
    fn entry(&mut self, name: &str, kind: EntryType, mode: u32, size: u64) -> Result<(), PackError> {
        self.long(name, EntryType::GNULongName)?;
        let mut header = header(kind, mode, size);
        put(&mut header.as_old_mut().name, name);
        self.header(header)
    }

    fn link(&mut self, name: &str, target: &str) -> Result<(), PackError> {
        self.long(target, EntryType::GNULongLink)?;
        self.long(name, EntryType::GNULongName)?;
        // The mode of a link has no meaning; other tools write this one.
        let mut header = header(EntryType::Symlink, 0o777, 0);
        put(&mut header.as_old_mut().name, name);
        put(&mut header.as_old_mut().linkname, target);
        self.header(header)
    }

    fn file(&mut self, name: &str, mode: u32, place: &Path) -> Result<(), PackError> {
        let read = |error| PackError::read(place, error);
        let changed = || PackError::Changed { path: printable(name) };
        // Since the tree was walked, somebody may have put a link in the place of the file, and
        // this process may have more rights than that person.
        let mut file = self.base.file(name).map_err(read)?.ok_or_else(changed)?;
        let metadata = file.metadata().map_err(read)?;
        if !metadata.is_file() {
            return Err(changed());
        }
        self.entry(name, EntryType::Regular, mode, metadata.len())?;
        let mut buffer = vec![0; 65_536];
        let mut left = metadata.len();
        while left > 0 {
            // Write whole chunks whatever the reads returned, so that the compressor sees the same
            // calls each time.
            let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let chunk = &mut buffer[..length];
            file.read_exact(chunk).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => changed(),
                _ => read(error),
            })?;
            self.zstd.write_all(chunk).map_err(PackError::Write)?;
            left -= chunk.len() as u64;
        }
        if file.read(&mut buffer[..1]).map_err(read)? > 0 {
            return Err(changed());
        }
        self.pad(metadata.len())
    }

    fn text(&mut self, name: &str, bytes: &[u8]) -> Result<(), PackError> {
        let size = bytes.len() as u64;
        self.entry(name, EntryType::Regular, 0o644, size)?;
        self.zstd.write_all(bytes).map_err(PackError::Write)?;
        self.pad(size)
    }

    /// Writes an entry, in GNU's format, with a name of the following entry that is longer than
    /// [`NAME_MAX`].
    fn long(&mut self, text: &str, kind: EntryType) -> Result<(), PackError> {
        if text.len() <= NAME_MAX {
            return Ok(());
        }
        let mut body = text.as_bytes().to_vec();
        body.push(0);
        let size = body.len() as u64;
        let mut header = header(kind, 0o644, size);
        put(&mut header.as_old_mut().name, "././@LongLink");
        self.header(header)?;
        self.zstd.write_all(&body).map_err(PackError::Write)?;
        self.pad(size)
    }

    fn header(&mut self, mut header: Header) -> Result<(), PackError> {
        header.set_cksum();
        self.zstd.write_all(header.as_bytes()).map_err(PackError::Write)
    }

    fn pad(&mut self, size: u64) -> Result<(), PackError> {
        self.bytes = self.bytes.saturating_add(size);
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.zstd.write_all(&[0; BLOCK][over..]).map_err(PackError::Write) }
    }

    fn finish(mut self) -> Result<Sink<W>, PackError> {
        self.zstd.write_all(&[0; 2 * BLOCK]).map_err(PackError::Write)?;
        self.zstd.finish().map_err(PackError::Write)
    }
}

/// A header that contains nothing that differs between machines (clause ART-2).
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// Writes as much of a name as its field holds.
fn put(field: &mut [u8; NAME_MAX], text: &str) {
    let length = text.len().min(NAME_MAX);
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
}

/// Counts and hashes the bytes that are written (clause ART-1).
struct Sink<W> {
    out: W,
    sha: Sha256,
    size: u64,
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sha.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
