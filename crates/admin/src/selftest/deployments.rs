//! Real deployments: `relay deploy` with the session of CI's role, against the installed stacks.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use relay_protocol::{Digest, TargetName};
use serde_json::{Value, json};

use super::trial::{Outcome, Problem, Trial, Verdict};

/// The target that the self-test installs.
pub(crate) const TARGET: &str = "selftest/shell";

/// What one deployment may take; starting a task takes about a minute on Fargate.
const PATIENCE: Duration = Duration::from_secs(600);

/// Output of the big deployment, in bytes.
const BIG: usize = 32 << 20;

/// Seconds that the step may run.
const STEP: u32 = 60;

/// The configuration of the target, without what depends on the accounts.
pub(crate) fn steps() -> String {
    let script = format!(
        "case \"$1\" in succeed) echo out; echo err >&2 ;; fail) exit 37 ;; \
         big) head -c {BIG} /dev/zero ;; wait) echo waiting; sleep 250 ;; esac"
    );
    format!(
        "timeout = \"{STEP}s\"\ncancel = {{ signal = \"TERM\", grace = \"10s\" }}\n\
         policy = '''permit(principal in Group::\"ci\", action, resource);'''\n\n\
         [environment]\nPATH = \"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"\n\n\
         [parameters]\ncase = {{ pattern = \"succeed|fail|big|wait\" }}\n\n\
         [[steps]]\nname = \"case\"\nrun = [\"sh\", \"-c\", {}, \"sh\", \"{{case}}\"]\n",
        json!(script)
    )
}

/// A `relay deploy` that runs. Dropping it kills it.
struct Deploying {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Deploying {
    fn drop(&mut self) {
        // In most cases it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A deployment that has ended.
struct Ended {
    code: Option<i32>,
    result: Value,
    folder: tempfile::TempDir,
}

impl Ended {
    fn stdout(&self) -> Result<Vec<u8>, Problem> {
        Ok(fs::read(self.folder.path().join("stdout"))?)
    }

    /// How long each phase took.
    fn phases(&self) -> String {
        let at = |name: &str| self.result["milliseconds"][name].as_f64().map(|ms| ms / 1_000.0);
        let names = ["published", "admitted", "started", "finished"];
        let known = names.iter().filter_map(|name| Some(format!("{name} after {:.1} s", at(name)?)));
        known.collect::<Vec<_>>().join(", ")
    }

    fn words(&self) -> String {
        let said = fs::read(self.folder.path().join("stderr")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error:")).collect();
        format!("exit code {:?}, {} {}", self.code, self.result["reason"], errors.join(" "))
    }

    fn verdict(&self, holds: bool) -> Outcome {
        if holds { Verdict::yes(self.phases()) } else { Verdict::no(self.words()) }
    }
}

/// The program `relay` beside this one, or on the PATH.
fn relay() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name("relay"));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("relay"))
}

fn deploy(trial: &Trial<'_>, case: &str) -> Result<Deploying, Problem> {
    let place = trial.place()?;
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(relay());
    place.ci.lend(&mut command);
    command.arg("deploy").arg(TARGET).arg("--param").arg(format!("case={case}"));
    command.arg("--config").arg(place.folder.join("relay.toml")).args(["--result-file", "result.json"]);
    command.env("RELAY_SIGNING_KEY", place.folder.join("ci.pem")).current_dir(folder.path());
    command.stdout(File::create(folder.path().join("stdout"))?).stderr(File::create(folder.path().join("stderr"))?);
    let child =
        command.spawn().map_err(|error| Problem::Other(format!("cannot start {}: {error}", relay().display())))?;
    Ok(Deploying { child, folder })
}

fn end(trial: &Trial<'_>, mut deploying: Deploying) -> Result<Ended, Problem> {
    let status = trial.until(PATIENCE, || Ok(deploying.child.try_wait()?))?;
    let Some(status) = status else { return Err(Problem::Other("relay deploy does not end".to_owned())) };
    let result = fs::read(deploying.folder.path().join("result.json")).unwrap_or_default();
    let result = serde_json::from_slice(&result).unwrap_or_default();
    let folder = std::mem::replace(&mut deploying.folder, tempfile::tempdir()?);
    Ok(Ended { code: status.code(), result, folder })
}

/// Waits until the tool of a waiting deployment runs.
fn runs(trial: &Trial<'_>, deploying: &mut Deploying) -> Result<(), Problem> {
    let stdout = deploying.folder.path().join("stdout");
    let seen = trial.until(PATIENCE, || {
        let words = fs::read_to_string(&stdout)?;
        let ended = deploying.child.try_wait()?.is_some();
        Ok((words.contains("waiting") || ended).then_some(()))
    })?;
    seen.ok_or_else(|| Problem::Other("the tool does not start".to_owned()))
}

fn verified(ended: &Ended) -> bool {
    ended.result["output"]["verified"] == true
}

pub(crate) fn succeeds(trial: &mut Trial<'_>) -> Outcome {
    let ended = end(trial, deploy(trial, "succeed")?)?;
    let holds = ended.code == Some(0) && ended.stdout()? == b"out\n" && verified(&ended);
    ended.verdict(holds)
}

pub(crate) fn fails(trial: &mut Trial<'_>) -> Outcome {
    let ended = end(trial, deploy(trial, "fail")?)?;
    ended.verdict(ended.code == Some(37) && ended.result["decided_by"] == "tool")
}

pub(crate) fn is_cancelled(trial: &mut Trial<'_>) -> Outcome {
    let mut deploying = deploy(trial, "wait")?;
    runs(trial, &mut deploying)?;
    Command::new("kill").args(["-INT", &deploying.child.id().to_string()]).status()?;
    let ended = end(trial, deploying)?;
    ended.verdict(ended.code == Some(130) && ended.result["reason"] == "cancelled")
}

pub(crate) fn times_out(trial: &mut Trial<'_>) -> Outcome {
    let ended = end(trial, deploy(trial, "wait")?)?;
    ended.verdict(ended.result["reason"] == "timed_out")
}

pub(crate) fn big_output_arrives(trial: &mut Trial<'_>) -> Outcome {
    let ended = end(trial, deploy(trial, "big")?)?;
    let same = Digest::of(&ended.stdout()?) == Digest::of(&vec![0; BIG]);
    ended.verdict(ended.code == Some(0) && same && verified(&ended))
}

pub(crate) fn killed_task_is_noticed(trial: &mut Trial<'_>) -> Outcome {
    let mut deploying = deploy(trial, "wait")?;
    runs(trial, &mut deploying)?;
    let name: TargetName = TARGET.parse().map_err(|error| Problem::Other(format!("{error}")))?;
    let running = json!({"cluster": "relay", "family": name.family(), "desiredStatus": "RUNNING"});
    let tasks = trial.target.call("ecs", "list-tasks", &running)?;
    let task = tasks["taskArns"][0]
        .as_str()
        .ok_or_else(|| Problem::Other(format!("ECS lists no task of {}", name.family())))?;
    trial.target.call("ecs", "stop-task", &json!({"cluster": "relay", "task": task, "reason": "selftest"}))?;
    let ended = end(trial, deploying)?;
    // The runner has two minutes for a graceful end, so it may still say how the tool ended.
    let told = ended.result["reason"].is_string() && ended.code.is_some_and(|code| code != 0);
    ended.verdict(told)
}

pub(crate) fn ci_cannot_run_tasks(trial: &mut Trial<'_>) -> Outcome {
    let place = trial.place()?;
    let answer = place.ci.call("ecs", "list-clusters", &json!({}));
    Verdict::refused_with(answer, &["AccessDenied"])
}
