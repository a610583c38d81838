//! Tasks as containers. The runner that `cargo xtask package` built is installed from its image
//! into a volume, and runs inside a tool image that knows nothing of relay.
//!
//! The sandbox knows nothing of containers either. It starts a task's entry point as a program,
//! which here is a script that runs a container with the task's arguments and environment. The tool
//! image is built from the local shell, because no other image is sure to be available.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use crate::kit::deploy::Deploy;
use crate::kit::sandbox::{Options, Sandbox, bin_dir};
use crate::kit::targets::{Head, SHELL, target};
use crate::kit::wait::eventually;

/// The name of the only target.
pub const TARGET: &str = "image/tool";
/// The programs in the tool image.
const PROGRAMS: &[&str] = &["sh", "cat", "dd", "id", "setsid", "sleep", "stat"];
/// The variables that ECS gives to a task's process.
const VARIABLES: &[&str] =
    &["RELAY_CONFIGURATION", "RELAY_REQUEST", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "ECS_CONTAINER_METADATA_URI_V4"];

/// Runs `docker` and returns its stdout. Panics if it fails.
#[track_caller]
pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("docker starts");
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Builds the runner's image from the package in the folder `RELAY_PACKAGE`, which `cargo xtask ci`
/// sets if there is a Docker engine. Without the variable it returns `None`, and says so on stderr.
pub fn runner_image() -> Option<&'static str> {
    static IMAGE: LazyLock<Option<String>> = LazyLock::new(|| {
        let package = std::env::var_os("RELAY_PACKAGE")?;
        let image = Path::new(&package).join("image");
        Some(docker(&["build", "--quiet", "--tag", "relay-tests-runner", image.to_str().expect("a path")]))
    });
    if IMAGE.is_none() {
        // Not by a macro: the test harness captures those, and a skipped test must not look like
        // one that passed.
        let _ = writeln!(std::io::stderr(), "skipped: RELAY_PACKAGE names no output of `cargo xtask package`");
    }
    IMAGE.as_deref()
}

/// A sandbox whose tasks are containers. Dropping it removes them.
#[derive(Debug)]
pub struct Containers {
    sandbox: Arc<Sandbox>,
    label: String,
    /// Declared after the sandbox, so that it is dropped after the sandbox and the containers that
    /// use it.
    _volume: Volume,
    _folder: tempfile::TempDir,
}

/// A volume with the runner in it.
#[derive(Debug)]
struct Volume(String);

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["volume", "rm", "--force", &self.0]).output();
    }
}

impl Containers {
    /// Starts a sandbox whose containers run with these flags of `docker run`, and whose target
    /// runs `sh`. `None` if [`runner_image`] is `None`.
    pub fn start(flags: &[&str], head: &Head) -> Option<Self> {
        Self::with(flags, head, SHELL)
    }

    /// The same, with another body of the target's configuration.
    pub fn with(flags: &[&str], head: &Head, body: &str) -> Option<Self> {
        let runner = runner_image()?;
        let folder = tempfile::Builder::new().prefix("relay-tests-").tempdir().expect("a temporary folder");
        let tool = tool_image();
        let installed = Volume(docker(&["volume", "create"]));
        let volume = &installed.0;
        let label = format!("relay-tests={volume}");
        // As the task definition of a target does it: as root, which owns the volume, but without
        // any of root's capabilities.
        let mount = format!("{volume}:/relay");
        let hardened = ["--user", "0", "--cap-drop", "ALL", "--read-only", "--volume", &mount];
        docker(&[&["run", "--rm"], &hardened[..], &[runner, "install", "/relay"]].concat());
        let programs = folder.path().join("bin");
        fs::create_dir(&programs).expect("a folder");
        symlink(bin_dir().join("bootstrap"), programs.join("bootstrap")).expect("a link");
        let variables: String = VARIABLES.iter().map(|name| format!(" --env {name}")).collect();
        let environment: String = ["PATH", "HOME", "DOCKER_HOST"]
            .iter()
            .filter_map(|name| Some(format!("export {name}='{}'\n", std::env::var(name).ok()?)))
            .collect();
        let script = format!(
            "#!/bin/sh\n{environment}exec docker run --rm --label {label} --network host --read-only \
             --volume {volume}:/relay:ro --entrypoint /relay/relay-runner{variables} {flags} {tool} \"$@\"\n",
            flags = flags.join(" "),
        );
        fs::write(programs.join("relay-runner"), script).expect("a script");
        fs::set_permissions(programs.join("relay-runner"), Permissions::from_mode(0o755)).expect("a mode");
        // Paths inside the container, not on the host.
        let configuration = target(TARGET, head, body).replace("${WORKSPACE}", "/work").replace("${PATH}", "/bin");
        let mut options = Options::default().target(TARGET, configuration);
        options.bin_dir = Some(programs);
        Some(Self { sandbox: Sandbox::start(options), label, _volume: installed, _folder: folder })
    }

    /// The sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// A deployment that runs this script in the tool's image.
    pub fn script(&self, script: &str) -> Deploy {
        self.sandbox.deploy(TARGET).param("script", script)
    }

    /// Waits for the only running container. Returns its id.
    #[track_caller]
    pub fn container(&self) -> String {
        eventually("a container runs", || self.all().first().cloned())
    }

    fn all(&self) -> Vec<String> {
        let ids = docker(&["ps", "--quiet", "--no-trunc", "--filter", &format!("label={}", self.label)]);
        ids.lines().map(str::to_owned).collect()
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for id in self.all() {
            // It may have ended in the meantime.
            let _ = Command::new("docker").args(["rm", "--force", &id]).output();
        }
    }
}

/// Builds an image with the local shell, a few programs and the libraries that they need. It holds
/// nothing else, not even certificates.
fn tool_image() -> &'static str {
    static IMAGE: LazyLock<String> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("root");
        let copy = |from: &Path, to: &Path| {
            fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
            fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        for name in PROGRAMS {
            let program = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
            let program = program.unwrap_or_else(|| panic!("{name} is not on PATH"));
            copy(&program, &root.join("bin").join(name));
            let told = Command::new("ldd").arg(&program).output().expect("ldd starts");
            let told = String::from_utf8_lossy(&told.stdout).into_owned();
            for library in told.split_whitespace().filter_map(|word| word.strip_prefix('/')) {
                copy(&Path::new("/").join(library), &root.join(library));
            }
        }
        fs::write(folder.path().join("Dockerfile"), "FROM scratch\nCOPY root /\n").expect("a file");
        docker(&["build", "--quiet", "--tag", "relay-tests-tool", folder.path().to_str().expect("a path")])
    });
    &IMAGE
}
