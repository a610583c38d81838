//! The data of one queue: messages by key, the order of the visible ones, and a heap of the times
//! at which hidden ones become visible again.
//!
//! Sending, receiving, deleting and expiring take O(1) or O(log n) and never scan the queue,
//! because relay's benchmarks also run on the sandbox.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::services::call::Now;
use crate::services::fault::SplitMix;
use crate::services::principal::REGION;
use crate::services::resource_policy::Policy;

/// A message as sent; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) body: Arc<str>,
    pub(crate) md5: String,
    pub(crate) attributes: Option<Arc<Map<String, Value>>>,
    pub(crate) attributes_md5: Option<String>,
    pub(crate) sender: Arc<str>,
    pub(crate) sent_ms: u64,
}

/// A message as received.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message: Message,
    pub(crate) receipt: String,
    pub(crate) receives: u32,
    pub(crate) first_received_ms: u64,
}

/// What a receive asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Take {
    pub(crate) max: usize,
    /// How long a received message stays hidden.
    pub(crate) hide: Duration,
    /// If set, takes messages in random order, with this seed.
    pub(crate) shuffle: Option<u64>,
    /// Whether received messages stay visible, so that they are received twice.
    pub(crate) stay: bool,
}

#[derive(Debug)]
struct Stored {
    message: Message,
    /// When the message becomes visible again; `None` if it is visible.
    hidden: Option<Instant>,
    receives: u32,
    first_received_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) account: String,
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) policy: Option<Policy>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) created_ms: u64,
    pub(crate) visible_at: Instant,
    pub(crate) arrived: Arc<Notify>,
    messages: HashMap<u64, Stored>,
    ready: VecDeque<u64>,
    wakes: BinaryHeap<Reverse<(Instant, u64)>>,
    next: u64,
    hidden: usize,
}

impl Queue {
    /// A queue that is not visible yet for `hidden`.
    pub(crate) fn new(account: &str, name: &str, now: Now, hidden: Duration) -> Self {
        Self {
            account: account.to_owned(),
            name: name.to_owned(),
            attributes: BTreeMap::new(),
            policy: None,
            tags: BTreeMap::new(),
            created_ms: now.ms,
            visible_at: now.instant + hidden,
            arrived: Arc::new(Notify::new()),
            messages: HashMap::new(),
            ready: VecDeque::new(),
            wakes: BinaryHeap::new(),
            next: 0,
            hidden: 0,
        }
    }

    pub(crate) fn arn(&self) -> String {
        format!("arn:aws:sqs:{}:{}:{}", REGION, self.account, self.name)
    }

    pub(crate) fn url(&self) -> String {
        format!("https://sqs.{}.amazonaws.com/{}/{}", REGION, self.account, self.name)
    }

    pub(crate) fn seconds(&self, attribute: &str, default: u64) -> Duration {
        Duration::from_secs(self.attributes.get(attribute).and_then(|v| v.parse().ok()).unwrap_or(default))
    }

    pub(crate) fn push(&mut self, now: Now, message: Message, delay: Duration) {
        let key = self.next;
        self.next += 1;
        let hidden = (!delay.is_zero()).then(|| now.instant + delay);
        self.messages.insert(key, Stored { message, hidden, receives: 0, first_received_ms: 0 });
        match hidden {
            None => self.ready.push_back(key),
            Some(until) => {
                self.hidden += 1;
                self.wakes.push(Reverse((until, key)));
            }
        }
        self.arrived.notify_waiters();
    }

    /// Makes messages visible whose time has come, and returns when the next one is due.
    pub(crate) fn wake(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, key))) = self.wakes.peek().copied() {
            let current = self.messages.get_mut(&key).filter(|s| s.hidden == Some(at));
            match current {
                // Deleted since, or hidden until another instant: this wake is stale.
                None => {
                    self.wakes.pop();
                }
                Some(_) if at > now => return Some(at),
                Some(stored) => {
                    stored.hidden = None;
                    self.hidden -= 1;
                    self.ready.push_back(key);
                    self.wakes.pop();
                }
            }
        }
        None
    }

    /// Takes ready messages and hides them.
    pub(crate) fn take(&mut self, now: Now, take: Take) -> Vec<Received> {
        let Take { max, hide, shuffle, stay } = take;
        let mut random = shuffle.map(SplitMix);
        let mut taken = Vec::new();
        let mut again = Vec::new();
        while taken.len() < max {
            if let Some(random) = &mut random
                && self.ready.len() > 1
            {
                let other = random.below(self.ready.len());
                self.ready.swap(0, other);
            }
            let Some(key) = self.ready.pop_front() else { break };
            let Some(stored) = self.messages.get_mut(&key).filter(|s| s.hidden.is_none()) else { continue };
            stored.receives += 1;
            if stored.receives == 1 {
                stored.first_received_ms = now.ms;
            }
            taken.push(Received {
                message: stored.message.clone(),
                receipt: format!("{key}-{}", stored.receives),
                receives: stored.receives,
                first_received_ms: stored.first_received_ms,
            });
            if stay || hide.is_zero() {
                again.push(key);
            } else {
                let until = now.instant + hide;
                stored.hidden = Some(until);
                self.hidden += 1;
                self.wakes.push(Reverse((until, key)));
            }
        }
        self.ready.extend(again);
        taken
    }

    fn find(&self, receipt: &str) -> Option<u64> {
        let (key, receives) = receipt.split_once('-')?;
        let (key, receives): (u64, u32) = (key.parse().ok()?, receives.parse().ok()?);
        (key < self.next && receives > 0).then_some(key)
    }

    /// Deletes a message by receipt. The receipt of an older receive is accepted, but the message
    /// stays, as AWS allows. Returns `None` for a receipt that this queue never issued.
    pub(crate) fn delete(&mut self, receipt: &str) -> Option<()> {
        let key = self.find(receipt)?;
        if let Some(stored) = self.messages.get(&key)
            && receipt.ends_with(&format!("-{}", stored.receives))
        {
            if stored.hidden.is_some() {
                self.hidden -= 1;
            }
            self.messages.remove(&key);
        }
        Some(())
    }

    /// Ready, in flight, delayed.
    pub(crate) fn counts(&mut self, now: Now) -> (usize, usize, usize) {
        self.wake(now.instant);
        let delayed = if self.hidden == 0 {
            0
        } else {
            self.messages.values().filter(|s| s.hidden.is_some() && s.receives == 0).count()
        };
        (self.messages.len() - self.hidden, self.hidden - delayed, delayed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(bodies: &[&str]) -> Queue {
        let now = Now::read();
        let mut queue = Queue::new("111111111111", "q", now, Duration::ZERO);
        for body in bodies {
            let message = Message {
                id: String::new(),
                body: (*body).into(),
                md5: String::new(),
                attributes: None,
                attributes_md5: None,
                sender: "s".into(),
                sent_ms: 0,
            };
            queue.push(now, message, Duration::ZERO);
        }
        queue
    }

    fn take(max: usize) -> Take {
        Take { max, hide: Duration::from_secs(3600), shuffle: None, stay: false }
    }

    #[test]
    fn a_message_comes_back_after_its_timeout_with_a_new_receipt() {
        let now = Now::read();
        let mut queue = queue(&["a", "b"]);
        let first = queue.take(now, take(1)).remove(0);
        assert_eq!(queue.counts(now), (1, 1, 0));
        let later = queue.wake(now.instant).unwrap();
        queue.wake(later);
        let bodies: Vec<_> = queue.take(now, take(2)).into_iter().map(|taken| taken.message.body).collect();
        assert_eq!(bodies.iter().map(|body| &**body).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(queue.delete(&first.receipt), Some(()));
        assert_eq!(queue.counts(now), (0, 2, 0), "an old receipt deletes nothing");
        assert_eq!(queue.delete("77-1"), None);
    }

    #[test]
    fn deleting_after_the_timeout_works_until_the_next_receive() {
        let now = Now::read();
        let mut queue = queue(&["a"]);
        let receipt = queue.take(now, take(1)).remove(0).receipt;
        let later = queue.wake(now.instant).unwrap();
        queue.wake(later);
        queue.delete(&receipt);
        assert!(queue.take(now, take(1)).is_empty());
        assert_eq!(queue.counts(now), (0, 0, 0));
    }

    #[test]
    fn duplicates_stay_and_shuffles_differ() {
        let now = Now::read();
        let mut q = queue(&["a"]);
        let stay = Take { stay: true, ..take(1) };
        assert_eq!(q.take(now, stay).len() + q.take(now, take(1)).len(), 2);
        let names: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let shuffled = || {
            let taken = queue(&names).take(now, Take { shuffle: Some(1), ..take(50) });
            taken.into_iter().map(|taken| taken.message.body).collect::<Vec<_>>()
        };
        let (one, two) = (shuffled(), shuffled());
        assert_eq!(one, two);
        assert_ne!(one.iter().map(|body| &**body).collect::<Vec<_>>(), names);
    }
}
