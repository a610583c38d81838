//! `package`: what a platform team installs, in one folder. Static programs, the launcher's zip, the runner's image, a list of what is inside
//! (CycloneDX), and the digests of it all.
//!
//! The same source and compiler make the same bytes, wherever they are: no time and no path of this machine gets in. So a digest can be checked
//! by building again, and a launcher that did not change is no change to its stack.
//!
//! The programs are for this machine's architecture. For another one `--target` names it, rustup has its library and a cross compiler is there:
//! `rustup target add aarch64-unknown-linux-gnu`, Debian's `gcc-aarch64-linux-gnu`, and cargo's variable for its linker,
//! `CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc`. On an arm64 machine none of this is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufReader, Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::{Message, Metadata, MetadataCommand, PackageId};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::Outcome;
use crate::tree::root;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Packages and their programs.
const PROGRAMS: &[(&str, &str)] = &[
    ("relay-trigger-cli", "relay"),
    ("relay-admin", "relay-admin"),
    ("relay-runner", "relay-runner"),
    ("relay-launcher", "bootstrap"),
];

const LAUNCHER: &str = "relay-launcher.zip";
const COMPONENTS: &str = "relay.cdx.json";

/// What must not grow beyond this, in bytes: the one is unpacked at each cold start, the other fetched by each CI job.
const LIMITS: &[(&str, u64)] = &[(LAUNCHER, 6_000_000), ("relay", 16_000_000)];

/// Where systems keep the certificates that they trust.
const CERTIFICATES: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// How to make it.
pub(crate) struct Options {
    out: PathBuf,
    target: String,
    verify: bool,
}

impl Options {
    /// From the command line: `[--out FOLDER] [--target TRIPLE] [--verify-reproducible]`.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self { out: root().join("target/package"), target: String::new(), verify: false };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{argument} wants a value"));
            match *argument {
                "--out" => options.out = std::path::absolute(value()?)?,
                "--target" => options.target = (*value()?).to_owned(),
                "--verify-reproducible" => options.verify = true,
                _ => return Err(format!("`package` does not know {argument}").into()),
            }
        }
        if options.target.is_empty() {
            options.target = default_target()?;
        }
        Ok(options)
    }
}

/// musl's where this toolchain has it, else glibc's, which the compiler always has. Both make a program that runs in any image; but glibc's still
/// loads the image's own name service modules, where its nsswitch.conf names others than `files` and `dns`.
fn default_target() -> Result<String> {
    let musl = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let libraries = said(Command::new("rustc").args(["--print", "target-libdir", "--target", &musl]))?;
    Ok(if Path::new(&libraries).is_dir() { musl } else { musl.replace("musl", "gnu") })
}

/// Makes the folder.
pub(crate) fn run(options: &Options) -> Outcome {
    let Options { out, target, verify } = options;
    writeln!(io::stdout(), "{target}: static programs")?;
    let built = build(&root(), target)?;
    if *verify {
        same(&built, &build_elsewhere(target)?)?;
        writeln!(io::stdout(), "built again in another folder: the same bytes")?;
    }
    fs::create_dir_all(out)?;
    for (name, path) in &built.programs {
        copy(path, &out.join(name))?;
    }
    fs::write(out.join(LAUNCHER), zip(&fs::read(out.join("bootstrap"))?)?)?;
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).exec()?;
    let components = components(&metadata, &built, target)?;
    fs::write(out.join(COMPONENTS), format!("{components:#}\n"))?;
    let image = context(out)?;
    let mut names: Vec<&str> = PROGRAMS.iter().map(|(_, program)| *program).collect();
    names.extend([LAUNCHER, COMPONENTS]);
    names.sort_unstable();
    let mut sums = String::new();
    for name in names {
        let bytes = fs::read(out.join(name))?;
        writeln!(io::stdout(), "{:>10} {name}", bytes.len())?;
        sums.push_str(&format!("{}  {name}\n", HEXLOWER.encode(&Sha256::digest(&bytes))));
    }
    fs::write(out.join("SHA256SUMS"), sums)?;
    for (name, limit) in LIMITS {
        let size = fs::metadata(out.join(name))?.len();
        if size > *limit {
            return Err(format!("{name} has {size} bytes, {limit} are allowed").into());
        }
    }
    build_image(&image)
}

/// What cargo made.
struct Built {
    /// Paths by name.
    programs: BTreeMap<String, PathBuf>,
    /// Everything that was compiled for the target, so what can be in the programs. What only ran at build time is not among it.
    inside: BTreeSet<PackageId>,
}

/// Builds the programs of the workspace in `folder`, in its own target folder.
fn build(folder: &Path, target: &str) -> Result<Built> {
    let folder = folder.canonicalize()?;
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).ok_or("there is no home")?;
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        format!("--remap-path-prefix={}=/relay", folder.display()),
    ];
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--locked", "--bins", "--target", target]);
    command.args(["--message-format", "json-render-diagnostics", "--target-dir"]).arg(folder.join("target"));
    command.args(PROGRAMS.iter().flat_map(|(package, _)| ["--package", package]));
    // Nothing else may add flags: they would be in the bytes.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    io::stdout().flush()?;
    let mut child = command.current_dir(&folder).stdout(Stdio::piped()).spawn()?;
    let mut built = Built { programs: BTreeMap::new(), inside: BTreeSet::new() };
    let here = folder.join("target").join(target);
    let told = child.stdout.take().ok_or("cargo has no output")?;
    for message in Message::parse_stream(BufReader::new(told)) {
        let Message::CompilerArtifact(artifact) = message? else { continue };
        if artifact.filenames.iter().any(|file| file.as_std_path().starts_with(&here)) {
            built.inside.insert(artifact.package_id);
        }
        if let Some(program) = artifact.executable {
            built.programs.insert(artifact.target.name, program.into_std_path_buf());
        }
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("cargo build: {status}").into());
    }
    Ok(built)
}

/// The same sources at another place, with a target folder of their own: whatever of a place gets into the bytes differs then.
fn build_elsewhere(target: &str) -> Result<Built> {
    let elsewhere = root().join("target/package-elsewhere/relay");
    let files = said(Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    for file in files.lines().filter(|file| root().join(file).is_file()) {
        copy(&root().join(file), &elsewhere.join(file))?;
    }
    build(&elsewhere, target)
}

fn same(first: &Built, second: &Built) -> Outcome {
    for (name, path) in &first.programs {
        let again = second.programs.get(name).ok_or_else(|| format!("{name} was not built again"))?;
        if fs::read(path)? != fs::read(again)? {
            return Err(format!("{name} differs: compare {} and {}", path.display(), again.display()).into());
        }
    }
    Ok(())
}

/// One file in a zip, with no time of its own, executable by all: what Lambda wants.
pub(crate) fn zip(bootstrap: &[u8]) -> Result<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(9))
        .last_modified_time(DateTime::default())
        .unix_permissions(0o755);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("bootstrap", options)?;
    zip.write_all(bootstrap)?;
    Ok(zip.finish()?.into_inner())
}

/// What is in the programs, as CycloneDX says it.
fn components(metadata: &Metadata, built: &Built, target: &str) -> Result<Value> {
    let lock: toml::Table = fs::read_to_string(root().join("Cargo.lock"))?.parse()?;
    let text = |table: &toml::Value, name: &str| table.get(name).and_then(toml::Value::as_str).map(str::to_owned);
    let locked = lock.get("package").and_then(toml::Value::as_array).ok_or("Cargo.lock has no packages")?;
    let checksums: BTreeMap<(Option<String>, Option<String>), String> = locked
        .iter()
        .filter_map(|package| Some(((text(package, "name"), text(package, "version")), text(package, "checksum")?)))
        .collect();
    let compiler = said(Command::new("rustc").arg("--version"))?;
    let runner = fs::read(built.programs.get("relay-runner").ok_or("there is no relay-runner")?)?;
    let mut components = vec![
        json!({"type": "library", "name": "rust-std", "version": compiler.split(' ').nth(1)}),
        libc(&runner, target),
    ];
    let mut dependencies = Vec::new();
    let resolve = metadata.resolve.as_ref().ok_or("cargo metadata did not resolve the dependencies")?;
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let purl = |id: &PackageId| {
        let package = metadata.packages.iter().find(|package| package.id == *id);
        package.map(|package| format!("pkg:cargo/{}@{}", package.name, package.version))
    };
    for package in metadata.packages.iter().filter(|package| built.inside.contains(&package.id)) {
        let (name, version, purl_of_it) = (package.name.to_string(), package.version.to_string(), purl(&package.id));
        let mut component =
            json!({"type": "library", "bom-ref": purl_of_it, "name": name, "version": version, "purl": purl_of_it});
        if let Some(license) = &package.license {
            // Old crates write a slash where SPDX has OR.
            component["licenses"] = json!([{"expression": license.replace(" / ", " OR ").replace('/', " OR ")}]);
        }
        if let Some(checksum) = checksums.get(&(Some(name), Some(version))) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
        }
        components.push(component);
        let on = nodes.get(&package.id).into_iter().flat_map(|node| &node.dependencies);
        let on: BTreeSet<_> = on.filter(|id| built.inside.contains(*id)).filter_map(purl).collect();
        dependencies.push(json!({"ref": purl_of_it, "dependsOn": on}));
    }
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "name": "relay", "version": env!("CARGO_PKG_VERSION")},
            "properties": [{"name": "relay:target", "value": target}],
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// The C library that a static program brings along. glibc says in each which one it is.
fn libc(program: &[u8], target: &str) -> Value {
    const BANNER: &[u8] = b"GNU C Library (";
    let name = if target.ends_with("-musl") { "musl" } else { "glibc" };
    let after = program.windows(BANNER.len()).position(|window| window == BANNER).map(|at| at + BANNER.len());
    let version = after.and_then(|at| program.get(at..)?.split(|byte| *byte == b')').next());
    match version.map(String::from_utf8_lossy) {
        Some(version) => json!({"type": "library", "name": name, "version": version}),
        None => json!({"type": "library", "name": name}),
    }
}

/// The folder from which the image is built, on this machine or on another that has an engine.
fn context(out: &Path) -> Result<PathBuf> {
    let image = out.join("image");
    copy(&root().join("infra/runner/Dockerfile"), &image.join("Dockerfile"))?;
    copy(&out.join("relay-runner"), &image.join("relay-runner"))?;
    let certificates = CERTIFICATES.iter().map(Path::new).find(|path| path.is_file());
    copy(
        certificates.ok_or("this system has no file of certificates (package ca-certificates)")?,
        &image.join("ca-certificates.crt"),
    )?;
    Ok(image)
}

fn build_image(folder: &Path) -> Outcome {
    let engine = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    if !engine.is_ok_and(|output| output.status.success()) {
        writeln!(
            io::stdout(),
            "skipped: the runner's image (no Docker engine); elsewhere: docker build {}",
            folder.display()
        )?;
        return Ok(());
    }
    let version = env!("CARGO_PKG_VERSION");
    let tag = format!("relay-runner:{version}");
    let id = said(
        Command::new("docker")
            .args(["build", "--quiet", "--build-arg", &format!("VERSION={version}"), "--tag", &tag])
            .arg(folder),
    )?;
    writeln!(io::stdout(), "{tag} is {id}")?;
    Ok(())
}

/// A command's standard output, without the end of its line; what it says on stderr is told only when it fails.
fn said(command: &mut Command) -> Result<String> {
    let output = command.current_dir(root()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// Copies with permissions, folders made as needed. What is there is replaced, not written into: it may be running.
fn copy(from: &Path, to: &Path) -> Outcome {
    let named = |error: io::Error| format!("{} to {}: {error}", from.display(), to.display());
    fs::create_dir_all(to.parent().ok_or("no folder")?).map_err(named)?;
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error).into()),
        _ => {}
    }
    fs::copy(from, to).map_err(named)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zip_is_made_of_the_bytes_alone() {
        let bytes = b"a program".repeat(1_000);
        let made = zip(&bytes).unwrap();
        let mut read = zip::ZipArchive::new(Cursor::new(&made)).unwrap();
        assert_eq!(read.len(), 1);
        let mut bootstrap = read.by_name("bootstrap").unwrap();
        assert_eq!(bootstrap.unix_mode(), Some(0o100_755));
        assert_eq!(bootstrap.last_modified(), Some(DateTime::default()), "a time would differ from build to build");
        let mut unpacked = Vec::new();
        io::copy(&mut bootstrap, &mut unpacked).unwrap();
        assert_eq!(unpacked, bytes);
    }

    #[test]
    fn the_c_library_is_named_as_the_program_names_it() {
        let program = b"\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\0";
        let glibc = json!({"type": "library", "name": "glibc", "version": "Debian GLIBC 2.36-9"});
        assert_eq!(libc(program, "x86_64-unknown-linux-gnu"), glibc);
        assert_eq!(libc(b"", "x86_64-unknown-linux-musl"), json!({"type": "library", "name": "musl"}));
    }
}
