//! Reads an untrusted tar, entry by entry, in bounded memory (clauses ART-4, ART-5).
//!
//! This file owns the reading of headers and of the long names of GNU and PAX. It refuses
//! everything that two tar readers could interpret differently, such as a second size, names from
//! two places, or a folder with a body. It also refuses every kind of entry except files, folders
//! and symbolic links.

use std::io::{self, Read, Write};

use relay_protocol::artifact::{self, UnsafeEntry};
use relay_protocol::encoding::printable;
use relay_protocol::limits;
use tar::{EntryType, Header};

use crate::unpack_error::UnpackError;

/// The largest accepted window, as a power of two: 128 MiB, the same as zstd's own `--long`. It
/// bounds the memory of the decompressor (clause ART-5).
pub(crate) const WINDOW_LOG_MAX: u32 = 27;

const BLOCK: usize = 512;

/// The largest extension in bytes, which is read into memory. It leaves ample room for names of
/// 4,096 bytes and for attributes that other tools write.
const EXTENSION_MAX: u64 = 65_536;

/// One entry. The body of a file follows it and is read with [`Entries::body`] before the next
/// entry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File { mode: u32, size: u64 },
    Link { target: String },
}

/// Properties of an entry that the extension entries before it specify.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

/// The entries of a tar.
pub(crate) struct Entries<R> {
    input: R,
    /// Bytes of bodies that are still allowed.
    left: u64,
    limit: u64,
    /// Entries and folders that are still allowed.
    count: usize,
}

impl<R: Read> Entries<R> {
    /// The entries of `input`. All bodies together may have at most `limit` bytes.
    pub(crate) fn new(input: R, limit: u64) -> Self {
        Self { input, left: limit, limit, count: limits::ARTIFACT_ENTRIES_MAX }
    }

    /// The input, after everything has been read.
    #[cfg(feature = "unpack")]
    pub(crate) fn into_input(self) -> R {
        self.input
    }

    /// Counts one more thing that is created: an entry, or a folder that no entry names (clause
    /// ART-5).
    pub(crate) fn count(&mut self) -> Result<(), UnpackError> {
        self.count = self.count.checked_sub(1).ok_or(UnsafeEntry::TooMany)?;
        Ok(())
    }

    /// The next entry; `None` at the end, after checking that only zeros remain.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extensions = Extensions::default();
        loop {
            let mut header = Header::new_old();
            fill(&mut self.input, header.as_mut_bytes())?;
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                self.end()?;
                return Ok(None);
            }
            let size = check(&header)?;
            match header.entry_type() {
                EntryType::GNULongName => set(&mut extensions.path, without_nul(self.extension(size)?))?,
                EntryType::GNULongLink => set(&mut extensions.link, without_nul(self.extension(size)?))?,
                EntryType::XHeader => pax(&self.extension(size)?, &mut extensions)?,
                EntryType::XGlobalHeader => {
                    // `git archive` writes one with a comment. Not all readers apply a global
                    // header to later entries, so one that names or sizes entries is refused.
                    self.count()?;
                    let mut global = Extensions::default();
                    pax(&self.extension(size)?, &mut global)?;
                    if global.path.is_some() || global.link.is_some() || global.size.is_some() || global.sparse {
                        return Err(UnpackError::Tar("a global header sets the name or size of entries".to_owned()));
                    }
                }
                _ => return self.entry(&header, size, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<Entry, UnpackError> {
        self.count()?;
        let path = text(extensions.path.unwrap_or_else(|| header.path_bytes().into_owned()))?;
        if extensions.sparse {
            return Err(UnsafeEntry::Kind(printable(&path)).into());
        }
        if extensions.size.is_some_and(|other| other != size) {
            return Err(UnpackError::Tar(format!("`{}` has two different sizes", printable(&path))));
        }
        let kind = match header.entry_type() {
            // Before tar had a type for folders, a trailing slash marked one.
            EntryType::Regular if path.ends_with('/') => return Err(UnsafeEntry::Odd(printable(&path)).into()),
            EntryType::Regular => {
                let mode = header.mode().map_err(|error| UnpackError::Tar(error.to_string()))?;
                Kind::File { mode: artifact::mode(mode), size }
            }
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => {
                let target = extensions.link.or_else(|| header.link_name_bytes().map(Vec::from)).unwrap_or_default();
                Kind::Link { target: text(target)? }
            }
            _ => return Err(UnsafeEntry::Kind(printable(&path)).into()),
        };
        match kind {
            // Refuse by the declared size, before any of the body is decompressed (clause ART-5).
            Kind::File { size, .. } => self.charge(size)?,
            Kind::Folder | Kind::Link { .. } if size > 0 => {
                return Err(UnpackError::Tar(format!("`{}` is not a file, but has a body", printable(&path))));
            }
            Kind::Folder | Kind::Link { .. } => {}
        }
        Ok(Entry { path, kind })
    }

    /// Copies the body of a file to `out`; `written` converts an error of `out`.
    pub(crate) fn body(
        &mut self,
        size: u64,
        out: &mut impl Write,
        written: impl Fn(io::Error) -> UnpackError,
    ) -> Result<(), UnpackError> {
        let mut buffer = [0; 16_384];
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            fill(&mut self.input, &mut buffer[..length])?;
            out.write_all(&buffer[..length]).map_err(&written)?;
            left -= length as u64;
        }
        self.padding(size)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        if size > EXTENSION_MAX {
            return Err(UnpackError::Tar(format!("a name or attribute is {size} bytes; the limit is {EXTENSION_MAX}")));
        }
        self.charge(size)?;
        let mut body = vec![0; usize::try_from(size).unwrap_or_default()];
        fill(&mut self.input, &mut body)?;
        self.padding(size)?;
        Ok(body)
    }

    fn padding(&mut self, size: u64) -> Result<(), UnpackError> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
        if over == 0 { Ok(()) } else { fill(&mut self.input, &mut [0; BLOCK][over..]) }
    }

    /// Reads the second block of zeros, then zeros up to the end, because writers pad to a block
    /// size of their own.
    fn end(&mut self) -> Result<(), UnpackError> {
        let mut buffer = [0; 16_384];
        fill(&mut self.input, &mut buffer[..BLOCK])?;
        let mut length = BLOCK;
        loop {
            if buffer[..length].iter().any(|byte| *byte != 0) {
                return Err(UnpackError::Trailing);
            }
            length = read(&mut self.input, &mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            self.charge(length as u64)?;
        }
    }

    fn charge(&mut self, size: u64) -> Result<(), UnpackError> {
        self.left = self.left.checked_sub(size).ok_or(UnsafeEntry::TooLarge { limit: self.limit })?;
        Ok(())
    }
}

/// Checks the checksum of a header, and returns the size of its body.
fn check(header: &Header) -> Result<u64, UnpackError> {
    let odd = |error: io::Error| UnpackError::Tar(printable(&error.to_string()));
    let bytes = header.as_bytes();
    // The checksum counts its own field as spaces.
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let expected = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
    if header.cksum().map_err(odd)? != expected {
        return Err(UnpackError::Tar("a header's checksum is wrong".to_owned()));
    }
    // Of the numbers, only the size may have the binary form.
    let (mode, size, checksum) = (&bytes[100..108], &bytes[124..136], &bytes[148..156]);
    if !is_octal(mode) || !is_octal(checksum) || !is_octal(size) && !is_binary(size) {
        return Err(UnpackError::Tar("a header has a number that readers take for different ones".to_owned()));
    }
    header.entry_size().map_err(odd)
}

/// Whether a field is an octal number as POSIX has it: digits, and spaces or NUL around them.
fn is_octal(field: &[u8]) -> bool {
    field.iter().all(|byte| matches!(byte, b'0'..=b'7' | b' ' | 0))
}

/// Whether a field is a number in GNU's binary form, not negative and within 64 bits: of the twelve
/// bytes of a size, readers use the last eight.
fn is_binary(size: &[u8]) -> bool {
    size.starts_with(&[0x80, 0, 0, 0])
}

/// Reads PAX records: `<length> <key>=<value>\n`. The length includes itself.
fn pax(mut records: &[u8], extensions: &mut Extensions) -> Result<(), UnpackError> {
    let odd = || UnpackError::Tar("a PAX header is malformed".to_owned());
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ').ok_or_else(odd)?;
        let length = number(&records[..space]).and_then(|length| usize::try_from(length).ok()).ok_or_else(odd)?;
        let record = records.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(odd)?;
        records = &records[length..];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(odd)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => set(&mut extensions.path, value.to_vec())?,
            b"linkpath" => set(&mut extensions.link, value.to_vec())?,
            b"size" => set(&mut extensions.size, number(value).ok_or_else(odd)?)?,
            key if key.starts_with(b"GNU.sparse.") => extensions.sparse = true,
            _ => {}
        }
    }
    Ok(())
}

fn set<T>(field: &mut Option<T>, value: T) -> Result<(), UnpackError> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(UnpackError::Tar("an entry has two names or sizes".to_owned())),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

/// Removes the NUL with which GNU ends a long name. A NUL inside the name is detected later.
fn without_nul(mut name: Vec<u8>) -> Vec<u8> {
    name.pop_if(|last| *last == 0);
    name
}

fn text(bytes: Vec<u8>) -> Result<String, UnpackError> {
    String::from_utf8(bytes)
        .map_err(|error| UnsafeEntry::Odd(printable(&String::from_utf8_lossy(error.as_bytes()))).into())
}

fn fill(input: &mut impl Read, mut buffer: &mut [u8]) -> Result<(), UnpackError> {
    while !buffer.is_empty() {
        let length = read(input, buffer)?;
        if length == 0 {
            return Err(UnpackError::Truncated);
        }
        buffer = &mut buffer[length..];
    }
    Ok(())
}

fn read(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, UnpackError> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(UnpackError::Truncated),
            other => return other.map_err(UnpackError::Zstd),
        }
    }
}
