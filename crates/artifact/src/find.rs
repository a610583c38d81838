//! Reads one file out of an untrusted artifact without unpacking it: nothing is written, and memory
//! does not grow with the artifact (clause ART-7).

use std::io::{self, Read};

use relay_protocol::artifact::{components, unpacked_limit};
use zstd::stream::read::Decoder;

use crate::entries::{Entries, Kind, WINDOW_LOG_MAX};
use crate::unpack_error::UnpackError;

/// The content of the first entry with this name, if it is a file of at most `max` bytes; `None` if
/// there is none. A second entry of that name is not looked for: an artifact that has one cannot be
/// unpacked.
///
/// # Errors
///
/// If the artifact is damaged or unsafe up to that entry, or cannot be read.
pub fn find(packed: impl Read, packed_size: u64, name: &str, max: u64) -> Result<Option<Vec<u8>>, UnpackError> {
    let mut zstd = Decoder::new(packed).map_err(UnpackError::Read)?.single_frame();
    zstd.window_log_max(WINDOW_LOG_MAX).map_err(UnpackError::Read)?;
    let mut entries = Entries::new(zstd, unpacked_limit(packed_size, u64::MAX));
    while let Some(entry) = entries.next()? {
        let is_it = components(&entry.path)?.join("/") == name;
        match entry.kind {
            Kind::File { size, .. } if is_it && size <= max => {
                let mut content = Vec::new();
                entries.body(size, &mut content, UnpackError::Read)?;
                return Ok(Some(content));
            }
            // A link could lead to another file than the one that the runner wrote.
            _ if is_it => return Ok(None),
            Kind::File { size, .. } => entries.body(size, &mut io::sink(), UnpackError::Read)?,
            Kind::Folder | Kind::Link { .. } => {}
        }
    }
    Ok(None)
}
