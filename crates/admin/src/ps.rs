//! `ps` and `stop`: list and stop deployments that are alive, with an operator's credentials in the
//! target account.
//!
//! The state of a task is shown as ECS reports it. The origin comes from the request in the
//! evidence bucket, where one is named, and is shown unverified: it is only a claim, even in a
//! verified request.

use std::io::Write;

use relay_aws::Sdk;
use relay_aws::clock::now;
use relay_aws::objects::Objects;
use relay_aws::sessions::Sessions;
use relay_aws::tasks::Tasks;
use relay_console::Failure;
use relay_protocol::encoding::{ascii_json, printable};
use relay_protocol::limits::BUNDLE_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::request::{Origin, Text};
use relay_protocol::task::Task;
use relay_protocol::time::plain_duration;
use relay_protocol::{Bundle, DeploymentId, Request, RequestRef, Statement as _, TargetName, Timestamp};
use serde_json::json;

use crate::cli::{Format, Ps, Stop};

/// ECS's limit for the reason of StopTask, in characters.
const REASON_MAX: usize = 255;

/// A deployment that is alive.
#[derive(Debug)]
struct Live {
    id: DeploymentId,
    target: TargetName,
    task: String,
    state: String,
    since: Option<Timestamp>,
    /// The request that the task was started for.
    request: Option<RequestRef>,
    origin: Origin,
}

impl Live {
    /// Returns `None` for a task that has ended or does not belong to relay.
    fn of(task: &Task) -> Option<Self> {
        let (_, revision) = task.definition.split_once(":task-definition/")?;
        let target = TargetName::of_family(revision.split(':').next()?)?;
        // After a StopTask call, ECS changes `last_status` late.
        let stopping = task.desired_status == "STOPPED" && task.last_status == "RUNNING";
        (task.last_status != "STOPPED").then_some(())?;
        Some(Self {
            id: task.started_by.parse().ok()?,
            target,
            task: task.arn.clone(),
            state: if stopping { "STOPPING".to_owned() } else { task.last_status.clone() },
            since: task.started_at.or(task.created_at),
            request: task.request.clone(),
            origin: Origin::default(),
        })
    }

    fn age(&self, now: Timestamp) -> String {
        self.since.map_or_else(String::new, |since| plain_duration(now.since(since)))
    }

    fn says(&self) -> String {
        let Origin { system, run_url, commit, actor } = &self.origin;
        let said: Vec<&str> = [system, actor, commit, run_url].into_iter().flatten().map(Text::as_str).collect();
        printable(&said.join(" "))
    }
}

/// Loads an operator's SDK set-up, which must name a region.
async fn sdk() -> Result<Sdk, Failure> {
    let sdk = Sdk::from_environment(None).await;
    // A variable may be set but empty.
    match sdk.region().is_some_and(|region| !region.is_empty()) {
        true => Ok(sdk),
        false => {
            Err(Failure::usage("no region is configured: set AWS_REGION, or a region in the AWS profile".to_owned()))
        }
    }
}

/// Lists the deployments that are alive.
pub(crate) async fn ps(arguments: &Ps, out: &mut impl Write, err: &mut impl Write) -> Result<u8, Failure> {
    let sdk = sdk().await?;
    let tasks = Tasks::new(&sdk).all(&arguments.cluster).await;
    let tasks = tasks
        .map_err(|error| Failure::aws(&format!("listing the tasks of the cluster {}", arguments.cluster), &error))?;
    let mut live: Vec<Live> = tasks.iter().filter_map(Live::of).collect();
    live.sort_by(|one, other| one.id.as_str().cmp(other.id.as_str()));
    if let Some(bucket) = &arguments.evidence {
        let objects = Objects::new(&sdk);
        for one in &mut live {
            one.origin = origin(&objects, bucket, one).await;
        }
    }
    let now = now();
    match arguments.output {
        Format::Json => {
            for one in &live {
                let line = json!({
                    "deployment_id": one.id, "target": one.target, "state": one.state, "since": one.since,
                    "task_arn": one.task, "says": one.origin,
                });
                writeln!(out, "{}", ascii_json(&line))?;
            }
        }
        Format::Text if live.is_empty() => {
            writeln!(err, "no deployment is alive in the cluster {}", arguments.cluster)?
        }
        Format::Text => {
            let rows = live.iter().map(|one| {
                let since = one.since.map(|since| since.to_string()).unwrap_or_default();
                [one.id.to_string(), one.target.to_string(), one.state.clone(), since, one.age(now), one.says()]
            });
            let head = ["DEPLOYMENT", "TARGET", "STATE", "SINCE", "AGE", "CLAIMED ORIGIN"].map(str::to_owned);
            table(&[head].into_iter().chain(rows).collect::<Vec<_>>(), out)?;
        }
    }
    Ok(0)
}

/// The origin in a deployment's request, as far as the request can be read.
async fn origin(objects: &Objects, bucket: &str, live: &Live) -> Origin {
    let Some(request) = &live.request else { return Origin::default() };
    let key = request.evidence().request();
    let object = objects.get(bucket, &key, BUNDLE_MAX as u64).await.ok().flatten();
    let bundle = object.and_then(|object| Bundle::parse(&object.bytes).ok());
    let request = bundle.and_then(|bundle| Request::parse(bundle.request.unverified_payload()).ok());
    request.map(|request| request.origin).unwrap_or_default()
}

fn table(rows: &[[String; 6]], out: &mut impl Write) -> Result<(), Failure> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 6] = std::array::from_fn(width);
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Asks ECS to stop the task of a deployment, and prints what will happen next.
pub(crate) async fn stop(arguments: &Stop, out: &mut impl Write) -> Result<u8, Failure> {
    let (id, cluster) = (&arguments.id, arguments.cluster.as_str());
    let sdk = sdk().await?;
    let tasks = Tasks::new(&sdk);
    let look = format!("looking for the task of {id} in the cluster {cluster}");
    let looked = |error: relay_aws::AwsError| Failure::aws(&look, &error);
    let mut found = Vec::new();
    for arn in tasks.started_by(cluster, id.as_str()).await.map_err(looked)? {
        found.extend(tasks.describe(cluster, &arn).await.map_err(looked)?);
    }
    let Some((task, live)) = found.iter().find_map(|task| Some((task, Live::of(task)?))) else {
        return Err(Failure::new(
            ExitCode::No,
            match found.first() {
                Some(task) => format!(
                    "{id} has already stopped: {}",
                    printable(task.stopped_reason.as_deref().unwrap_or("ECS gives no reason"))
                ),
                None => format!(
                    "found no task of {id} in the cluster {cluster}: it never had one there, or ECS has forgotten it, as it does about an hour after a task ends; `relay-admin ps` lists the deployments that are alive"
                ),
            },
        ));
    };
    if task.desired_status == "STOPPED" {
        let why = printable(task.stopped_reason.as_deref().unwrap_or("ECS gives no reason"));
        writeln!(out, "{id} ({}) is already stopping: {why}", live.target)?;
        return Ok(0);
    }
    let caller =
        Sessions::new(&sdk).identity().await.map_err(|error| Failure::aws("getting the caller's identity", &error))?;
    let stop = tasks.stop(cluster, &task.arn, &reason(&caller.arn, arguments.reason.as_deref())).await;
    stop.map_err(|error| Failure::aws(&format!("stopping {}", task.arn), &error))?;
    writeln!(out, "asked ECS to stop {id} ({}), task {}", live.target, task.arn)?;
    let next = match task.started_at {
        Some(_) => {
            "the tool gets its recipe's signal now; after 120 seconds ECS kills what is left. A `relay` that follows the deployment reports that it was stopped (exit code 122). relay does not know how far the tool got: check what it had done before the next deployment."
        }
        None => {
            "the tool had not started, and will not start. A `relay` that follows the deployment reports this, or gives up after its --start-timeout."
        }
    };
    writeln!(out, "{next}")?;
    Ok(0)
}

/// Returns the reason that DescribeTasks shows for an hour, and that ECS's events carry. It names
/// the caller first, so that a cut never removes the caller.
fn reason(caller: &str, why: Option<&str>) -> String {
    let text = match why {
        Some(why) => format!("stopped by {caller}: {why}"),
        None => format!("stopped by {caller}"),
    };
    text.chars().take(REASON_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tasks_of_relay_that_have_not_ended_are_alive() {
        let task = Task {
            definition: "arn:aws:ecs:eu-west-1:222222222222:task-definition/relay_payments_production:7".to_owned(),
            started_by: DeploymentId::new(1, [0; 10]).to_string(),
            last_status: "RUNNING".to_owned(),
            desired_status: "RUNNING".to_owned(),
            created_at: Some(Timestamp::from_unix(1)),
            ..Task::default()
        };
        let seen = |change: fn(&mut Task)| {
            let mut task = task.clone();
            change(&mut task);
            Live::of(&task).map(|live| (live.target.to_string(), live.state, live.since.map(Timestamp::unix)))
        };
        let as_is = |state: &str, since| Some(("payments/production".to_owned(), state.to_owned(), Some(since)));
        assert_eq!(seen(|_| ()), as_is("RUNNING", 1));
        assert_eq!(seen(|task| task.started_at = Some(Timestamp::from_unix(2))), as_is("RUNNING", 2));
        assert_eq!(seen(|task| task.desired_status = "STOPPED".to_owned()), as_is("STOPPING", 1));
        assert_eq!(seen(|task| task.last_status = "STOPPED".to_owned()), None);
        assert_eq!(seen(|task| task.started_by = "somebody".to_owned()), None);
        assert_eq!(seen(|task| task.definition = task.definition.replace("relay_", "other_")), None);
    }

    #[test]
    fn the_reason_begins_with_who_and_fits() {
        assert_eq!(reason("arn:x", None), "stopped by arn:x");
        let long = reason("arn:x", Some(&"ä".repeat(300)));
        assert!(long.starts_with("stopped by arn:x: ä") && long.chars().count() == REASON_MAX);
    }
}
