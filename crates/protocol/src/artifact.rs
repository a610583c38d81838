//! Rules for the contents of an artifact: pure functions over names and sizes (clauses ART-1 to
//! ART-6). Packing and unpacking are left to the crate `relay-artifact`.

use crate::encoding::Digest;
use crate::limits;
use crate::names::TargetName;

/// The S3 key of the artifact with this digest under `prefix` (clause ART-1).
pub fn object_key(prefix: &str, digest: Digest) -> String {
    format!("{prefix}{digest}.tar.zst")
}

/// The entry of a saved artifact that holds the text which an approver reads (clause ART-7).
pub const TEXT: &str = "relay.txt";

/// Where the artifacts that `target` saves lie in the relay bucket (clause ART-1).
pub fn saved_prefix(target: &TargetName) -> String {
    format!("saved/{target}/")
}

/// An entry that is refused. Nothing of its artifact is used then (clause ART-4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsafeEntry {
    /// The path starts at the root.
    #[error("`{0}` starts with `/`")]
    Absolute(String),
    /// The path contains a backslash, which other systems take for a separator.
    #[error("`{0}` contains a backslash")]
    Backslash(String),
    /// The path has a `..` component.
    #[error("`{0}` has a `..` in it")]
    Parent(String),
    /// The path is not usable: it is empty, contains NUL, or has a component longer than 255 bytes.
    #[error("`{0}` is not a usable path")]
    Odd(String),
    /// A symbolic link whose target is outside the artifact.
    #[error("the link `{path}` points outside the artifact, to `{target}`")]
    LinkOut {
        /// The path of the link.
        path: String,
        /// The target of the link.
        target: String,
    },
    /// A device, a pipe, a socket or a hard link.
    #[error("`{0}` is neither a file, nor a folder, nor a symbolic link")]
    Kind(String),
    /// The artifact has more entries than [`limits::ARTIFACT_ENTRIES_MAX`].
    #[error("it has more than {} entries", limits::ARTIFACT_ENTRIES_MAX)]
    TooMany,
    /// The artifact unpacks to more bytes than allowed.
    #[error("it unpacks to more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
}

/// The components of an entry's path, if the path is relative and stays inside the artifact (clause
/// ART-4). Empty components and `.` are dropped.
///
/// # Errors
///
/// If the path is absolute, contains a backslash or a `..` component, or has an unusable component.
pub fn components(path: &str) -> Result<Vec<&str>, UnsafeEntry> {
    if path.starts_with('/') {
        return Err(UnsafeEntry::Absolute(crate::encoding::printable(path)));
    }
    if path.contains('\\') {
        return Err(UnsafeEntry::Backslash(crate::encoding::printable(path)));
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

/// Checks, by its text alone, that a symbolic link at `path` to `target` stays inside the artifact:
/// at no point may it climb higher than its own depth (clause ART-4).
///
/// # Errors
///
/// If the target is empty or absolute, contains NUL or a backslash, or leads out of the artifact,
/// or if [`components`] refuses `path`.
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

/// The mode that a file with `mode` has in an artifact and where it is unpacked: only who may read
/// it, its owner or everybody, and whether it is executable, are kept (clause ART-2).
pub fn mode(mode: u32) -> u32 {
    match (mode & 0o100 != 0, mode & 0o077 != 0) {
        (true, true) => 0o755,
        (false, true) => 0o644,
        (true, false) => 0o700,
        (false, false) => 0o600,
    }
}

/// The bytes that an artifact of `packed` bytes may unpack to, if the configuration allows `max`
/// packed bytes (clause ART-5). At least 1 MiB is always allowed.
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
