//! The tree to pack: the files, folders and links below a root, by name, in the order in which they
//! are packed.
//!
//! This file owns the walk, and follows each symbolic link *within the packed tree*. It refuses
//! whatever unpacking would refuse (clauses ART-4, ART-5), so that a mistake shows up in CI, with
//! the name of the file, and not in a runner.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf, is_separator};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use relay_protocol::artifact::{UnsafeEntry, check_link, components, mode};
use relay_protocol::encoding::printable;
use relay_protocol::limits;

use crate::pack_error::PackError;

/// The file in the root that says what not to pack, in the form of `.gitignore`. It is not packed
/// itself.
const IGNORE: &str = ".relayignore";

/// The number of links that one name may lead through: as many as Linux follows.
const HOPS_MAX: usize = 40;

/// One file, folder or link to pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Folder,
    File {
        mode: u32,
    },
    Link {
        target: String,
    },
    /// A file that exists only in the artifact.
    Text {
        bytes: Vec<u8>,
    },
}

/// Everything to pack. The map sorts names by their bytes, so a folder comes before its contents
/// (clause ART-2).
#[derive(Debug)]
pub(crate) struct Tree {
    /// The folder that the names are relative to.
    pub(crate) base: PathBuf,
    /// The nodes by name.
    pub(crate) nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// Walks `paths` below `root`, or all of `root` if there are none.
    pub(crate) fn walk(root: &Path, paths: &[PathBuf]) -> Result<Self, PackError> {
        // If the root itself is a link, it is followed, because the caller named it.
        let metadata = fs::metadata(root).map_err(|error| PackError::read(root, error))?;
        if !metadata.is_dir() {
            return Self::of_file(root, paths, &metadata);
        }
        let mut tree = Self { base: root.to_owned(), nodes: BTreeMap::new() };
        if paths.is_empty() {
            tree.add_below("", &rules(root)?)?;
        }
        for path in paths {
            tree.add_named(path)?;
        }
        tree.check_links()?;
        Ok(tree)
    }

    /// A tree of a single file, under its own name.
    fn of_file(root: &Path, paths: &[PathBuf], metadata: &fs::Metadata) -> Result<Self, PackError> {
        if !metadata.is_file() {
            return Err(PackError::Kind { path: printable(&root.to_string_lossy()) });
        }
        if !paths.is_empty() {
            return Err(PackError::NotAFolder { path: printable(&root.to_string_lossy()) });
        }
        // The path of a file has a `file_name` unless it ends with `..`, and nothing that ends so
        // is a file.
        let name = root.file_name().map(Path::new).unwrap_or(root);
        let name = usable(name)?.to_owned();
        let base = root.parent().map(Path::to_owned).unwrap_or_default();
        let node = Node::File { mode: mode_of(metadata) };
        Ok(Self { base, nodes: BTreeMap::from([(name, node)]) })
    }

    /// Adds what the caller named, with the folders that contain it.
    fn add_named(&mut self, path: &Path) -> Result<(), PackError> {
        let path = slashed(path)?;
        let parts = components(&path).map_err(PackError::Unsafe)?;
        let Some((last, folders)) = parts.split_last() else { return self.add_below("", &Gitignore::empty()) };
        let mut name = String::new();
        for folder in folders {
            name = join(&name, folder);
            let metadata = self.metadata(&name)?;
            if !metadata.is_dir() {
                // A link to a folder is refused too: its contents would be packed below a link
                // (clause ART-6).
                return Err(PackError::NotAFolder { path: printable(&name) });
            }
            self.insert(name.clone(), Node::Folder)?;
        }
        let name = join(&name, last);
        if self.add(&name)? { self.add_below(&name, &Gitignore::empty()) } else { Ok(()) }
    }

    /// Adds everything below the folder `name`, at any depth, but what `rules` leave out.
    fn add_below(&mut self, name: &str, rules: &Gitignore) -> Result<(), PackError> {
        let mut folders = vec![name.to_owned()];
        while let Some(folder) = folders.pop() {
            let place = self.base.join(&folder);
            for child in fs::read_dir(&place).map_err(|error| PackError::read(&place, error))? {
                let child = child.map_err(|error| PackError::read(&place, error))?;
                let is_folder = child.file_type().is_ok_and(|kind| kind.is_dir());
                let path = Path::new(&folder).join(child.file_name());
                if rules.matched(&path, is_folder).is_ignore() || (!rules.is_empty() && path == Path::new(IGNORE)) {
                    continue;
                }
                let name = slashed(&path)?;
                if self.add(&name)? {
                    folders.push(name);
                }
            }
        }
        Ok(())
    }

    /// Adds one file, folder or link, and returns whether it is a folder.
    fn add(&mut self, name: &str) -> Result<bool, PackError> {
        components(name).map_err(PackError::Unsafe)?;
        let metadata = self.metadata(name)?;
        let node = if metadata.is_dir() {
            Node::Folder
        } else if metadata.is_file() {
            Node::File { mode: mode_of(&metadata) }
        } else if metadata.is_symlink() {
            let place = self.base.join(name);
            let target = fs::read_link(&place).map_err(|error| PackError::read(&place, error))?;
            Node::Link { target: slashed(&target)? }
        } else {
            return Err(PackError::Kind { path: printable(name) });
        };
        let folder = node == Node::Folder;
        self.insert(name.to_owned(), node)?;
        Ok(folder)
    }

    fn insert(&mut self, name: String, node: Node) -> Result<(), PackError> {
        self.nodes.insert(name, node);
        if self.nodes.len() > limits::ARTIFACT_ENTRIES_MAX { Err(PackError::TooMany) } else { Ok(()) }
    }

    fn metadata(&self, name: &str) -> Result<fs::Metadata, PackError> {
        let place = self.base.join(name);
        fs::symlink_metadata(&place).map_err(|error| PackError::read(&place, error))
    }

    /// Checks that each link stays inside, both by its text and when followed, and leads to
    /// something that is packed (clause ART-4).
    fn check_links(&self) -> Result<(), PackError> {
        for (name, node) in &self.nodes {
            if let Node::Link { target } = node {
                let odd = |problem| PackError::Link { path: printable(name), target: printable(target), problem };
                check_link(name, target).map_err(|error| match error {
                    UnsafeEntry::LinkOut { .. } => odd("is absolute or outside what is packed"),
                    other => PackError::Unsafe(other),
                })?;
                self.resolve(name, target).map_err(odd)?;
            }
        }
        Ok(())
    }

    /// Follows a link within the packed tree, as the kernel would after unpacking.
    fn resolve(&self, name: &str, target: &str) -> Result<(), &'static str> {
        let mut place: Vec<&str> = name.split('/').collect();
        place.pop();
        let mut rest: Vec<&str> = target.split('/').rev().collect();
        let mut hops = 0;
        while let Some(part) = rest.pop() {
            match part {
                "" | "." => continue,
                ".." => {
                    place.pop().ok_or("leads out of what is packed, through another link")?;
                    continue;
                }
                part => place.push(part),
            }
            match self.nodes.get_key_value(&place.join("/")) {
                Some((_, Node::Folder)) => {}
                Some((_, Node::File { .. } | Node::Text { .. })) if rest.is_empty() => {}
                Some((_, Node::Link { target })) => {
                    hops += 1;
                    if hops > HOPS_MAX {
                        return Err("leads in a circle");
                    }
                    place.pop();
                    rest.extend(target.split('/').rev());
                }
                Some((_, Node::File { .. } | Node::Text { .. })) | None => return Err("is not packed"),
            }
        }
        Ok(())
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The path as text, because the names in an artifact are text (clause ART-4).
fn usable(path: &Path) -> Result<&str, PackError> {
    path.to_str().ok_or_else(|| PackError::Unsafe(UnsafeEntry::Odd(printable(&path.to_string_lossy()))))
}

/// The path with the separator that artifacts have, whatever that of this system is.
fn slashed(path: &Path) -> Result<String, PackError> {
    Ok(usable(path)?.replace(is_separator, "/"))
}

/// The mode in an artifact. Where files have none, nothing is a program.
fn mode_of(metadata: &fs::Metadata) -> u32 {
    mode(relay_platform::mode(metadata).unwrap_or(0o644))
}

/// Reads the rules of what not to pack, if the root has some.
fn rules(root: &Path) -> Result<Gitignore, PackError> {
    let file = root.join(IGNORE);
    if !file.is_file() {
        return Ok(Gitignore::empty());
    }
    let wrong = |error: ignore::Error| PackError::Ignore {
        path: printable(&file.to_string_lossy()),
        problem: error.to_string(),
    };
    let mut rules = GitignoreBuilder::new("");
    match rules.add(&file) {
        Some(error) => Err(wrong(error)),
        None => rules.build().map_err(wrong),
    }
}
