//! Why nothing was unpacked. Each error says whether the artifact or its environment is at fault.

use std::io;

use relay_protocol::artifact::UnsafeEntry;

/// Why nothing was unpacked. Unless the error is [`UnpackError::Left`], what had been written was
/// removed.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry that no artifact may have (clauses ART-4, ART-5).
    #[error("the artifact is unsafe: {0}")]
    Unsafe(#[from] UnsafeEntry),
    /// Two entries have the same path, or one needs a folder where the other is not one.
    #[error("the artifact is unsafe: its entries conflict at `{path}`")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// A link that leads to nothing, or in a circle.
    #[error("the artifact is unsafe: the link `{path}` points to `{target}`, which resolves to nothing")]
    Dangling {
        /// The path of the link.
        path: String,
        /// The target of the link.
        target: String,
    },
    /// The links have so many or such long names and targets that keeping them would take too much
    /// memory.
    #[error("the artifact is unsafe: it has too many links, or links that are too long")]
    Links,
    /// The data is not zstd, or is damaged.
    #[error("the artifact is damaged, or is not a .tar.zst: {0}")]
    Zstd(io::Error),
    /// The data is zstd, but not a tar that relay accepts.
    #[error("the artifact is damaged, or is not a .tar.zst: {0}")]
    Tar(String),
    /// The artifact ends too early.
    #[error("the artifact is truncated")]
    Truncated,
    /// Something follows the end of the artifact.
    #[error("the artifact has data after its end")]
    Trailing,
    /// The artifact does not have the size that the caller gave, from which the limit was computed.
    #[error("the artifact is {found} bytes, not {expected}")]
    Size {
        /// The size that the caller gave, in bytes.
        expected: u64,
        /// The actual size in bytes.
        found: u64,
    },
    /// The packed bytes could not be read. Not the artifact's fault.
    #[error("cannot read the packed artifact: {0}")]
    Read(io::Error),
    /// The folder does not exist or is not empty. Not the artifact's fault.
    #[error("cannot unpack into `{path}`: it is not an empty folder")]
    Into {
        /// The path of the folder.
        path: String,
    },
    /// Something could not be written. Not the artifact's fault.
    #[error("cannot write `{path}`: {error}")]
    Write {
        /// The path that could not be written.
        path: String,
        /// The error of the operating system.
        error: io::Error,
    },
    /// What had been unpacked could not be removed, so the folder must not be used.
    #[error("{error}; cannot remove what was already unpacked: {left}")]
    Left {
        /// Why unpacking failed.
        error: Box<UnpackError>,
        /// Why the removal failed.
        left: io::Error,
    },
}

impl UnpackError {
    /// Whether the artifact itself is at fault and is refused with the reason `artifact`. Otherwise
    /// the fault lies with the local disk or with the transfer.
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
}
