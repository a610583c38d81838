//! Operations on existing tasks: DescribeTasks, ListTasks, StopTask, metadata and credentials.

use std::time::Duration;

use serde_json::{Value, json};

use super::task::{Change, Container, Status, Task};
use super::{Ecs, invalid};
use crate::services::call::{Call, Now};
use crate::services::contract::{Effect, Reaction};
use crate::services::principal::Principal;
use crate::wire::answer::Answer;
use crate::wire::error::{AwsError, Outcome};

impl Ecs {
    /// Changes a task. Where events are on, the launcher is told.
    pub(crate) fn change(&mut self, now: Now, arn: &str, change: Change, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get_mut(arn) else { return };
        if matches!(change, Change::Asked { .. }) && task.can_be_asked() {
            effects.push(Effect::StopTask { arn: arn.to_owned() });
        }
        task.change(now, change);
        if self.task_events {
            effects.push(Effect::Invoke { source: "events", event: task.event(now), delay: Duration::ZERO });
        }
    }

    /// The container of a task.
    pub(crate) fn container(&self, arn: &str) -> Option<Container> {
        self.tasks.get(arn)?.container()
    }

    /// The role of a task, by the task's id, and the session that it has: ECS names it after the
    /// task.
    pub(crate) fn role_of(&self, id: &str) -> Outcome<(String, Principal)> {
        let task = self.by_id(id)?;
        if task.status == Status::Stopped {
            return Err(AwsError::new(400, "InvalidTask", "the task is stopped"));
        }
        let overridden = task.overrides.get("taskRoleArn");
        let role = overridden.or_else(|| task.definition.content.get("taskRoleArn"));
        let role = role.and_then(Value::as_str).unwrap_or_default();
        let principal = Principal::from_role_arn(role, id);
        let principal = principal.ok_or_else(|| AwsError::new(404, "NotFound", "the task has no role"))?;
        Ok((role.to_owned(), principal))
    }

    /// All tasks by id, for tests.
    pub(crate) fn overview(&self) -> Vec<(String, Value)> {
        self.tasks.values().map(|task| (task.id().to_owned(), task.render())).collect()
    }

    fn by_id(&self, id: &str) -> Outcome<&Task> {
        let found = self.tasks.values().find(|task| task.id() == id);
        found.ok_or_else(|| AwsError::new(404, "NotFound", "no such task"))
    }

    pub(super) fn describe_tasks(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let cluster = self.cluster(call)?;
        let named = call.params.texts("tasks");
        match named.len() {
            0 => return Err(invalid("Tasks cannot be empty.")),
            1..=100 => {}
            _ => return Err(invalid("At most 100 tasks.")),
        }
        let with_tags = call.params.texts("include").contains(&"TAGS");
        let (mut tasks, mut failures) = (Vec::new(), Vec::new());
        for named in named {
            let arn = arn_of(&cluster, named);
            match self.tasks.get(&arn).filter(|task| task.cluster == cluster) {
                Some(task) => {
                    let mut rendered = task.render();
                    rendered["tags"] = if with_tags { task.tags.clone() } else { json!([]) };
                    tasks.push(rendered);
                }
                None => failures.push(json!({"arn": arn, "reason": "MISSING"})),
            }
        }
        Ok(Answer::Json(json!({"tasks": tasks, "failures": failures})).into())
    }

    pub(super) fn list_tasks(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let cluster = self.cluster(call)?;
        let (started_by, family) = (call.text("startedBy"), call.text("family"));
        let others = ["family", "serviceName", "containerInstance"];
        if started_by.is_some() && others.iter().any(|filter| call.text(filter).is_some()) {
            return Err(invalid("When startedBy is specified, it must be the only filter."));
        }
        let desired = call.text("desiredStatus").unwrap_or("RUNNING");
        let wanted = |task: &&Task| {
            task.cluster == cluster
                && task.desired() == desired
                && started_by.is_none_or(|by| task.started_by.as_deref() == Some(by))
                && family.is_none_or(|family| task.definition.family == family)
        };
        let arns: Vec<&str> = self.tasks.values().filter(wanted).map(|task| task.arn.as_str()).collect();
        // Return one page. `maxResults` is at most 100, and the token is a position in the list.
        let from = call.text("nextToken").and_then(|token| token.parse().ok()).unwrap_or(0).min(arns.len());
        let most = call.params.number("maxResults").unwrap_or(100).clamp(1, 100);
        let to = arns.len().min(from + usize::try_from(most).unwrap_or(100));
        let mut answer = json!({"taskArns": arns.get(from..to)});
        if to < arns.len() {
            answer["nextToken"] = json!(to.to_string());
        }
        Ok(Answer::Json(answer).into())
    }

    pub(super) fn stop_task(&mut self, call: &mut Call, effects: &mut Vec<Effect>) -> Outcome<Reaction> {
        let cluster = self.cluster(call)?;
        let arn = arn_of(&cluster, call.params.text_or_empty("task"));
        let missing = || invalid("The referenced task was not found.");
        self.tasks.get(&arn).filter(|task| task.cluster == cluster).ok_or_else(missing)?;
        let words = call.text("reason").unwrap_or("Task stopped by user").to_owned();
        self.change(call.now, &arn, Change::Asked { code: "UserInitiated", words }, effects);
        let task = self.tasks.get(&arn).ok_or_else(missing)?;
        Ok(Answer::Json(json!({"task": task.render()})).into())
    }

    /// Answers the metadata endpoint. Unlike AWS's, the container's answer also has the task's
    /// members.
    pub(super) fn metadata(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let task = self.by_id(call.params.text_or_empty("task"))?;
        let containers = task.metadata_of_containers();
        let definition = &task.definition;
        let mut answer = json!({
            "Cluster": task.cluster, "TaskARN": task.arn, "Family": definition.family,
            "Revision": definition.revision.to_string(), "DesiredStatus": task.desired(),
            "KnownStatus": task.status.name(), "LaunchType": "FARGATE", "AvailabilityZone": "eu-west-1a",
            "Containers": containers,
        });
        if call.text("part") == Some("container")
            && let (Some(own), Some(all)) = (containers.first().and_then(Value::as_object), answer.as_object_mut())
        {
            all.extend(own.clone());
        }
        Ok(Answer::Json(answer).into())
    }
}

/// The ARN of a task that is named by ARN or by id.
fn arn_of(cluster: &str, named: &str) -> String {
    if named.starts_with("arn:") {
        named.to_owned()
    } else {
        format!("{}/{named}", cluster.replacen(":cluster/", ":task/", 1))
    }
}
