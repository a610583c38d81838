//! The repository's texts, by path from the root. They are in memory, so that a check can be tested
//! on an invented tree.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;

use crate::Outcome;

/// Folders that do not belong to the project.
const SKIPPED: &[&str] = &["target", "node_modules"];

/// Texts by path, with `/` as the separator, and all paths, for links.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the repository: Rust, Markdown, files with comments, and the vectors.
    ///
    /// # Errors
    ///
    /// If a folder or a file cannot be read.
    pub(crate) fn load() -> io::Result<Self> {
        let mut tree = Self::default();
        tree.walk(&root(), "")?;
        Ok(tree)
    }

    fn walk(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let hidden = name.starts_with('.') && name != ".ci";
            if hidden || SKIPPED.contains(&name.as_str()) {
                continue;
            }
            let path = format!("{prefix}{name}");
            self.paths.insert(path.clone());
            if entry.file_type()?.is_dir() {
                self.walk(&entry.path(), &format!("{path}/"))?;
            } else if is_read(&path) {
                self.texts.insert(path, std::fs::read_to_string(entry.path())?);
            }
        }
        Ok(())
    }

    /// The text at `path`.
    ///
    /// # Errors
    ///
    /// If there is no such text.
    pub(crate) fn text(&self, path: &str) -> Result<&str, String> {
        self.texts.get(path).map(String::as_str).ok_or_else(|| format!("{path} does not exist"))
    }

    /// The texts whose path starts with one of `prefixes` and ends with `suffix`.
    pub(crate) fn under<'a>(
        &'a self,
        prefixes: &'a [&'a str],
        suffix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.texts
            .iter()
            .filter(move |(path, _)| path.ends_with(suffix) && prefixes.iter().any(|prefix| path.starts_with(prefix)))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

fn is_read(path: &str) -> bool {
    let texts = [".rs", ".md", ".yaml", ".toml", ".guard", ".py", ".sh", ".ci/run"];
    texts.iter().any(|end| path.ends_with(end)) || (path.starts_with("vectors/") && path.ends_with(".json"))
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Cargo's target folder, wherever the user has it.
pub(crate) fn target() -> Outcome<PathBuf> {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec()?;
    Ok(metadata.target_directory.into_std_path_buf())
}

/// The folder of the dev programs, which is also the folder of this program.
pub(crate) fn programs() -> Outcome<PathBuf> {
    Ok(std::env::current_exe()?.parent().ok_or("cannot find the folder of this program")?.to_owned())
}
