//! Unpacking: a stranger's artifact becomes files below one folder, or nothing at all (clauses ART-4 to ART-6).
//!
//! This file owns what is written and in which order: folders and files first, symbolic links when all of those are there, so that nothing
//! is ever written through a link; then each link is followed and must lead to something inside. It refuses to write into a folder that
//! holds anything, and leaves an empty folder behind when it fails.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use relay_protocol::artifact::{UnsafeEntry, check_link, components, unpacked_limit};
use relay_protocol::encoding::printable;
use zstd::stream::read::Decoder;

use crate::entries::{Entries, Kind};
use crate::unpack_error::UnpackError;

/// Bits of the largest window that is accepted: 128 MiB, zstd's own `--long`. Bounds the decompressor's memory (clause ART-5).
const WINDOW_LOG_MAX: u32 = 27;

/// Bytes of all links' names and texts together, which are kept until all files are there.
const LINKS_MAX: usize = 16 << 20;

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, folders and links made.
    pub entries: usize,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// Unpacks an artifact of `packed_size` bytes, of which the configuration allows `max`, into the existing empty folder `into`. When that
/// fails, the folder is empty again. That digest and size are right is for the caller to verify before (clause ART-3).
pub fn unpack(packed: impl Read, packed_size: u64, max: u64, into: &Path) -> Result<Unpacked, UnpackError> {
    let odd = |_| UnpackError::Into { path: printable(&into.to_string_lossy()) };
    // Canonical, so that what links lead to can be compared with it.
    let root = into.canonicalize().map_err(odd)?;
    if fs::read_dir(&root).map_err(odd)?.next().is_some() {
        return Err(odd(io::Error::from(io::ErrorKind::DirectoryNotEmpty)));
    }
    let result = Unpacking::new(packed, packed_size, max, root.clone())?.run();
    match result {
        Err(error) => match clear(&root) {
            Ok(()) => Err(error),
            Err(left) => Err(UnpackError::Left { error: Box::new(error), left }),
        },
        done => done,
    }
}

/// Removes all that is in `root`, and follows no link.
fn clear(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

type Zstd<R> = Decoder<'static, BufReader<Source<R>>>;

struct Unpacking<R: Read> {
    entries: Entries<Zstd<R>>,
    packed_size: u64,
    root: PathBuf,
    links: Vec<(String, String)>,
    links_size: usize,
    done: Unpacked,
}

impl<R: Read> Unpacking<R> {
    fn new(packed: R, packed_size: u64, max: u64, root: PathBuf) -> Result<Self, UnpackError> {
        let source = Source { input: packed, found: 0, failed: None };
        // One frame: what follows it is found by `finish`, and not taken for more of the tar.
        let mut zstd = Decoder::new(source).map_err(UnpackError::Read)?.single_frame();
        zstd.window_log_max(WINDOW_LOG_MAX).map_err(UnpackError::Read)?;
        let entries = Entries::new(zstd, unpacked_limit(packed_size, max));
        let done = Unpacked { entries: 0, bytes: 0 };
        Ok(Self { entries, packed_size, root, links: Vec::new(), links_size: 0, done })
    }

    fn run(mut self) -> Result<Unpacked, UnpackError> {
        let result = self.read_all();
        let mut input = self.entries.into_input().finish();
        if let Some(error) = input.get_mut().failed.take() {
            // The source failed, whatever the decompressor made of that.
            return Err(UnpackError::Read(error));
        }
        result?;
        // Behind the frame there is nothing, neither buffered nor unread.
        let more = input.read(&mut [0]).map_err(UnpackError::Read)?;
        if more > 0 {
            return Err(UnpackError::Trailing);
        }
        let found = input.get_ref().found;
        if found != self.packed_size {
            return Err(UnpackError::Size { expected: self.packed_size, found });
        }
        make_links(&self.root, &self.links)?;
        self.done.entries += self.links.len();
        Ok(self.done)
    }

    fn read_all(&mut self) -> Result<(), UnpackError> {
        while let Some(entry) = self.entries.next()? {
            let parts = components(&entry.path)?;
            let path = parts.join("/");
            match entry.kind {
                // The root itself, which `tar -C dir .` writes.
                Kind::Folder if parts.is_empty() => {}
                Kind::File { .. } | Kind::Link { .. } if parts.is_empty() => {
                    return Err(UnsafeEntry::Odd(printable(&entry.path)).into());
                }
                Kind::Folder => self.folder(&path, true)?,
                Kind::File { executable, size } => self.file(&path, executable, size)?,
                Kind::Link { target } => self.link(path, target)?,
            }
        }
        Ok(())
    }

    /// A folder, with those that it lies in. No link has been made yet, so no name leads through one (clause ART-6).
    fn folder(&mut self, path: &str, named: bool) -> Result<(), UnpackError> {
        let place = self.root.join(path);
        let make = || DirBuilder::new().mode(0o755).create(&place);
        let made = match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.parent(path)?;
                make()
            }
            other => other,
        };
        match made {
            Ok(()) => {
                // The process's umask may have taken bits.
                fs::set_permissions(&place, Permissions::from_mode(0o755))
                    .map_err(|error| UnpackError::write(&place, error))?;
                self.done.entries += 1;
                // Folders that no entry names count as well: one long name could make thousands (clause ART-5).
                if named { Ok(()) } else { self.entries.count() }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(&place) {
                Ok(metadata) if metadata.is_dir() => Ok(()),
                _ => Err(UnpackError::duplicate(path)),
            },
            Err(error) => Err(refine(path, &place, error)),
        }
    }

    fn parent(&mut self, path: &str) -> Result<(), UnpackError> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.folder(parent, false),
            None => Ok(()),
        }
    }

    fn file(&mut self, path: &str, executable: bool, size: u64) -> Result<(), UnpackError> {
        let place = self.root.join(path);
        // Set-uid and its like are dropped with everything else that is not 0644 or 0755.
        let mode = if executable { 0o755 } else { 0o644 };
        let open = || OpenOptions::new().write(true).create_new(true).mode(mode).open(&place);
        let opened = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.parent(path)?;
                open()
            }
            other => other,
        };
        let mut file: File = opened.map_err(|error| refine(path, &place, error))?;
        let failed = |error| UnpackError::write(&place, error);
        self.entries.body(size, &mut file, failed)?;
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        self.done.entries += 1;
        self.done.bytes += size;
        Ok(())
    }

    /// Notes a link for later. Its folder is made now: made later, it could be another link's name (clause ART-6).
    fn link(&mut self, path: String, target: String) -> Result<(), UnpackError> {
        check_link(&path, &target)?;
        self.parent(&path)?;
        self.links_size += path.len() + target.len();
        if self.links_size > LINKS_MAX {
            return Err(UnpackError::Links);
        }
        self.links.push((path, target));
        Ok(())
    }
}

/// Makes the links, then follows each: a chain of them can lead out although each text stays inside (clause ART-4).
fn make_links(root: &Path, links: &[(String, String)]) -> Result<(), UnpackError> {
    for (path, target) in links {
        let place = root.join(path);
        symlink(target, &place).map_err(|error| refine(path, &place, error))?;
    }
    for (path, target) in links {
        let end = root.join(path).canonicalize();
        if !end.as_ref().is_ok_and(|end| end.starts_with(root)) {
            let (path, target) = (printable(path), printable(target));
            return Err(match end {
                Ok(_) => UnsafeEntry::LinkOut { path, target }.into(),
                Err(_) => UnpackError::Dangling { path, target },
            });
        }
    }
    Ok(())
}

/// Tells the artifact's fault from the disk's.
fn refine(path: &str, place: &Path, error: io::Error) -> UnpackError {
    match error.kind() {
        // `NotADirectory`: a file lies where this entry wants a folder.
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => UnpackError::duplicate(path),
        io::ErrorKind::InvalidFilename => UnsafeEntry::Odd(printable(path)).into(),
        _ => UnpackError::write(place, error),
    }
}

/// The packed bytes: counted, and their own failure kept apart from the decompressor's.
struct Source<R> {
    input: R,
    found: u64,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer) {
            Ok(length) => {
                self.found += length as u64;
                Ok(length)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}
