//! One queue's data: messages by key, an order of ready ones, and a heap of instants at which hidden ones come back.
//!
//! Nothing here scans: sending, receiving, deleting and expiring are each O(1) or O(log n), since this is also the bench that
//! relay's speed is measured against.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::faults::SplitMix;
use crate::resource_policy::Policy;

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

#[derive(Debug)]
struct Stored {
    message: Message,
    /// Hidden until then; `None` is ready.
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
    pub(crate) fn new(account: &str, name: &str, visible_at: Instant) -> Self {
        Self {
            account: account.to_owned(),
            name: name.to_owned(),
            attributes: BTreeMap::new(),
            policy: None,
            tags: BTreeMap::new(),
            created_ms: crate::clock::now_ms(),
            visible_at,
            arrived: Arc::new(Notify::new()),
            messages: HashMap::new(),
            ready: VecDeque::new(),
            wakes: BinaryHeap::new(),
            next: 0,
            hidden: 0,
        }
    }

    pub(crate) fn arn(&self) -> String {
        format!("arn:aws:sqs:{}:{}:{}", crate::REGION, self.account, self.name)
    }

    pub(crate) fn url(&self) -> String {
        format!("https://sqs.{}.amazonaws.com/{}/{}", crate::REGION, self.account, self.name)
    }

    pub(crate) fn seconds(&self, attribute: &str, default: u64) -> Duration {
        Duration::from_secs(self.attributes.get(attribute).and_then(|v| v.parse().ok()).unwrap_or(default))
    }

    pub(crate) fn push(&mut self, message: Message, delay: Duration) {
        let key = self.next;
        self.next += 1;
        let hidden = (!delay.is_zero()).then(|| Instant::now() + delay);
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

    /// Brings back what was hidden until now, and says when the next one comes.
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

    /// Takes up to `max` ready messages and hides them. With `shuffle` from anywhere; with `stay` they remain ready too.
    pub(crate) fn take(&mut self, max: usize, hide: Duration, shuffle: Option<u64>, stay: bool) -> Vec<Received> {
        let now = Instant::now();
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
                stored.first_received_ms = crate::clock::now_ms();
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
                let until = now + hide;
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

    /// Deletes by receipt. A receipt of an older receive is taken, but the message stays, as AWS allows; `None` is a receipt
    /// that this queue never gave.
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

    /// Changes how long a received message stays hidden. `Err(false)` is a bad receipt, `Err(true)` one not in flight.
    pub(crate) fn hide(&mut self, receipt: &str, hide: Duration) -> Result<(), bool> {
        let key = self.find(receipt).ok_or(false)?;
        let Some(stored) = self.messages.get_mut(&key) else { return Err(true) };
        if stored.hidden.is_none() || !receipt.ends_with(&format!("-{}", stored.receives)) {
            return Err(true);
        }
        if hide.is_zero() {
            stored.hidden = None;
            self.hidden -= 1;
            self.ready.push_back(key);
            self.arrived.notify_waiters();
        } else {
            let until = Instant::now() + hide;
            stored.hidden = Some(until);
            self.wakes.push(Reverse((until, key)));
            // Who waits may now wait too long or too short.
            self.arrived.notify_waiters();
        }
        Ok(())
    }

    pub(crate) fn purge(&mut self) {
        self.messages.clear();
        self.ready.clear();
        self.wakes.clear();
        self.hidden = 0;
    }

    /// Ready, in flight, delayed.
    pub(crate) fn counts(&mut self) -> (usize, usize, usize) {
        self.wake(Instant::now());
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
        let mut queue = Queue::new("111111111111", "q", Instant::now());
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
            queue.push(message, Duration::ZERO);
        }
        queue
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_message_comes_back_after_its_timeout_with_a_new_receipt() {
        let mut queue = queue(&["a", "b"]);
        let first = queue.take(1, HOUR, None, false).remove(0);
        assert_eq!(queue.counts(), (1, 1, 0));
        let later = queue.wake(Instant::now()).unwrap();
        queue.wake(later);
        assert_eq!(queue.take(2, HOUR, None, false).iter().map(|r| &*r.message.body).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(queue.delete(&first.receipt), Some(()));
        assert_eq!(queue.counts(), (0, 2, 0), "an old receipt deletes nothing");
        assert_eq!(queue.delete("77-1"), None);
        assert_eq!(queue.hide("0-2", Duration::ZERO), Ok(()));
        assert_eq!(queue.hide("0-2", Duration::ZERO), Err(true));
        assert_eq!(queue.counts(), (1, 1, 0));
    }

    #[test]
    fn deleting_after_the_timeout_works_until_the_next_receive() {
        let mut queue = queue(&["a"]);
        let receipt = queue.take(1, HOUR, None, false).remove(0).receipt;
        let later = queue.wake(Instant::now()).unwrap();
        queue.wake(later);
        queue.delete(&receipt);
        assert!(queue.take(1, HOUR, None, false).is_empty());
        assert_eq!(queue.counts(), (0, 0, 0));
    }

    #[test]
    fn duplicates_stay_and_shuffles_differ() {
        let mut q = queue(&["a"]);
        assert_eq!(q.take(1, HOUR, None, true).len() + q.take(1, HOUR, None, false).len(), 2);
        let names: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let bodies = |r: Vec<Received>| r.into_iter().map(|r| r.message.body).collect::<Vec<_>>();
        let (mut one, mut two) = (queue(&names), queue(&names));
        let (one, two) = (bodies(one.take(50, HOUR, Some(1), false)), bodies(two.take(50, HOUR, Some(1), false)));
        assert_eq!(one, two);
        assert_ne!(one.iter().map(|b| &**b).collect::<Vec<_>>(), names);
    }
}
