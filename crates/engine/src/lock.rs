//! The lock: when a slot may be taken (clauses LCK-1 to LCK-3). The runner uses it to take a slot,
//! the launcher to report `busy` early, and the model to look for a way around it.

use relay_protocol::claim::{Lock, LockHolder};
use relay_protocol::task::Task;
use relay_protocol::{DeploymentId, Digest, Timestamp};

/// Seconds for which a holder keeps its slot even though ECS does not know its task. ECS may not
/// know a new task yet (clause LCK-2).
pub const UNKNOWN_HOLDER: i64 = 600;

/// The content of a slot's object, before ECS is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// There is no object, or the object names no holder.
    Empty,
    /// The deployment that the object names holds the slot.
    Held(LockHolder),
    /// The object cannot be read; perhaps a newer version wrote it.
    Unreadable,
}

impl Content {
    /// Parses the object's bytes; `None` means that there is no object.
    pub fn of(object: Option<&[u8]>) -> Self {
        match object.map(Lock::parse) {
            None | Some(Ok(Lock { holder: None })) => Self::Empty,
            Some(Ok(Lock { holder: Some(holder) })) => Self::Held(holder),
            Some(Err(_)) => Self::Unreadable,
        }
    }

    /// The holder, whose task decides whether the slot may be taken.
    pub fn holder(&self) -> Option<&LockHolder> {
        match self {
            Self::Held(holder) => Some(holder),
            Self::Empty | Self::Unreadable => None,
        }
    }

    /// Names the holder of the slot whose object has the key `key`, for people.
    pub fn by(&self, key: &str) -> String {
        match self {
            Self::Empty => "nobody".to_owned(),
            Self::Held(holder) => format!("the deployment {}", holder.deployment_id),
            Self::Unreadable => format!("an unknown holder: {key} cannot be read"),
        }
    }
}

/// The state of a slot.
///
/// ```
/// use relay_engine::lock::Slot;
/// use relay_protocol::claim::LockHolder;
/// use relay_protocol::task::Task;
/// use relay_protocol::{DeploymentId, Timestamp};
///
/// let deployment_id = DeploymentId::new(0, [7; 10]);
/// let holder = LockHolder { deployment_id, task_arn: "arn:task".to_owned(), taken_at: 1_000 };
/// let stopped = Task { last_status: "STOPPED".to_owned(), ..Task::default() };
///
/// // A holder whose task has stopped loses its slot. One that ECS does not know yet keeps it.
/// let soon = Timestamp::from_unix(1_060);
/// assert_eq!(Slot::held(&holder, Some(&stopped), soon), Slot::Stopped);
/// assert!(Slot::Stopped.is_free());
/// assert_eq!(Slot::held(&holder, None, soon), Slot::Fresh);
/// assert!(!Slot::Fresh.is_free());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Nobody holds it.
    Empty,
    /// The asker already holds it: the answer to its own write was lost.
    Mine,
    /// Held by a task that has not stopped.
    Alive,
    /// Held by a task that ECS reports as STOPPED.
    Stopped,
    /// Held by a task that ECS does not know, for longer than [`UNKNOWN_HOLDER`].
    Forgotten,
    /// Held by a task that ECS does not know, for [`UNKNOWN_HOLDER`] or less.
    Fresh,
    /// The holder is unknown, because the object cannot be read.
    Unreadable,
}

impl Slot {
    /// The state of a slot with this content. `task` is what ECS reports about the holder's task,
    /// as in [`Slot::held`].
    pub fn of(content: &Content, task: Option<&Task>, now: Timestamp) -> Self {
        match content {
            Content::Empty => Self::Empty,
            Content::Held(holder) => Self::held(holder, task, now),
            Content::Unreadable => Self::Unreadable,
        }
    }

    /// The state of a slot that `holder` holds. `task` is what ECS reports about its task at `now`;
    /// `None` means that ECS does not know the task.
    pub fn held(holder: &LockHolder, task: Option<&Task>, now: Timestamp) -> Self {
        match task {
            Some(task) if task.has_stopped() => Self::Stopped,
            Some(_) => Self::Alive,
            None if now.unix().saturating_sub(holder.taken_at) > UNKNOWN_HOLDER => Self::Forgotten,
            None => Self::Fresh,
        }
    }

    /// Whether the slot may be taken, by a write that succeeds only if the object is unchanged
    /// since it was read (clause LCK-2).
    pub fn is_free(self) -> bool {
        match self {
            Self::Empty | Self::Mine | Self::Stopped | Self::Forgotten => true,
            Self::Alive | Self::Fresh | Self::Unreadable => false,
        }
    }
}

/// The slot that a deployment tries first. Deployments that start together begin at different
/// slots.
pub fn first(id: &DeploymentId, slots: u32) -> u32 {
    let [a, b, c, d, ..] = *Digest::of(id.as_str().as_bytes()).as_bytes();
    u32::from_be_bytes([a, b, c, d]) % slots.max(1)
}

/// The order in which to try the slots: from `first` on, twice round. A slot that was lost in a
/// race may be free the second time.
pub fn order(first: u32, slots: u32) -> impl Iterator<Item = u32> {
    (0..slots.saturating_mul(2)).map(move |look| first.saturating_add(look) % slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> LockHolder {
        LockHolder {
            deployment_id: DeploymentId::new(1, [1; 10]),
            task_arn: "arn:aws:ecs:eu-west-1:222222222222:task/relay/1".to_owned(),
            taken_at: 1_000,
        }
    }

    #[test]
    fn the_holder_is_who_the_object_names() {
        let object = Lock { holder: Some(holder()) }.to_bytes();
        assert_eq!(Content::of(Some(&object)).holder(), Some(&holder()));
        assert_eq!((Content::of(None).holder(), Content::of(Some(b"x")).holder()), (None, None));
    }

    // clause: LCK-2
    #[test]
    fn a_slot_is_taken_only_from_who_has_ended() {
        let at = |seconds: i64| Timestamp::from_unix(seconds);
        let task = |status: &str| Task { last_status: status.to_owned(), ..Task::default() };
        for (task, now, slot, free) in [
            (Some(task("RUNNING")), 1_000_000, Slot::Alive, false),
            (Some(task("DEPROVISIONING")), 1_000_000, Slot::Alive, false),
            (Some(task("STOPPED")), 1_000, Slot::Stopped, true),
            (None, 1_600, Slot::Fresh, false),
            (None, 1_601, Slot::Forgotten, true),
            // A clock that was set back frees nothing.
            (None, 0, Slot::Fresh, false),
        ] {
            let found = Slot::held(&holder(), task.as_ref(), at(now));
            assert_eq!((found, found.is_free()), (slot, free), "{task:?} at {now}");
        }
        assert!(!Slot::held(&LockHolder { taken_at: i64::MAX, ..holder() }, None, at(i64::MIN)).is_free());
    }

    // clause: LCK-1, LCK-2
    #[test]
    fn what_cannot_be_read_is_held() {
        let held = Lock { holder: Some(holder()) }.to_bytes();
        assert_eq!(Content::of(None), Content::Empty);
        assert_eq!(Content::of(Some(b"{}")), Content::Empty);
        assert_eq!(Content::of(Some(&held)), Content::Held(holder()));
        for odd in [b"".as_slice(), b"[]", b"{\"holder\":[]}", b"{\"version\":2}"] {
            assert_eq!(Content::of(Some(odd)), Content::Unreadable, "{}", String::from_utf8_lossy(odd));
        }
        assert!(!Slot::Unreadable.is_free());
    }

    #[test]
    fn each_slot_is_tried_twice() {
        assert_eq!(order(2, 3).collect::<Vec<_>>(), [2, 0, 1, 2, 0, 1]);
        assert_eq!(order(7, 1).collect::<Vec<_>>(), [0, 0]);
        assert_eq!(order(0, 0).count(), 0);
        assert!(first(&DeploymentId::new(1, [1; 10]), 3) < 3);
    }

    #[test]
    fn deployments_that_start_together_begin_at_different_slots() {
        let begins_at = |n: u8| first(&DeploymentId::new(1, [n; 10]), 8);
        let firsts: std::collections::BTreeSet<u32> = (0..32).map(begins_at).collect();
        assert!(firsts.len() > 4 && firsts.iter().all(|slot| *slot < 8), "{firsts:?}");
        assert_eq!(first(&DeploymentId::new(1, [1; 10]), 0), 0, "no division by zero");
        assert_eq!(order(2, 3).collect::<Vec<_>>(), [2, 0, 1, 2, 0, 1]);
    }

    #[test]
    fn first_slots_spread_over_all_slots() {
        let begins_at = |n: u64| first(&DeploymentId::new(n, [1; 10]), 1_000);
        let (low, high) = (0..1_000).map(begins_at).partition::<Vec<u32>, _>(|slot| *slot < 500);
        assert!((400..600).contains(&low.len()) && low.len() + high.len() == 1_000, "{}", low.len());
    }

    #[test]
    fn a_holder_is_named() {
        let held = Content::Held(holder());
        assert_eq!(held.by("k"), format!("the deployment {}", holder().deployment_id));
        assert_eq!(Content::Empty.by("k"), "nobody");
        assert_eq!(Content::Unreadable.by("locks/k"), "an unknown holder: locks/k cannot be read");
    }
}
