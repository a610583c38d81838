//! ECS on Fargate: this file owns task definitions and clusters; `run` RunTask; `tasks` what is asked of tasks; `process` the
//! process that a task is here; `ending` how ECS says that a task has ended otherwise than by itself.

mod ending;
mod process;
mod run;
mod tasks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::clock::{epoch_seconds, now_ms};
use crate::dispatch::{Answer, Call, Handler};
use crate::error::{AwsError, Outcome};
use crate::world::World;
pub(crate) use tasks::{METADATA, Task, credentials, kill, overview};

pub(crate) const OPERATIONS: &[(&str, Handler)] = &[
    ("CreateCluster", Handler::Now(create_cluster)),
    ("DescribeClusters", Handler::Now(describe_clusters)),
    ("RegisterTaskDefinition", Handler::Now(register)),
    ("DeregisterTaskDefinition", Handler::Now(deregister)),
    ("DescribeTaskDefinition", Handler::Now(describe_definition)),
    ("ListTaskDefinitions", Handler::Now(list_definitions)),
    ("RunTask", Handler::Now(run::run_task)),
    ("DescribeTasks", Handler::Now(tasks::describe)),
    ("ListTasks", Handler::Now(tasks::list)),
    ("StopTask", Handler::Now(tasks::stop)),
    ("TagResource", Handler::Now(tasks::tag)),
];

/// A task definition may have 64 KiB.
const MAX_DEFINITION: usize = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Ecs {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Cluster ARNs.
    clusters: BTreeSet<String>,
    /// By account and family, in order of revision.
    definitions: BTreeMap<(String, String), Vec<Arc<Definition>>>,
    /// By ARN.
    tasks: BTreeMap<String, Task>,
    /// By cluster ARN and client token: the parameters, and the answer's task (none, when it used the token up by failing).
    tokens: HashMap<(String, String), (String, Option<String>)>,
}

/// One revision, as registered.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub(crate) arn: String,
    pub(crate) family: String,
    pub(crate) revision: usize,
    active: bool,
    registered_ms: u64,
    deregistered_ms: Option<u64>,
    pub(crate) content: Value,
}

impl Definition {
    fn render(&self) -> Value {
        let mut value = self.content.clone();
        value["taskDefinitionArn"] = json!(self.arn);
        value["revision"] = json!(self.revision);
        value["status"] = json!(if self.active { "ACTIVE" } else { "INACTIVE" });
        value["registeredAt"] = epoch_seconds(self.registered_ms);
        if let Some(ms) = self.deregistered_ms {
            value["deregisteredAt"] = epoch_seconds(ms);
        }
        value["compatibilities"] = json!(["EC2", "FARGATE"]);
        if let Some(object) = value.as_object_mut() {
            object.remove("tags");
        }
        value
    }

    pub(crate) fn containers(&self) -> &[Value] {
        self.content.get("containerDefinitions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

impl Ecs {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_cluster(&self, account: &str, name: &str) {
        self.lock().clusters.insert(cluster_arn(account, name));
    }

    /// Registers a definition; its content has been checked, or is the sandbox's own.
    pub(crate) fn add_definition(&self, account: &str, family: &str, content: Value) -> Arc<Definition> {
        let mut state = self.lock();
        let revisions = state.definitions.entry((account.to_owned(), family.to_owned())).or_default();
        let revision = revisions.len() + 1;
        let definition = Arc::new(Definition {
            arn: format!("arn:aws:ecs:{}:{account}:task-definition/{family}:{revision}", crate::REGION),
            family: family.to_owned(),
            revision,
            active: true,
            registered_ms: now_ms(),
            deregistered_ms: None,
            content,
        });
        revisions.push(Arc::clone(&definition));
        definition
    }
}

fn client(message: impl Into<String>) -> AwsError {
    AwsError::client("ClientException", message)
}

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::client("InvalidParameterException", message)
}

fn cluster_arn(account: &str, name: &str) -> String {
    format!("arn:aws:ecs:{}:{account}:cluster/{name}", crate::REGION)
}

/// The cluster that a request means, by name or ARN; it must be there.
fn cluster(state: &State, call: &Call) -> Outcome<String> {
    let named = call.text("cluster").unwrap_or("default");
    let arn = if named.starts_with("arn:") { named.to_owned() } else { cluster_arn(&call.principal.account, named) };
    if state.clusters.contains(&arn) && arn.split(':').nth(4) == Some(call.principal.account.as_str()) {
        Ok(arn)
    } else {
        Err(AwsError::client("ClusterNotFoundException", "Cluster not found."))
    }
}

/// The definition that `family`, `family:revision` or an ARN means. A family alone is its newest active revision.
fn find_definition(state: &State, account: &str, name: &str) -> Option<Arc<Definition>> {
    let name = match name.strip_prefix("arn:") {
        None => name,
        Some(arn) if arn.split(':').nth(3) == Some(account) => arn.split_once(":task-definition/")?.1,
        Some(_) => return None,
    };
    let (family, revision) = match name.split_once(':') {
        Some((family, revision)) => (family, Some(revision.parse::<usize>().ok()?)),
        None => (name, None),
    };
    let revisions = state.definitions.get(&(account.to_owned(), family.to_owned()))?;
    match revision {
        Some(revision) => revisions.iter().find(|d| d.revision == revision).cloned(),
        None => revisions.iter().rev().find(|d| d.active).cloned(),
    }
}

fn create_cluster(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let name = call.text("clusterName").unwrap_or("default");
    world.ecs.add_cluster(&call.principal.account, name);
    let arn = cluster_arn(&call.principal.account, name);
    Ok(Answer::Json(json!({"cluster": {"clusterArn": arn, "clusterName": name, "status": "ACTIVE"}})))
}

fn describe_clusters(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let named =
        call.params.get("clusters").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![json!("default")]);
    let state = world.ecs.lock();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in named.iter().filter_map(Value::as_str) {
        let arn = if name.starts_with("arn:") { name.to_owned() } else { cluster_arn(&call.principal.account, name) };
        if state.clusters.contains(&arn) {
            let name = arn.rsplit('/').next();
            found.push(json!({"clusterArn": arn, "clusterName": name, "status": "ACTIVE"}));
        } else {
            failures.push(json!({"arn": arn, "reason": "MISSING"}));
        }
    }
    Ok(Answer::Json(json!({"clusters": found, "failures": failures})))
}

fn register(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let family = call.text("family").ok_or_else(|| client("Family should not be null or empty."))?.to_owned();
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if family.len() > 255 || !family.bytes().all(legal) {
        return Err(client("Family contains invalid characters."));
    }
    if call.params.to_string().len() > MAX_DEFINITION {
        return Err(client("Actual length of the task definition exceeds the limit of 65536 bytes."));
    }
    let containers = call.params.get("containerDefinitions").and_then(Value::as_array);
    if containers.is_none_or(Vec::is_empty) {
        return Err(client("Container list cannot be empty."));
    }
    let definition = world.ecs.add_definition(&call.principal.account, &family, call.params.clone());
    call.note("taskDefinition", definition.arn.as_str());
    Ok(Answer::Json(
        json!({"taskDefinition": definition.render(), "tags": call.params.get("tags").unwrap_or(&json!([]))}),
    ))
}

fn deregister(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let name = call.text("taskDefinition").unwrap_or_default();
    let mut state = world.ecs.lock();
    let found = find_definition(&state, &call.principal.account, name)
        .filter(|_| name.rsplit('/').next().is_some_and(|n| n.contains(':')));
    let found = found
        .ok_or_else(|| client("The specified task definition does not exist. Specify a valid family and revision."))?;
    let mut changed = Definition::clone(&found);
    changed.active = false;
    changed.deregistered_ms = Some(now_ms());
    let changed = Arc::new(changed);
    let revisions = state.definitions.get_mut(&(call.principal.account.clone(), found.family.clone()));
    if let Some(slot) = revisions.into_iter().flatten().find(|d| d.revision == found.revision) {
        *slot = Arc::clone(&changed);
    }
    Ok(Answer::Json(json!({"taskDefinition": changed.render()})))
}

fn describe_definition(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let name = call.text("taskDefinition").unwrap_or_default();
    let found = find_definition(&world.ecs.lock(), &call.principal.account, name);
    let found = found.ok_or_else(|| client("Unable to describe task definition."))?;
    let mut answer = json!({"taskDefinition": found.render()});
    let include = call.params.get("include").and_then(Value::as_array).into_iter().flatten();
    if include.filter_map(Value::as_str).any(|i| i == "TAGS") {
        answer["tags"] = found.content.get("tags").cloned().unwrap_or_else(|| json!([]));
    }
    Ok(Answer::Json(answer))
}

fn list_definitions(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let (prefix, status) = (call.text("familyPrefix"), call.text("status").unwrap_or("ACTIVE"));
    let state = world.ecs.lock();
    let mut arns: Vec<&str> = state
        .definitions
        .iter()
        .filter(|((account, family), _)| *account == call.principal.account && prefix.is_none_or(|p| p == family))
        .flat_map(|(_, revisions)| revisions)
        .filter(|d| d.active == (status == "ACTIVE"))
        .map(|d| d.arn.as_str())
        .collect();
    if call.text("sort") == Some("DESC") {
        arns.reverse();
    }
    let (page, next) = page(&arns, call);
    let mut answer = json!({"taskDefinitionArns": page});
    if let Some(next) = next {
        answer["nextToken"] = json!(next);
    }
    Ok(Answer::Json(answer))
}

/// One page of a list, by `maxResults` (at most 100) and a position as token.
fn page<'a>(all: &'a [&'a str], call: &Call) -> (&'a [&'a str], Option<String>) {
    let from = call.text("nextToken").and_then(|t| t.parse::<usize>().ok()).unwrap_or(0).min(all.len());
    let most = call.params.get("maxResults").and_then(Value::as_u64).unwrap_or(100).clamp(1, 100);
    let to = from.saturating_add(usize::try_from(most).unwrap_or(100)).min(all.len());
    (all.get(from..to).unwrap_or_default(), (to < all.len()).then(|| to.to_string()))
}
