//! Why nothing was unpacked: each error says whose fault it is.

use std::io;
use std::path::Path;

use relay_protocol::artifact::UnsafeEntry;
use relay_protocol::encoding::printable;

/// Nothing was unpacked; whatever had been is removed again.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry that no artifact may have (clauses ART-4, ART-5).
    #[error("the artifact is unsafe: {0}")]
    Unsafe(#[from] UnsafeEntry),
    /// One path, two things.
    #[error("the artifact is unsafe: `{path}` is in it twice")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// A link that leads nowhere, or in a circle.
    #[error("the artifact is unsafe: the link `{path}` leads to `{target}`, where there is nothing")]
    Dangling {
        /// The link.
        path: String,
        /// Its text.
        target: String,
    },
    /// Links whose texts together would take too much memory until all files are there.
    #[error("the artifact is unsafe: its links are too many or too long")]
    Links,
    /// Not zstd, or damaged.
    #[error("the artifact is damaged, or no .tar.zst at all: {0}")]
    Zstd(io::Error),
    /// zstd, but not a tar that relay reads.
    #[error("the artifact is damaged, or no .tar.zst at all: {0}")]
    Tar(String),
    /// It ends too early.
    #[error("the artifact is cut off")]
    Truncated,
    /// Something follows.
    #[error("there is something behind the artifact's end")]
    Trailing,
    /// Another size than the caller said; the limit was computed from that.
    #[error("the artifact has {found} bytes, not {expected}")]
    Size {
        /// What the caller said.
        expected: u64,
        /// What there was.
        found: u64,
    },
    /// The packed bytes could not be read. Not the artifact's fault.
    #[error("the packed artifact cannot be read: {0}")]
    Read(io::Error),
    /// The folder is not there, or not empty. Not the artifact's fault.
    #[error("`{path}` is not an empty folder, so nothing is unpacked into it")]
    Into {
        /// The folder.
        path: String,
    },
    /// Something could not be written. Not the artifact's fault.
    #[error("`{path}` cannot be written: {error}")]
    Write {
        /// What.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// What had been unpacked could not be removed: the folder must not be used.
    #[error("{error}; what was unpacked until then cannot be removed: {left}")]
    Left {
        /// Why nothing was unpacked.
        error: Box<UnpackError>,
        /// Why it is still there.
        left: io::Error,
    },
}

impl UnpackError {
    /// Whether the artifact itself is to blame (refused with `artifact`), and not this machine's disk or the way here.
    pub fn is_artifacts_fault(&self) -> bool {
        match self {
            Self::Read(_) | Self::Into { .. } | Self::Write { .. } | Self::Left { .. } => false,
            Self::Unsafe(_)
            | Self::Duplicate { .. }
            | Self::Dangling { .. }
            | Self::Links
            | Self::Zstd(_)
            | Self::Tar(_)
            | Self::Truncated
            | Self::Trailing
            | Self::Size { .. } => true,
        }
    }

    pub(crate) fn write(path: &Path, error: io::Error) -> Self {
        Self::Write { path: printable(&path.to_string_lossy()), error }
    }

    pub(crate) fn duplicate(path: &str) -> Self {
        Self::Duplicate { path: printable(path) }
    }
}
