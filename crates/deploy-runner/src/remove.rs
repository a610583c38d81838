//! Removes a directory tree that a tool has made. The tree may be nested more deeply than a
//! recursive walk has stack or descriptors for, so this walk keeps neither: it moves each
//! subdirectory up to the top before it removes its parent.

use std::io;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes `path` and everything below it. No link is followed.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let top = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
    let mut moved = 0_u64;
    while let Some(folder) = empty_of_files(&top)? {
        let below = open_folder(&top, &folder)?;
        while let Some(name) = empty_of_files(&below)? {
            // Unique, because nothing in this process makes such names, and the tool has ended.
            moved += 1;
            rustix::fs::renameat(&below, &name, &top, format!(".relay-remove-{moved}"))?;
        }
        rustix::fs::unlinkat(&top, &folder, AtFlags::REMOVEDIR)?;
    }
    std::fs::remove_dir(path)
}

/// Opens a subdirectory, even one that its owner may not read.
fn open_folder(parent: &OwnedFd, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(rustix::io::Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            Ok(rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?)
        }
        opened => Ok(opened?),
    }
}

/// Removes what is not a directory from `folder`, up to the first directory, and returns the name
/// of that; `None` once the folder is empty.
fn empty_of_files(folder: &OwnedFd) -> io::Result<Option<std::ffi::CString>> {
    // A directory that its owner may not write to cannot be emptied.
    rustix::fs::fchmod(folder, Mode::RWXU)?;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let is_folder = match entry.file_type() {
            FileType::Unknown => {
                let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(found.st_mode) == FileType::Directory
            }
            kind => kind == FileType::Directory,
        };
        if is_folder {
            return Ok(Some(name.to_owned()));
        }
        rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
    }
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A tree as deep as this overflows the stack of a recursive walk.
    #[test]
    fn a_tree_of_any_depth_is_removed_and_no_link_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (outside, root) = (folder.path().join("outside"), folder.path().join("root"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        fs::create_dir(&root).unwrap();
        let mut at = rustix::fs::open(&root, DIRECTORY, Mode::empty()).unwrap();
        for level in 0..20_000 {
            rustix::fs::mkdirat(&at, c"a", Mode::RWXU).unwrap();
            if level % 1_000 == 0 {
                rustix::fs::mkdirat(&at, c"b", Mode::RWXU).unwrap();
                rustix::fs::symlinkat(outside.as_path(), &at, c"link").unwrap();
            }
            at = rustix::fs::openat(&at, c"a", DIRECTORY, Mode::empty()).unwrap();
        }
        symlink(&outside, root.join("out")).unwrap();
        fs::create_dir(root.join("closed")).unwrap();
        fs::write(root.join("closed/file"), "x").unwrap();
        fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&root).unwrap();
        assert!(!root.exists() && outside.join("kept").exists());
    }
}
