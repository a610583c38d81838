//! `release`: the files of a release for one target, made of the package: an archive of the
//! programs with their manual pages and completions, the launcher's zip, what the two images are
//! built from, the templates, the bill of materials, and the digests of all. The release workflow
//! runs this command on a machine of each architecture, and publishes what it finds in the folder.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::package::{self, copy};
use crate::run::succeed;
use crate::tree::{root, target};

/// What the archive of the programs holds: files of the package, then files of the repository.
const PROGRAMS: &[&str] = &["relay", "relay-admin", "man", "completions"];
const TEXTS: &[&str] = &["LICENSE", "README.md", "CHANGELOG.md"];

/// What to make them for.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Build for this target instead of this machine, on musl.
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// Build on glibc, for a trial without the library of musl.
    #[arg(long, conflicts_with = "target")]
    glibc: bool,
    /// Build again in another folder, and require the same bytes.
    #[arg(long)]
    verify_reproducible: bool,
}

/// Makes the files in `release-files` of the target folder, which is emptied first.
pub(crate) fn run(options: &Options) -> Outcome {
    let (packed, triple) = package::make(&package::Options {
        release: true,
        glibc: options.glibc,
        target: options.target.clone(),
        verify_reproducible: options.verify_reproducible,
        out: None,
    })?;
    let out = target()?.join("release-files");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    let work = out.join("work");
    let version = env!("CARGO_PKG_VERSION");
    let arch = triple.split('-').next().unwrap_or_default();

    let programs = work.join(format!("relay-{version}-{triple}"));
    for name in PROGRAMS.iter().filter(|name| packed.join(name).exists()) {
        copy_all(&packed.join(name), &programs.join(name))?;
    }
    for name in TEXTS {
        copy(&root().join(name), &programs.join(name))?;
    }
    let images = work.join(format!("relay-images-{version}-{arch}"));
    copy_all(&packed.join("image"), &images.join("runner"))?;
    copy_all(&packed.join("cli-image"), &images.join("cli"))?;
    let templates = work.join(format!("relay-infra-{version}"));
    copy_all(&packed.join("infra"), &templates)?;
    for folder in [&programs, &images, &templates] {
        archive(folder, &out)?;
    }
    copy(&packed.join(package::LAUNCHER), &out.join(format!("relay-launcher-{version}-{arch}.zip")))?;
    copy(&packed.join(package::COMPONENTS), &out.join(format!("relay-{version}-{triple}.cdx.json")))?;
    fs::remove_dir_all(&work)?;
    sums(&out, &triple)
}

/// Packs a folder so that the same files make the same bytes: no times, no owners, one order.
fn archive(folder: &Path, out: &Path) -> Outcome {
    let name = folder.file_name().ok_or("no name")?;
    let file = out.join(format!("{}.tar.gz", name.to_string_lossy()));
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--mode=u+rw,go+r"]);
    command.args(["--use-compress-program", "gzip -n9", "--create", "--file"]).arg(file);
    succeed(command.arg("--directory").arg(folder.parent().ok_or("no folder")?).arg(name))
}

/// Copies a file, or a folder with all that is in it.
fn copy_all(from: &Path, to: &Path) -> Outcome {
    if !from.is_dir() {
        return copy(from, to);
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Writes the digests of all files beside them.
fn sums(out: &Path, triple: &str) -> Outcome {
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names = fs::read_dir(out)?.map(|entry| Ok(name(entry?))).collect::<io::Result<Vec<String>>>()?;
    names.sort_unstable();
    fs::write(out.join(format!("SHA256SUMS-{triple}")), package::sums(out, &names)?)?;
    Ok(writeln!(io::stdout(), "release: {}", out.display())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binstall_finds_the_programs_in_the_archive() {
        for (folder, program) in [("trigger-cli", "relay"), ("admin", "relay-admin")] {
            let manifest = fs::read_to_string(root().join("crates").join(folder).join("Cargo.toml")).unwrap();
            let name = format!("relay-{}-{}", "{ version }", "{ target }");
            assert!(manifest.contains(&format!("/v{{ version }}/{name}.tar.gz\"")), "{folder}");
            assert!(manifest.contains(&format!("bin-dir = \"{name}/{{ bin }}\"")), "{folder}");
            assert!(PROGRAMS.contains(&program) && manifest.contains(&format!("name = \"{program}\"")), "{program}");
        }
    }

    #[test]
    fn the_same_files_make_the_same_archive() {
        let folder = std::env::temp_dir().join(format!("relay-release-{}", std::process::id()));
        let made = |name: &str| {
            let (files, out) = (folder.join(name).join("relay-1"), folder.join(name));
            fs::create_dir_all(files.join("man")).unwrap();
            fs::write(files.join("relay"), "a program").unwrap();
            fs::write(files.join("man/relay.1"), "a page").unwrap();
            copy_all(&files, &out.join("copy/relay-1")).unwrap();
            archive(&out.join("copy/relay-1"), &out).unwrap();
            fs::read(out.join("relay-1.tar.gz")).unwrap()
        };
        assert_eq!(made("one"), made("two"));
        fs::remove_dir_all(folder).unwrap();
    }
}
