//! What an artifact may hold: pure rules over names and sizes; packing and unpacking are at the edge (clauses ART-1 to ART-6).

use crate::encoding::Digest;
use crate::limits;

/// The object's key under `prefix` (clause ART-1).
pub fn object_key(prefix: &str, digest: Digest) -> String {
    format!("{prefix}{digest}.tar.zst")
}

/// An entry of an artifact that is refused; then nothing of the artifact is used (clause ART-4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsafeEntry {
    /// It starts at the root, or with a drive.
    #[error("`{0}` is an absolute path")]
    Absolute(String),
    /// It climbs.
    #[error("`{0}` has a `..` in it")]
    Parent(String),
    /// An empty name, or one with NUL.
    #[error("`{0}` is not a usable path")]
    Odd(String),
    /// A link whose target lies outside the artifact.
    #[error("the link `{path}` leads out of the artifact, to `{target}`")]
    LinkOut {
        /// The link.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// A device, a pipe, a socket, a hard link.
    #[error("`{0}` is neither a file, nor a folder, nor a symbolic link")]
    Kind(String),
    /// More entries than [`limits::ARTIFACT_ENTRIES_MAX`].
    #[error("more than {} entries", limits::ARTIFACT_ENTRIES_MAX)]
    TooMany,
    /// More bytes than allowed, once unpacked.
    #[error("unpacks to more than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: u64,
    },
}

/// The components of an entry's path, when it is relative and stays inside (clause ART-4).
pub fn components(path: &str) -> Result<Vec<&str>, UnsafeEntry> {
    if path.starts_with('/') || path.contains('\\') {
        return Err(UnsafeEntry::Absolute(crate::encoding::printable(path)));
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(UnsafeEntry::Parent(crate::encoding::printable(path))),
            part if part.contains('\0') || part.len() > 255 => {
                return Err(UnsafeEntry::Odd(crate::encoding::printable(path)));
            }
            part => parts.push(part),
        }
    }
    Ok(parts)
}

/// Checks that a symbolic link at `path` with the text `target` stays inside the artifact, by its text alone: it may climb no higher than
/// its own depth, at any point of its way (clause ART-4).
pub fn check_link(path: &str, target: &str) -> Result<(), UnsafeEntry> {
    let out =
        || UnsafeEntry::LinkOut { path: crate::encoding::printable(path), target: crate::encoding::printable(target) };
    if target.is_empty() || target.starts_with('/') || target.contains(['\0', '\\']) {
        return Err(out());
    }
    let mut depth = components(path)?.len().saturating_sub(1);
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.checked_sub(1).ok_or_else(out)?,
            _ => depth += 1,
        }
    }
    Ok(())
}

/// Bytes that an artifact of `packed` bytes may unpack to, where the configuration allows `max` bytes packed (clause ART-5).
pub fn unpacked_limit(packed: u64, max: u64) -> u64 {
    packed.min(max).saturating_mul(limits::ARTIFACT_RATIO_MAX).max(1_048_576)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(components("./a//b/"), Ok(vec!["a", "b"]));
        assert!(matches!(components("/etc/passwd"), Err(UnsafeEntry::Absolute(_))));
        assert!(matches!(components("a/../../b"), Err(UnsafeEntry::Parent(_))));
        assert!(matches!(components("a\0b"), Err(UnsafeEntry::Odd(_))));
    }

    #[test]
    fn links_stay_inside_by_their_text() {
        assert_eq!(check_link("a/b/link", "../c"), Ok(()));
        for (path, target) in
            [("link", ".."), ("a/link", "../.."), ("link", "/etc"), ("a/link", "b/../../../c"), ("link", "")]
        {
            assert!(matches!(check_link(path, target), Err(UnsafeEntry::LinkOut { .. })), "{path} -> {target}");
        }
    }
}
