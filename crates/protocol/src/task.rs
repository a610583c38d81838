//! A task of ECS, as DescribeTasks shows it: facts that an adapter fills in. ECS says them to whoever may ask; nothing of them is signed,
//! and the envelope among them is verified before it counts (clause LAU-12).

use crate::time::Timestamp;

/// What ECS says of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Its ARN.
    pub arn: String,
    /// The revision that it runs.
    pub definition: String,
    /// Who started it: a deployment id, when it was relay.
    pub started_by: String,
    /// `PROVISIONING` … `STOPPED`.
    pub last_status: String,
    /// `RUNNING`, or `STOPPED` as soon as somebody asked for it.
    pub desired_status: String,
    /// When RunTask made it.
    pub created_at: Option<Timestamp>,
    /// When its container started.
    pub started_at: Option<Timestamp>,
    /// When it had stopped.
    pub stopped_at: Option<Timestamp>,
    /// Why it stopped, as a code.
    pub stop_code: Option<String>,
    /// Why it stopped, in words.
    pub stopped_reason: Option<String>,
    /// What the container exited with.
    pub exit_code: Option<i32>,
    /// What ECS says of its containers, where it says something.
    pub container_reason: Option<String>,
    /// The envelope that it was started with: the value of `RELAY_ENVELOPE` in its overrides.
    pub envelope: Option<String>,
}

impl Task {
    /// Whether nothing of it runs any more.
    pub fn has_stopped(&self) -> bool {
        self.last_status == "STOPPED"
    }

    /// Whether its container runs, so that it can hear a control statement.
    pub fn is_running(&self) -> bool {
        self.last_status == "RUNNING"
    }

    /// Whether somebody has asked for its end already.
    pub fn is_to_stop(&self) -> bool {
        self.desired_status == "STOPPED"
    }
}
