//! `package`: what a platform team installs, in one folder: static programs, the launcher's zip, the runner's image, the templates,
//! a list of what is inside (CycloneDX), and the digests of it all.
//!
//! Without a flag it takes the dev programs, which are linked statically as well, and strips them: that is what the tests install.
//! `--release` makes what is meant for an account: optimised, on musl, within the size limits. The same source and compiler then make
//! the same bytes, wherever they are: no time and no path of this machine gets in. So a digest can be checked by building again
//! (`--verify-reproducible`), and a launcher that did not change is no change to its stack.
//!
//! The programs are for this machine's architecture. For another one `--target` names it, rustup has its library and a cross compiler
//! is there: `rustup target add aarch64-unknown-linux-musl`, and cargo's variable for its linker.

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
use crate::run::{has_engine, said, succeed};
use crate::tree::root;

type Result<T> = Outcome<T>;

/// Packages and their programs.
const PROGRAMS: &[(&str, &str)] = &[
    ("relay-trigger-cli", "relay"),
    ("relay-admin", "relay-admin"),
    ("relay-runner", "relay-runner"),
    ("relay-launcher", "bootstrap"),
];

const LAUNCHER: &str = "relay-launcher.zip";
const COMPONENTS: &str = "relay.cdx.json";

/// What of `infra/` is installed.
const TEMPLATES: &[&str] = &[
    "foundation.yaml",
    "ci-account.yaml",
    "network.yaml",
    "auditor-policy.json",
    "scp/no-shell.json",
    "scp/protect-relay.json",
];

/// What of a release must not grow beyond this, in bytes: the one is unpacked at each cold start, the other fetched by each CI job.
const LIMITS: &[(&str, u64)] = &[(LAUNCHER, 6_000_000), ("relay", 16_000_000)];

/// Where systems keep the certificates that they trust.
const CERTIFICATES: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// How to make it.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Programs for an account: optimised, on musl, within the size limits.
    #[arg(long)]
    release: bool,
    /// With --release: take glibc, whose programs load an image's own name service modules as root.
    #[arg(long, requires = "release")]
    glibc: bool,
    /// With --release: for another machine than this one.
    #[arg(long, requires = "release", value_name = "TRIPLE", conflicts_with = "glibc")]
    target: Option<String>,
    /// With --release: build again in another folder, and demand the same bytes.
    #[arg(long, requires = "release")]
    verify_reproducible: bool,
    /// Where to put it [default: package/dev or package/release in the target folder].
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// The target of a release: musl's, unless glibc's is asked for. Both make programs that run in any image; but glibc's load the
/// image's own name service modules, where its nsswitch.conf names others than `files` and `dns`.
fn release_target(options: &Options) -> Result<String> {
    if let Some(target) = &options.target {
        return Ok(target.clone());
    }
    let arch = std::env::consts::ARCH;
    if options.glibc {
        return Ok(format!("{arch}-unknown-linux-gnu"));
    }
    let musl = format!("{arch}-unknown-linux-musl");
    let libraries = said(Command::new("rustc").args(["--print", "target-libdir", "--target", &musl]))?;
    if Path::new(&libraries).is_dir() {
        return Ok(musl);
    }
    Err(format!(
        "a release is built on musl, and this toolchain does not have it: rustup target add {musl}; or take --glibc, \
         for a trial"
    )
    .into())
}

/// Makes the folder, and returns its path.
pub(crate) fn run(options: &Options) -> Result<PathBuf> {
    let kind = if options.release { "release" } else { "dev" };
    let out = match &options.out {
        Some(out) => std::path::absolute(out)?,
        None => crate::tree::target()?.join("package").join(kind),
    };
    let (built, target) = if options.release {
        let target = release_target(options)?;
        writeln!(io::stdout(), "{target}: release programs, on {}", libc_name(&target))?;
        let built = build(release_build(&root(), &crate::tree::target()?, &target)?)?;
        if options.verify_reproducible {
            same(&built, &build_elsewhere(&target)?)?;
            writeln!(io::stdout(), "built again in another folder: the same bytes")?;
        }
        (built, target)
    } else {
        let target = crate::run::host()?;
        writeln!(io::stdout(), "{target}: dev programs, on {}, for tests; --release makes others", libc_name(&target))?;
        (build(dev_build())?, target)
    };
    fs::create_dir_all(&out)?;
    for (name, path) in &built.programs {
        copy(path, &out.join(name))?;
        if !options.release {
            succeed(Command::new("strip").arg(out.join(name)))?;
        }
    }
    // Deflating dev programs takes longer than it saves.
    let method = if options.release { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    fs::write(out.join(LAUNCHER), zip(&fs::read(out.join("bootstrap"))?, method)?)?;
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).exec()?;
    let components = components(&metadata, &built, &target)?;
    fs::write(out.join(COMPONENTS), format!("{components:#}\n"))?;
    let mut names: Vec<String> = PROGRAMS.iter().map(|(_, program)| (*program).to_owned()).collect();
    names.extend([LAUNCHER, COMPONENTS].map(str::to_owned));
    for template in TEMPLATES {
        copy(&root().join("infra").join(template), &out.join("infra").join(template))?;
        names.push(format!("infra/{template}"));
    }
    let image = context(&out)?;
    names.sort_unstable();
    let mut sums = String::new();
    for name in &names {
        let bytes = fs::read(out.join(name))?;
        writeln!(io::stdout(), "{:>10} {name}", bytes.len())?;
        sums.push_str(&format!("{}  {name}\n", HEXLOWER.encode(&Sha256::digest(&bytes))));
    }
    fs::write(out.join("SHA256SUMS"), sums)?;
    for (name, limit) in LIMITS.iter().filter(|_| options.release) {
        let size = fs::metadata(out.join(name))?.len();
        if size > *limit {
            return Err(format!("{name} has {size} bytes, {limit} are allowed").into());
        }
    }
    build_image(&image)?;
    writeln!(io::stdout(), "package: {}", out.display())?;
    Ok(out)
}

/// What cargo made.
struct Built {
    /// Paths by name.
    programs: BTreeMap<String, PathBuf>,
    /// Everything that was compiled for the target, so what can be in the programs. What only ran at build time is not among it.
    inside: BTreeSet<PackageId>,
}

/// The dev programs, with the features that the whole workspace resolves to, so that nothing is built twice.
fn dev_build() -> Command {
    let mut command = Command::new("cargo");
    command.args(["build", "--workspace"]).args(PROGRAMS.iter().flat_map(|(_, program)| ["--bin", program]));
    command.current_dir(root());
    command
}

/// Release programs of the sources in `folder`.
fn release_build(folder: &Path, target_folder: &Path, target: &str) -> Result<Command> {
    let folder = folder.canonicalize()?;
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).ok_or("there is no home")?;
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        format!("--remap-path-prefix={}=/target", target_folder.display()),
        format!("--remap-path-prefix={}=/relay", folder.display()),
    ];
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--locked", "--bins", "--target", target, "--target-dir"]);
    command.arg(target_folder.join("package/build"));
    command.args(PROGRAMS.iter().flat_map(|(package, _)| ["--package", package]));
    // Nothing else may add flags: they would be in the bytes.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).current_dir(folder);
    Ok(command)
}

/// Runs a build, and takes from cargo what it made.
fn build(mut command: Command) -> Result<Built> {
    io::stdout().flush()?;
    command.args(["--message-format", "json-render-diagnostics"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut built = Built { programs: BTreeMap::new(), inside: BTreeSet::new() };
    let mut made = Vec::new();
    let told = child.stdout.take().ok_or("cargo has no output")?;
    for message in Message::parse_stream(BufReader::new(told)) {
        let Message::CompilerArtifact(artifact) = message? else { continue };
        if let Some(program) = artifact.executable {
            built.programs.insert(artifact.target.name, program.into_std_path_buf());
        }
        made.push((artifact.package_id, artifact.filenames));
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("cargo build: {status}").into());
    }
    // What was compiled for the target lies below the programs' folder; what only ran at build time does not.
    let here = built.programs.values().next().and_then(|program| program.parent()).ok_or("cargo made no program")?;
    let inside = made.into_iter().filter(|(_, files)| files.iter().any(|file| file.as_std_path().starts_with(here)));
    built.inside = inside.map(|(id, _)| id).collect();
    Ok(built)
}

/// The same sources at another place, with a target folder of their own: whatever of a place gets into the bytes differs then.
fn build_elsewhere(target: &str) -> Result<Built> {
    let elsewhere = crate::tree::target()?.join("package/elsewhere/relay");
    let files = said(Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    for file in files.lines().filter(|file| root().join(file).is_file()) {
        copy(&root().join(file), &elsewhere.join(file))?;
    }
    build(release_build(&elsewhere, &elsewhere.join("target"), target)?)
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
pub(crate) fn zip(bootstrap: &[u8], method: CompressionMethod) -> Result<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(method)
        .compression_level((method == CompressionMethod::Deflated).then_some(9))
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

fn libc_name(target: &str) -> &'static str {
    if target.ends_with("-musl") { "musl" } else { "glibc" }
}

/// The C library that a static program brings along. glibc says in each which one it is.
fn libc(program: &[u8], target: &str) -> Value {
    const BANNER: &[u8] = b"GNU C Library (";
    let name = libc_name(target);
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
    if !has_engine() {
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
        let made = zip(&bytes, CompressionMethod::Deflated).unwrap();
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
