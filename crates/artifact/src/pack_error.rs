//! Why nothing usable was packed.

use std::io;

use relay_protocol::artifact::{UnsafeEntry, unpacked_limit};
use relay_protocol::limits;

/// Nothing usable was packed. In the hands of whoever called for it.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file or folder could not be read.
    #[error("`{path}` cannot be read: {error}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A name that no artifact may have (clause ART-4).
    #[error("{0}: rename it, or name only what is to be packed")]
    Unsafe(UnsafeEntry),
    /// A link that would be refused when the artifact is unpacked (clause ART-4).
    #[error(
        "the symbolic link `{path}` leads to `{target}`, which {problem}: put a copy in its place, make it a relative link to something that is packed, or name only what is to be packed"
    )]
    Link {
        /// The link.
        path: String,
        /// Its text.
        target: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A socket, a pipe, a device (clause ART-4).
    #[error(
        "`{path}` is neither a file, nor a folder, nor a symbolic link: remove it, or name only what is to be packed"
    )]
    Kind {
        /// Which.
        path: String,
    },
    /// Something is to be packed from inside what has no inside.
    #[error("`{path}` is not a folder, so nothing in it can be packed (a link to a folder: name the folder itself)")]
    NotAFolder {
        /// Which.
        path: String,
    },
    /// Too many (clause ART-5).
    #[error(
        "there are more than {} files, folders and links: name only what is to be packed",
        limits::ARTIFACT_ENTRIES_MAX
    )]
    TooMany,
    /// So much smaller when packed that a runner would take it for a bomb (clause ART-5).
    #[error(
        "{bytes} bytes shrink to {size}: an artifact may unpack to at most {} times its size, {} bytes here. Leave out files that hold next to nothing, or pack them beforehand",
        limits::ARTIFACT_RATIO_MAX,
        unpacked_limit(*size, u64::MAX)
    )]
    Ratio {
        /// Bytes of all files.
        bytes: u64,
        /// Packed bytes.
        size: u64,
    },
    /// A file became shorter or longer, or something else, while it was read.
    #[error("`{path}` changed while it was packed: let whatever writes it come to its end first")]
    Changed {
        /// Which.
        path: String,
    },
    /// The output could not be written.
    #[error("the packed artifact cannot be written: {0}")]
    Write(io::Error),
}
