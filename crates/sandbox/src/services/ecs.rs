//! ECS on Fargate. This file has clusters and task definitions, `run` has RunTask, `tasks` the
//! other operations on tasks, and `task` and `definition` the data.

mod definition;
mod run;
mod task;
mod tasks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use super::call::{Call, Now};
use super::contract::{Effect, Reaction, Rules, Table};
use super::principal::REGION;
use crate::wire::answer::Answer;
use crate::wire::error::{AwsError, Outcome};

use definition::Definition;
use task::Task;
pub(crate) use task::{Change, Container};

pub(crate) const OPERATIONS: Table<Ecs> = &[
    ("RegisterTaskDefinition", Ecs::register),
    ("DeregisterTaskDefinition", Ecs::deregister),
    ("DescribeTaskDefinition", Ecs::describe_definition),
    ("RunTask", Ecs::run_task),
    ("DescribeTasks", Ecs::describe_tasks),
    ("ListTasks", Ecs::list_tasks),
    ("StopTask", Ecs::stop_task),
];

/// The task metadata endpoint, version 4.
pub(crate) const METADATA: Table<Ecs> = &[("Get", Ecs::metadata)];

/// Maximum size of a task definition, in bytes.
const DEFINITION_MAX: usize = 65_536;

#[derive(Debug)]
pub(crate) struct Ecs {
    /// Whether a RunTask with `failures` uses up its client token.
    failures_use_up_token: bool,
    /// Whether each change of a task is an event for the launcher.
    task_events: bool,
    /// By ARN.
    clusters: BTreeSet<String>,
    /// By account and family, in order of revision.
    definitions: BTreeMap<(String, String), Vec<Arc<Definition>>>,
    /// By ARN.
    tasks: BTreeMap<String, Task>,
    /// By cluster ARN and client token.
    tokens: HashMap<(String, String), Used>,
}

/// What a client token was used for.
#[derive(Debug, Clone)]
struct Used {
    /// All parameters except the token, in canonical form.
    parameters: String,
    /// The started task, or `None` if the request failed but used up the token.
    task: Option<String>,
}

impl Ecs {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            failures_use_up_token: rules.failures_use_up_token,
            task_events: rules.task_events,
            clusters: BTreeSet::new(),
            definitions: BTreeMap::new(),
            tasks: BTreeMap::new(),
            tokens: HashMap::new(),
        }
    }

    pub(crate) fn add_cluster(&mut self, account: &str, name: &str) {
        self.clusters.insert(cluster_arn(account, name));
    }

    /// Registers a definition whose content has been checked, or is the sandbox's own. Returns the
    /// new revision.
    pub(crate) fn add_definition(&mut self, now: Now, account: &str, family: &str, content: Value) -> Arc<Definition> {
        let revisions = self.definitions.entry((account.to_owned(), family.to_owned())).or_default();
        let revision = revisions.len() + 1;
        let definition = Arc::new(Definition {
            arn: format!("arn:aws:ecs:{REGION}:{account}:task-definition/{family}:{revision}"),
            family: family.to_owned(),
            revision,
            registered_ms: now.ms,
            deregistered_ms: None,
            content,
        });
        revisions.push(Arc::clone(&definition));
        definition
    }

    /// The cluster that a call names, by name or ARN; it must be the caller's.
    fn cluster(&self, call: &Call) -> Outcome<String> {
        let (named, account) = (call.text("cluster").unwrap_or("default"), &call.principal.account);
        let arn = if named.starts_with("arn:") { named.to_owned() } else { cluster_arn(account, named) };
        if self.clusters.contains(&arn) && arn.split(':').nth(4) == Some(account.as_str()) {
            Ok(arn)
        } else {
            Err(AwsError::client("ClusterNotFoundException", "Cluster not found."))
        }
    }

    /// Finds a definition by `family`, `family:revision` or ARN. A family alone means its newest
    /// active revision.
    fn definition(&self, account: &str, name: &str) -> Option<Arc<Definition>> {
        let name = match name.strip_prefix("arn:") {
            None => name,
            Some(arn) if arn.split(':').nth(3) == Some(account) => arn.split_once(":task-definition/")?.1,
            Some(_) => return None,
        };
        let (family, revision) = match name.split_once(':') {
            Some((family, revision)) => (family, Some(revision.parse::<usize>().ok()?)),
            None => (name, None),
        };
        let revisions = self.definitions.get(&(account.to_owned(), family.to_owned()))?;
        match revision {
            Some(revision) => revisions.iter().find(|definition| definition.revision == revision).cloned(),
            None => revisions.iter().rev().find(|definition| definition.is_active()).cloned(),
        }
    }

    fn register(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let family = call.text("family").ok_or_else(|| client("Family should not be null or empty."))?.to_owned();
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if family.len() > 255 || !family.bytes().all(legal) {
            return Err(client("Family contains invalid characters."));
        }
        let content = call.params.json().clone();
        if content.to_string().len() > DEFINITION_MAX {
            return Err(client("Actual length of the task definition exceeds the limit of 65536 bytes."));
        }
        if call.params.list("containerDefinitions").is_empty() {
            return Err(client("Container list cannot be empty."));
        }
        let definition = self.add_definition(call.now, &call.principal.account, &family, content);
        call.note("taskDefinition", definition.arn.as_str());
        let tags = call.params.list("tags");
        Ok(Answer::Json(json!({"taskDefinition": definition.render(), "tags": tags})).into())
    }

    fn deregister(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let (name, account) = (call.params.text_or_empty("taskDefinition"), &call.principal.account);
        let with_revision = name.rsplit('/').next().is_some_and(|name| name.contains(':'));
        let found = self.definition(account, name).filter(|_| with_revision).ok_or_else(|| {
            client("The specified task definition does not exist. Specify a valid family and revision.")
        })?;
        let changed = Definition { deregistered_ms: Some(call.now.ms), ..Definition::clone(&found) };
        let changed = Arc::new(changed);
        let revisions = self.definitions.get_mut(&(account.clone(), found.family.clone()));
        if let Some(slot) = revisions.into_iter().flatten().find(|held| held.revision == found.revision) {
            *slot = Arc::clone(&changed);
        }
        Ok(Answer::Json(json!({"taskDefinition": changed.render()})).into())
    }

    fn describe_definition(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let found = self.definition(&call.principal.account, call.params.text_or_empty("taskDefinition"));
        let found = found.ok_or_else(|| client("Unable to describe task definition."))?;
        let mut answer = json!({"taskDefinition": found.render()});
        if call.params.texts("include").contains(&"TAGS") {
            answer["tags"] = found.content.get("tags").cloned().unwrap_or_else(|| json!([]));
        }
        Ok(Answer::Json(answer).into())
    }
}

fn client(message: impl Into<String>) -> AwsError {
    AwsError::client("ClientException", message)
}

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::client("InvalidParameterException", message)
}

fn cluster_arn(account: &str, name: &str) -> String {
    format!("arn:aws:ecs:{REGION}:{account}:cluster/{name}")
}
