//! Unpacking: an untrusted artifact becomes files below one folder, or nothing at all (clauses
//! ART-4 to ART-6).
//!
//! This file owns what is written and in which order. Folders and files come first and symbolic
//! links last, so that nothing is ever written through a link. Then each link is followed and must
//! lead to something inside. Unpacking refuses a folder that is not empty, and leaves the folder
//! empty when it fails.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use relay_protocol::artifact::{UnsafeEntry, check_link, components, unpacked_limit};
use relay_protocol::encoding::printable;
use zstd::stream::read::Decoder;

use crate::entries::{Entries, Kind, WINDOW_LOG_MAX};
use crate::unpack_error::UnpackError;

/// Bytes of the names and targets of all links, which stay in memory until all files exist.
const LINKS_MAX: usize = 16 << 20;

/// The result of unpacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The number of files, folders and links that were created.
    pub entries: usize,
    /// The size of all files together in bytes.
    pub bytes: u64,
}

/// Unpacks an artifact of `packed_size` bytes into the existing empty folder `into`. The
/// configuration allows `max` packed bytes. If unpacking fails, the folder is empty again. The
/// caller must have verified digest and size before (clause ART-3).
///
/// ```
/// use relay_artifact::{Text, pack, unpack};
///
/// let (from, into) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// std::fs::write(from.path().join("hello.txt"), "hello\n")?;
/// let mut bytes = Vec::new();
/// let packed = pack(from.path(), &[], Text::Any, &mut bytes)?;
/// let unpacked = unpack(bytes.as_slice(), packed.size, 1 << 20, into.path())?;
/// assert_eq!((unpacked.entries, unpacked.bytes), (1, 6));
/// assert_eq!(std::fs::read_to_string(into.path().join("hello.txt"))?, "hello\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// If `into` is not an empty folder, if the artifact is damaged or unsafe, or if something cannot
/// be read or written. [`UnpackError::Left`] means that the folder could not be emptied and must
/// not be used.
pub fn unpack(packed: impl Read, packed_size: u64, max: u64, into: &Path) -> Result<Unpacked, UnpackError> {
    let odd = |_| UnpackError::Into { path: printable(&into.to_string_lossy()) };
    // Canonical, so that the end of each link can be compared with it.
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

impl UnpackError {
    fn write(path: &Path, error: io::Error) -> Self {
        Self::Write { path: printable(&path.to_string_lossy()), error }
    }

    fn duplicate(path: &str) -> Self {
        Self::Duplicate { path: printable(path) }
    }
}

/// Removes everything in `root` without following links.
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
        // Decode a single frame. `finish` finds what follows it, so that it is not read as more of
        // the tar.
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
            // The source failed, so its error matters and not the decompressor's.
            return Err(UnpackError::Read(error));
        }
        result?;
        // Nothing may follow the frame, neither buffered nor unread.
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
                Kind::File { mode, size } => self.file(&path, mode, size)?,
                Kind::Link { target } => self.link(path, target)?,
            }
        }
        Ok(())
    }

    /// Creates a folder and its missing parents. No link exists yet, so no name leads through one
    /// (clause ART-6).
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
                // The umask of the process may have removed bits.
                fs::set_permissions(&place, Permissions::from_mode(0o755))
                    .map_err(|error| UnpackError::write(&place, error))?;
                self.done.entries += 1;
                // Folders that no entry names count too, because one long name could create
                // thousands (clause ART-5).
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

    fn file(&mut self, path: &str, mode: u32, size: u64) -> Result<(), UnpackError> {
        let place = self.root.join(path);
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

    /// Records a link for later, but creates its parent folder now. Created later, the parent could
    /// turn out to be another link (clause ART-6).
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

/// Creates the links, then follows each one. A chain of links can lead out although the text of
/// each stays inside (clause ART-4).
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

/// Distinguishes a fault of the artifact from one of the disk.
fn refine(path: &str, place: &Path, error: io::Error) -> UnpackError {
    match error.kind() {
        // `NotADirectory`: a file exists where this entry needs a folder.
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => UnpackError::duplicate(path),
        io::ErrorKind::InvalidFilename => UnsafeEntry::Odd(printable(path)).into(),
        _ => UnpackError::write(place, error),
    }
}

/// Reads the packed bytes and counts them. It keeps its own error apart from errors of the
/// decompressor.
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
