//! Why nothing usable was packed.

use std::io;

use relay_protocol::artifact::{TEXT, UnsafeEntry, unpacked_limit};
use relay_protocol::limits;

/// Why nothing usable was packed. It is for the caller to correct.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file or folder could not be read.
    #[error("cannot read `{path}`: {error}")]
    Read {
        /// The path that could not be read.
        path: String,
        /// The error of the operating system.
        error: io::Error,
    },
    /// A name that no artifact may have (clause ART-4).
    #[error("{0}: rename it, or name only what you want to pack")]
    Unsafe(UnsafeEntry),
    /// A link that would be refused when the artifact is unpacked (clause ART-4).
    #[error(
        "the symbolic link `{path}` points to `{target}`, which {problem}: replace it with a copy, make it a relative link to something that is packed, or name only what you want to pack"
    )]
    Link {
        /// The path of the link.
        path: String,
        /// The target of the link.
        target: String,
        /// What is wrong with the link.
        problem: &'static str,
    },
    /// A socket, a pipe or a device (clause ART-4).
    #[error(
        "`{path}` is neither a file, nor a folder, nor a symbolic link: remove it, or name only what you want to pack"
    )]
    Kind {
        /// The path of the entry.
        path: String,
    },
    /// A path leads through something that is not a folder.
    #[error(
        "`{path}` is not a folder, so nothing in it can be packed (if it is a link to a folder, name the folder itself)"
    )]
    NotAFolder {
        /// The path that is not a folder.
        path: String,
    },
    /// A file has the name of the text for approvers (clause ART-7).
    #[error("`{TEXT}` is the name of relay's own file in a saved artifact: save yours under another name")]
    Taken,
    /// There are too many entries (clause ART-5).
    #[error(
        "there are more than {} files, folders and links: name only what you want to pack",
        limits::ARTIFACT_ENTRIES_MAX
    )]
    TooMany,
    /// The data shrinks so much that a runner would treat the artifact as a bomb (clause ART-5).
    #[error(
        "{bytes} bytes compress to {size}: an artifact may unpack to at most {} times its size, here {} bytes. Leave out files that are mostly repetition, or compress them first",
        limits::ARTIFACT_RATIO_MAX,
        unpacked_limit(*size, u64::MAX)
    )]
    Ratio {
        /// The size of all files in bytes.
        bytes: u64,
        /// The packed size in bytes.
        size: u64,
    },
    /// A file changed its length or its kind while it was read.
    #[error("`{path}` changed while relay packed it: wait until the program that writes it has finished")]
    Changed {
        /// The path of the file.
        path: String,
    },
    /// The file that says what not to pack is not of its form.
    #[error("`{path}`: {problem}")]
    Ignore {
        /// The path of the file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The output could not be written.
    #[error("cannot write the packed artifact: {0}")]
    Write(io::Error),
}
