//! The tags of a deployment's reply queue, for readers that join late: its identity, its deadline,
//! and how far its output was printed (clauses NAM-7, FRM-19). Tags are not signed. Anyone who may
//! write them could delete the queue as well, so only convenience depends on them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use relay_aws::clock::now;
use relay_aws::queues::Queues;
use relay_engine::Inbox;
use relay_protocol::keys::Cached;
use relay_protocol::limits::START_DELAY_MAX;
use relay_protocol::{DeploymentId, Digest, TargetName, Timestamp, TopicArn};
use tokio::task::JoinSet;

use crate::queues::Pair;
use crate::state::State;

const DEPLOYMENT: &str = "relay-deployment";
const TARGET: &str = "relay-target";
const TOPIC: &str = "relay-topic";
const REQUEST: &str = "relay-request";
const DEADLINE: &str = "relay-deadline";
const ACKNOWLEDGED: &str = "relay-acknowledged";
const FOLLOWED: &str = "relay-followed-at";
const LEFT: &str = "relay-left";
const STATE: &str = "relay-state";

/// The pause between two updates of the printed position.
const TAGGING: Duration = Duration::from_secs(30);

/// Seconds that a deployment may live if nobody saw its admission: twice the longest timeout that a
/// target can have, with its grace periods.
const UNSEEN: i64 = 50 * 3_600;

/// The tags of one deployment. A tag that cannot be parsed counts as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tags {
    pub(crate) deployment: Option<DeploymentId>,
    pub(crate) target: Option<TargetName>,
    pub(crate) topic: Option<TopicArn>,
    pub(crate) request: Option<Digest>,
    /// The time by which the deployment is over at the latest.
    pub(crate) deadline: Option<Timestamp>,
    /// Frames below this number are written out.
    pub(crate) acknowledged: u64,
    /// When a reader last followed.
    pub(crate) followed: Option<Timestamp>,
    /// Whether the last reader left on purpose. Then `acknowledged` is exact, and nothing above it
    /// was deleted.
    pub(crate) left: bool,
    /// How far the deployment was when a reader last wrote.
    pub(crate) state: State,
}

impl Tags {
    /// The tags of a request that expires at `expires`, before it is published.
    pub(crate) fn new(id: &DeploymentId, target: &TargetName, topic: &TopicArn, expires: Timestamp) -> Self {
        Self {
            deployment: Some(id.clone()),
            target: Some(target.clone()),
            topic: Some(topic.clone()),
            deadline: Some(expires.plus(START_DELAY_MAX + UNSEEN)),
            ..Self::default()
        }
    }

    /// Reads the tags of a queue.
    pub(crate) fn parse(tags: &BTreeMap<String, String>) -> Self {
        fn read<T: std::str::FromStr>(tags: &BTreeMap<String, String>, name: &str) -> Option<T> {
            tags.get(name)?.parse().ok()
        }
        Self {
            deployment: read(tags, DEPLOYMENT),
            target: read(tags, TARGET),
            topic: read(tags, TOPIC),
            request: read(tags, REQUEST),
            deadline: read(tags, DEADLINE),
            acknowledged: read(tags, ACKNOWLEDGED).unwrap_or_default(),
            followed: read(tags, FOLLOWED),
            left: read(tags, LEFT).unwrap_or_default(),
            state: read(tags, STATE).unwrap_or_default(),
        }
    }

    /// Returns the tags as SQS takes them; absent ones are left out.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, String)> {
        [
            (DEPLOYMENT, self.deployment.as_ref().map(ToString::to_string)),
            (TARGET, self.target.as_ref().map(ToString::to_string)),
            (TOPIC, self.topic.as_ref().map(ToString::to_string)),
            (REQUEST, self.request.as_ref().map(ToString::to_string)),
            (DEADLINE, self.deadline.as_ref().map(ToString::to_string)),
            (ACKNOWLEDGED, Some(self.acknowledged.to_string())),
            (FOLLOWED, self.followed.as_ref().map(ToString::to_string)),
            (LEFT, Some(self.left.to_string())),
            (STATE, Some(self.state.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    /// Whether the deployment has been over for more than `keep` seconds. A deployment without a
    /// deadline is left alone.
    pub(crate) fn is_dead(&self, now: Timestamp, keep: i64) -> bool {
        self.deadline.is_some_and(|deadline| now.since(deadline) > keep)
    }
}

/// Keeps the tags of the reply queue up to date.
#[derive(Debug)]
pub(crate) struct TagWriter {
    queues: Queues,
    pair: Pair,
    /// The tags to write, the tags as last written, and when that was.
    tags: Tags,
    written: Tags,
    written_at: Option<Instant>,
    writing: JoinSet<()>,
}

impl TagWriter {
    /// Creates a writer. It writes nothing to a pre-made queue, which has no tags of the
    /// deployment.
    pub(crate) fn new(queues: Queues, pair: Pair, tags: Tags) -> Self {
        Self { queues, pair, tags, written: Tags::default(), written_at: None, writing: JoinSet::new() }
    }

    /// Writes the tags if they have changed: the request, the deadline and the state immediately,
    /// the printed position at most every 30 seconds. With `last`, also records that this reader
    /// has stopped.
    pub(crate) fn write(&mut self, inbox: &Inbox<Cached>, last: bool) {
        while self.writing.try_join_next().is_some() {}
        self.tags.acknowledged = inbox.acknowledged();
        self.tags.deadline = inbox.deadline().or(self.tags.deadline);
        self.tags.left = last;
        self.tags.state = State::of(inbox).max(self.tags.state.clone());
        let life = |tags: &Tags| (tags.request, tags.deadline, tags.state.clone());
        let same_life = life(&self.tags) == life(&self.written);
        let due = last || !same_life || self.written_at.is_none_or(|at| at.elapsed() >= TAGGING);
        let news = last || !same_life || self.tags.acknowledged != self.written.acknowledged;
        if !self.pair.own || !due || !news || (!last && !self.writing.is_empty()) {
            return;
        }
        (self.written, self.written_at) = (self.tags.clone(), Some(Instant::now()));
        let (queues, queue) = (self.queues.clone(), self.pair.reply.clone());
        let pairs = Tags { followed: Some(now()), ..self.tags.clone() }.pairs();
        self.writing.spawn(async move {
            if let Err(error) = queues.tag(&queue, &pairs).await {
                // The next reader then knows less, and says so.
                tracing::debug!(%error, "tagging");
            }
        });
    }

    /// Waits until all writes have ended.
    pub(crate) async fn written(&mut self) {
        while self.writing.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_fits_into_tags() {
        let topic: TopicArn = "arn:aws:sns:eu-west-1:222222222222:relay".parse().unwrap();
        let id = DeploymentId::new(1, [7; 10]);
        let new = Tags::new(&id, &"payments/production".parse().unwrap(), &topic, Timestamp::from_unix(1_000));
        let all = Tags {
            request: Some(Digest::of(b"x")),
            acknowledged: 7,
            left: true,
            followed: Some(Timestamp::from_unix(5)),
            state: State::Finished(3),
            ..new.clone()
        };
        for tags in [new.clone(), all] {
            let pairs = tags.pairs();
            // SQS allows letters, digits, spaces and these characters: 128 in a name, 256 in a
            // value.
            let fits = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || " +-=._:/@".contains(c));
            assert!(pairs.iter().all(|(name, value)| fits(name) && fits(value) && value.len() <= 256), "{pairs:?}");
            let map = pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            assert_eq!(Tags::parse(&map), tags);
        }
        assert_eq!(Tags::parse(&BTreeMap::from([(DEADLINE.to_owned(), "soon".to_owned())])), Tags::default());
    }

    #[test]
    fn only_what_says_that_it_is_over_is_dead() {
        let at = |seconds| Tags { deadline: Some(Timestamp::from_unix(seconds)), ..Tags::default() };
        let now = Timestamp::from_unix(10_000);
        assert!(at(8_999).is_dead(now, 1_000) && !at(9_000).is_dead(now, 1_000));
        assert!(!at(10_001).is_dead(now, 0) && !Tags::default().is_dead(now, 0));
    }
}
