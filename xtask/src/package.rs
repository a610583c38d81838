//! `package`: everything that a platform team installs, in one folder: static programs, the
//! launcher's zip, the runner's image, the templates, a bill of materials (CycloneDX), and the
//! digests of all files. Without a flag it takes the dev programs, which are also statically
//! linked, and strips them; the tests install these. `--release` makes programs for an account:
//! optimised, on musl, within the size limits.

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
use crate::run::{cargo_command, has_engine, said, succeed};
use crate::tree::root;

type Result<T> = Outcome<T>;

/// The packages and their programs, with the command lines first.
const PROGRAMS: &[(&str, &str)] = &[
    ("relay-trigger-cli", "relay"),
    ("relay-admin", "relay-admin"),
    ("relay-runner", "relay-runner"),
    ("relay-launcher", "bootstrap"),
];

/// What a target gets: Linux everything, macOS both command lines, Windows `relay` alone.
pub(crate) fn programs(target: &str) -> &'static [(&'static str, &'static str)] {
    match target {
        _ if is_linux(target) => PROGRAMS,
        _ if target.contains("windows") => &PROGRAMS[..1],
        _ => &PROGRAMS[..2],
    }
}

/// Whether a file of this name is a program.
pub(crate) fn is_program(name: &str) -> bool {
    PROGRAMS.iter().any(|(_, program)| *program == name.trim_end_matches(".exe"))
}

/// Whether a target gets what is installed in accounts, beside programs for people and CI.
pub(crate) fn is_linux(target: &str) -> bool {
    target.contains("linux")
}

pub(crate) const LAUNCHER: &str = "relay-launcher.zip";
pub(crate) const COMPONENTS: &str = "relay.cdx.json";

/// The files of `infra/` that are installed.
const TEMPLATES: &[&str] = &[
    "foundation.yaml",
    "ci-account.yaml",
    "ci-pipeline.yaml",
    "network.yaml",
    "managed-instances.yaml",
    "governance.yaml",
    "approver-policy.json",
    "auditor-policy.json",
    "scp/no-shell.json",
    "scp/protect-evidence.json",
    "scp/protect-relay.json",
];

/// Size limits of a release, in bytes. The launcher is unpacked at each cold start, and each CI job
/// fetches `relay`.
const LIMITS: &[(&str, u64)] = &[(LAUNCHER, 6_000_000), ("relay", 16_000_000)];

/// The programs with a command line, and the shells that get completions, with the names of the
/// files that these shells look for.
const COMMAND_LINES: &[&str] = &["relay", "relay-admin"];
const SHELLS: &[(&str, &str, &str)] = &[("bash", "", ".bash"), ("zsh", "_", ""), ("fish", "", ".fish")];

/// The files in which systems keep their trusted certificates.
const CERTIFICATES: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// How to make the package.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Make programs for an account: optimised, on musl, within the size limits.
    #[arg(long)]
    pub(crate) release: bool,
    /// With --release: use glibc, whose programs load an image's own name service modules as root.
    #[arg(long, requires = "release")]
    pub(crate) glibc: bool,
    /// With --release: build for this target instead of this machine.
    #[arg(long, requires = "release", value_name = "TRIPLE", conflicts_with = "glibc")]
    pub(crate) target: Option<String>,
    /// With --release: build again in another folder, and require the same bytes.
    #[arg(long, requires = "release")]
    pub(crate) verify_reproducible: bool,
    /// Where to put the package [default: package/dev or package/release in the target folder].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
}

/// The target of a release: musl, unless glibc is requested. Programs of both run in any image. But
/// those on glibc load the image's own name service modules, if its nsswitch.conf names others than
/// `files` and `dns`.
///
/// The programs are for this machine's architecture, unless `--target` names another one. That
/// needs rustup's library for the target (`rustup target add aarch64-unknown-linux-musl`), a cross
/// compiler, and cargo's variable for the linker.
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
        "a release is built on musl, which this toolchain does not have: rustup target add {musl}; or pass --glibc for \
         a trial"
    )
    .into())
}

/// Writes the manual pages and the completions. Returns the names of the files. Programs for
/// another machine cannot be asked for theirs.
fn manuals(out: &Path, target: &str) -> Result<Vec<String>> {
    let host = crate::run::host()?;
    if target.split('-').next() != host.split('-').next() || programs(target) != programs(&host) {
        writeln!(io::stdout(), "no manual pages and completions: the programs do not run here")?;
        return Ok(Vec::new());
    }
    let (man, completions) = (out.join("man"), out.join("completions"));
    fs::create_dir_all(&completions)?;
    let mut names = Vec::new();
    let shipped = programs(target).iter().map(|(_, program)| program);
    for program in shipped.filter(|program| COMMAND_LINES.contains(program)) {
        succeed(Command::new(out.join(program)).arg("man").arg(&man))?;
        for (shell, before, after) in SHELLS {
            let text = said(Command::new(out.join(program)).args(["completions", shell]))?;
            let name = format!("{before}{program}{after}");
            fs::write(completions.join(&name), text)?;
            names.push(format!("completions/{name}"));
        }
    }
    for page in fs::read_dir(man)? {
        names.push(format!("man/{}", page?.file_name().to_string_lossy()));
    }
    Ok(names)
}

/// Makes the package and returns the path of its folder.
pub(crate) fn run(options: &Options) -> Result<PathBuf> {
    make(options).map(|(out, _)| out)
}

/// Makes the package; returns the path of its folder, and the target of the programs.
pub(crate) fn make(options: &Options) -> Result<(PathBuf, String)> {
    let kind = if options.release { "release" } else { "dev" };
    let out = match &options.out {
        Some(out) => std::path::absolute(out)?,
        None => crate::tree::target()?.join("package").join(kind),
    };
    let (built, target) = if options.release {
        let target = release_target(options)?;
        writeln!(io::stdout(), "{target}: release programs")?;
        let built = build(release_build(&root(), &crate::tree::target()?, &target)?)?;
        if options.verify_reproducible {
            same(&built, &build_elsewhere(&target)?)?;
            writeln!(io::stdout(), "a second build in another folder has the same bytes")?;
        }
        (built, target)
    } else {
        let target = crate::run::host()?;
        writeln!(
            io::stdout(),
            "{target}: dev programs, on {}, for tests; --release builds the others",
            libc_name(&target)
        )?;
        (build(dev_build())?, target)
    };
    fs::create_dir_all(&out)?;
    let mut names = vec![COMPONENTS.to_owned()];
    for path in built.programs.values() {
        let name = path.file_name().ok_or("a program has no name")?.to_string_lossy().into_owned();
        copy(path, &out.join(&name))?;
        if !options.release {
            succeed(Command::new("strip").arg(out.join(&name)))?;
        }
        names.push(name);
    }
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).exec()?;
    let components = components(&metadata, &built, &target)?;
    fs::write(out.join(COMPONENTS), format!("{components:#}\n"))?;
    names.extend(manuals(&out, &target)?);
    if is_linux(&target) {
        names.extend(installation(&out, options)?);
    }
    names.sort_unstable();
    fs::write(out.join("SHA256SUMS"), sums(&out, &names)?)?;
    for (name, limit) in LIMITS.iter().filter(|(name, _)| options.release && out.join(name).exists()) {
        let size = fs::metadata(out.join(name))?.len();
        if size > *limit {
            return Err(format!("{name} is {size} bytes; the limit is {limit}").into());
        }
    }
    writeln!(io::stdout(), "package: {}", out.display())?;
    Ok((out, target))
}

/// Adds what is installed in accounts: the launcher's zip, the templates, and the images, of which
/// it builds the runner's. Returns the names of the files.
fn installation(out: &Path, options: &Options) -> Result<Vec<String>> {
    // Deflating dev programs takes longer than it saves.
    let method = if options.release { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    fs::write(out.join(LAUNCHER), zip(&fs::read(out.join("bootstrap"))?, method)?)?;
    let mut names = vec![LAUNCHER.to_owned()];
    for template in TEMPLATES {
        copy(&root().join("infra").join(template), &out.join("infra").join(template))?;
        names.push(format!("infra/{template}"));
    }
    let runner = context(out, "image", "infra/runner/Dockerfile", "relay-runner")?;
    context(out, "cli-image", "infra/cli/Dockerfile", "relay")?;
    build_image(&runner)?;
    Ok(names)
}

/// The digests of files of a folder, as `sha256sum` writes them. Prints each name with its size.
pub(crate) fn sums(folder: &Path, names: &[String]) -> Result<String> {
    let mut sums = String::new();
    for name in names {
        let bytes = fs::read(folder.join(name))?;
        writeln!(io::stdout(), "{:>10} {name}", bytes.len())?;
        sums.push_str(&format!("{}  {name}\n", HEXLOWER.encode(&Sha256::digest(&bytes))));
    }
    Ok(sums)
}

/// The result of a cargo build.
struct Built {
    /// The paths of the programs by name.
    programs: BTreeMap<String, PathBuf>,
    /// The packages that were compiled for the target, and so may be in the programs. Packages that
    /// only ran at build time are excluded.
    inside: BTreeSet<PackageId>,
}

/// Builds the dev programs with the features of the whole workspace, so that nothing is built
/// twice.
fn dev_build() -> Command {
    let mut command = cargo_command();
    command.args(["build", "--workspace"]).args(PROGRAMS.iter().flat_map(|(_, program)| ["--bin", program]));
    command.current_dir(root());
    command
}

/// Builds release programs from the sources in `folder`.
///
/// The same source and compiler make the same bytes anywhere, as no time and no local path gets in.
/// So a digest can be checked by building again (`--verify-reproducible`), and an unchanged
/// launcher does not change its stack.
fn release_build(folder: &Path, target_folder: &Path, target: &str) -> Result<Command> {
    let folder = folder.canonicalize()?;
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).ok_or("HOME is not set")?;
    let mut flags = vec![
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        format!("--remap-path-prefix={}=/target", target_folder.display()),
        format!("--remap-path-prefix={}=/relay", folder.display()),
    ];
    // Every program of macOS loads the system's library.
    if !target.contains("apple") {
        flags.push("-Ctarget-feature=+crt-static".to_owned());
    }
    let mut command = cargo_command();
    command.args(["build", "--release", "--locked", "--bins", "--target", target, "--target-dir"]);
    command.arg(target_folder.join("package/build"));
    command.args(programs(target).iter().flat_map(|(package, _)| ["--package", package]));
    // Other flags would change the bytes, so nothing else may add any.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).current_dir(folder);
    match commit() {
        Some(commit) => command.env("RELAY_COMMIT", commit),
        None => command.env_remove("RELAY_COMMIT"),
    };
    Ok(command)
}

/// The commit that `--version` of relay and relay-admin names; `None` outside of a repository.
fn commit() -> Option<String> {
    let head = said(Command::new("git").args(["rev-parse", "--short=12", "HEAD"])).ok()?;
    let changes = said(Command::new("git").args(["status", "--porcelain"])).ok()?;
    Some(format!("{}{}", head.trim(), if changes.trim().is_empty() { "" } else { " with changes" }))
}

/// Runs a build and reads from cargo's messages what it made.
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
    // Files that were compiled for the target are below the programs' folder. Files that only ran
    // at build time are not.
    let here = built.programs.values().next().and_then(|program| program.parent()).ok_or("cargo built no program")?;
    let inside = made.into_iter().filter(|(_, files)| files.iter().any(|file| file.as_std_path().starts_with(here)));
    built.inside = inside.map(|(id, _)| id).collect();
    Ok(built)
}

/// Builds the same sources in another folder with its own target folder, so that every path that
/// gets into the bytes differs.
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

/// The level at which the zip is packed: zopfli with its own default of 15 iterations, which takes
/// half a minute and saves a few percent.
const ZOPFLI: i64 = 24;

/// A zip with one file, executable by all and without a time stamp, as Lambda requires.
pub(crate) fn zip(bootstrap: &[u8], method: CompressionMethod) -> Result<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(method)
        .compression_level((method == CompressionMethod::Deflated).then_some(ZOPFLI))
        .last_modified_time(DateTime::default())
        .unix_permissions(0o755);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("bootstrap", options)?;
    zip.write_all(bootstrap)?;
    Ok(zip.finish()?.into_inner())
}

/// The contents of the programs, as a CycloneDX document.
fn components(metadata: &Metadata, built: &Built, target: &str) -> Result<Value> {
    let lock: toml::Table = fs::read_to_string(root().join("Cargo.lock"))?.parse()?;
    let text = |table: &toml::Value, name: &str| table.get(name).and_then(toml::Value::as_str).map(str::to_owned);
    let locked = lock.get("package").and_then(toml::Value::as_array).ok_or("Cargo.lock has no packages")?;
    let checksums: BTreeMap<(Option<String>, Option<String>), String> = locked
        .iter()
        .filter_map(|package| Some(((text(package, "name"), text(package, "version")), text(package, "checksum")?)))
        .collect();
    let compiler = said(Command::new("rustc").arg("--version"))?;
    let mut components = vec![json!({"type": "library", "name": "rust-std", "version": compiler.split(' ').nth(1)})];
    if let Some(runner) = built.programs.get("relay-runner") {
        components.push(libc(&fs::read(runner)?, target));
    }
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

/// The C library that a static program contains. A banner in glibc gives the version.
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

/// The folder from which an image is built, here or on another machine that has an engine.
fn context(out: &Path, name: &str, dockerfile: &str, program: &str) -> Result<PathBuf> {
    let image = out.join(name);
    copy(&root().join(dockerfile), &image.join("Dockerfile"))?;
    copy(&out.join(program), &image.join(program))?;
    let certificates = CERTIFICATES.iter().map(Path::new).find(|path| path.is_file());
    copy(
        certificates.ok_or("this system has no CA certificates: install the package ca-certificates")?,
        &image.join("ca-certificates.crt"),
    )?;
    Ok(image)
}

fn build_image(folder: &Path) -> Outcome {
    if !has_engine() {
        writeln!(
            io::stdout(),
            "skipped: the runner's image (no Docker engine); to build it elsewhere: docker build {}",
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

/// Copies a file with its permissions and creates missing folders. An existing file is replaced,
/// not overwritten, as it may be running.
pub(crate) fn copy(from: &Path, to: &Path) -> Outcome {
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
