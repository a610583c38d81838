//! The image of all tasks on ministack: the runner and a shell.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use relay_tests::emulator::{Outcome, wait_for};
use serde_json::json;

use crate::accounts::{LIMIT, docker, named, said};

/// The repository that configurations and flags name, as there is no registry.
pub(crate) const REPOSITORY: &str = "none/shop";

/// The programs that the image contains beside the runner.
const PROGRAMS: &[&str] = &["sh", "cat", "echo", "head", "sleep"];

/// The entry point's script. A task's command begins `RUNNER run --target TARGET`, and its session
/// is served under the target's name.
const ENTRY: &str = "export AWS_CONTAINER_CREDENTIALS_FULL_URI=\"http://$0/${4:-none}/credentials.json\"; exec \"$@\"";

/// The name of this run's image. Dropping the value removes the image and its containers.
pub(crate) struct Image {
    pub(crate) name: String,
    /// The image's id, `sha256:…`.
    pub(crate) id: String,
}

impl Image {
    /// Builds the image in `folder` from the package's runner. `files` is the address of the file
    /// server for sessions.
    pub(crate) fn make(folder: &Path, package: &Path, files: &str) -> Outcome<Self> {
        let root = folder.join("root");
        let mut needed = BTreeSet::from([(package.join("image/relay-runner"), PathBuf::from("relay/relay-runner"))]);
        let certificates = "ca-certificates.crt";
        needed.insert((package.join("image").join(certificates), Path::new("etc/ssl/certs").join(certificates)));
        for name in PROGRAMS {
            // Not `command -v`, which names a builtin of the shell without a path.
            let path = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(name));
            let path = path.into_iter().find(|path| path.exists()).ok_or_else(|| format!("there is no {name}"))?;
            let libraries = said(Command::new("ldd").arg(&path))?;
            needed.extend(
                libraries
                    .split_whitespace()
                    .filter(|word| word.starts_with('/'))
                    .map(|word| (PathBuf::from(word), PathBuf::from(word.trim_start_matches('/')))),
            );
            needed.insert((path, Path::new("bin").join(name)));
        }
        for (from, to) in needed {
            let to = root.join(to);
            fs::create_dir_all(to.parent().ok_or("no folder")?).map_err(named(to.display()))?;
            fs::copy(&from, &to).map_err(named(from.display()))?;
        }
        let entry_point = json!(["/bin/sh", "-c", ENTRY, files]);
        let lines = format!("FROM scratch\nCOPY root /\nWORKDIR /work\nUSER 0\nENTRYPOINT {entry_point}\n");
        fs::write(folder.join("Dockerfile"), lines).map_err(named("Dockerfile"))?;
        let mut image = Self { name: format!("relay-third-party-{}:tasks", std::process::id()), id: String::new() };
        image.id = docker(&["build", "--quiet", "--tag", &image.name, &folder.display().to_string()])?;
        Ok(image)
    }

    /// The image as a configuration names it.
    pub(crate) fn named(&self) -> String {
        format!("{REPOSITORY}@{}", self.id)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let gone = wait_for("the containers to be gone", LIMIT, || {
            let left = docker(&["ps", "--all", "--quiet", "--filter", &format!("ancestor={}", self.name)])?;
            for id in left.lines() {
                // ministack removes the containers too, so this may fail.
                let _ = docker(&["rm", "--force", id]);
            }
            Ok(left.is_empty().then_some(()))
        });
        if let Err(error) = gone.and_then(|()| docker(&["rmi", "--force", &self.name])) {
            eprintln!("cannot clean up: {error}");
        }
    }
}
