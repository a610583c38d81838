//! `release`: the files of a release for one target, made of the package: an archive of the
//! programs with their manual pages and completions, the bill of materials, and the digests of all;
//! for Linux also the launcher's zip, what the two images are built from, and the templates. The
//! release workflow runs this command on a machine of each kind, and publishes what it finds in the
//! folder.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use tar::{Builder, Header};

use crate::Outcome;
use crate::package::{self, copy};
use crate::tree::{root, target};

/// What the archive of the programs holds: what the package has of these, then files of the
/// repository.
const PROGRAMS: &[&str] = &["relay", "relay-admin", "relay.exe", "man", "completions"];
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
    let (packed, out) = (target()?.join("package/release-files"), target()?.join("release-files"));
    for folder in [&packed, &out] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    let (packed, triple) = package::make(&package::Options {
        release: true,
        glibc: options.glibc,
        target: options.target.clone(),
        verify_reproducible: options.verify_reproducible,
        out: Some(packed),
    })?;
    fs::create_dir_all(&out)?;
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
    archive(&programs, &out)?;
    if package::is_linux(&triple) {
        let images = work.join(format!("relay-images-{version}-{arch}"));
        copy_all(&packed.join("image"), &images.join("runner"))?;
        copy_all(&packed.join("cli-image"), &images.join("cli"))?;
        archive(&images, &out)?;
        let templates = work.join(format!("relay-infra-{version}"));
        copy_all(&packed.join("infra"), &templates)?;
        archive(&templates, &out)?;
        copy(&packed.join(package::LAUNCHER), &out.join(format!("relay-launcher-{version}-{arch}.zip")))?;
    }
    copy(&packed.join(package::COMPONENTS), &out.join(format!("relay-{version}-{triple}.cdx.json")))?;
    fs::remove_dir_all(&work)?;
    sums(&out, &triple)
}

/// Packs a folder so that the same files make the same bytes: no times, no owners, one order.
fn archive(folder: &Path, out: &Path) -> Outcome {
    let parent = folder.parent().ok_or("no folder")?;
    let name = folder.file_name().ok_or("no name")?.to_string_lossy();
    let file = fs::File::create(out.join(format!("{name}.tar.gz")))?;
    let mut tar = Builder::new(GzBuilder::new().mtime(0).write(file, Compression::best()));
    let mut files = Vec::new();
    files_below(folder, &mut files)?;
    files.sort_unstable();
    for path in files {
        let bytes = fs::read(&path)?;
        let is_program = path.file_name().is_some_and(|name| package::is_program(&name.to_string_lossy()));
        let mut header = Header::new_gnu();
        header.set_mode(if is_program { 0o755 } else { 0o644 });
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path.strip_prefix(parent)?, bytes.as_slice())?;
    }
    tar.into_inner()?.finish()?;
    Ok(())
}

/// Adds all files below a folder.
fn files_below(folder: &Path, files: &mut Vec<PathBuf>) -> Outcome {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files_below(&path, files)? } else { files.push(path) }
    }
    Ok(())
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
            // Only `relay` is built for Windows, where the program's name has an ending.
            let ending = if program == "relay" { "{ binary-ext }" } else { "" };
            assert!(manifest.contains(&format!("bin-dir = \"{name}/{{ bin }}{ending}\"")), "{folder}");
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
