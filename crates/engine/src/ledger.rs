//! The ledger of the evidence: what its next entry is, and what a whole ledger proves (clauses
//! LED-1 to LED-4).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use relay_protocol::keys::SingleKey;
use relay_protocol::ledger::{DAY, DAYS_BACK, LedgerEntry, day_of, deployment_of, must_list};
use relay_protocol::limits::{CLOCK_SKEW, LEDGER_AGE_MAX, LEDGER_ENTRY_MAX, LEDGER_OBJECTS_MAX};
use relay_protocol::{Digest, Envelope, Timestamp};

/// An entry that stands, with the SHA-256 of its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// The entry.
    pub entry: LedgerEntry,
    /// The SHA-256 of its object.
    pub sha256: Digest,
}

/// Whether another entry may be due: the newest one has not reached this period, or it was full.
/// `period` is in seconds.
pub fn is_due(newest: Option<&Newest>, now: Timestamp, period: i64) -> bool {
    newest.is_none_or(|Newest { entry, .. }| {
        entry.until < begin(now, period) || entry.objects.len() >= LEDGER_OBJECTS_MAX
    })
}

/// The beginning of the period that `now` is in.
fn begin(now: Timestamp, period: i64) -> Timestamp {
    Timestamp::from_unix(now.unix() - now.unix() % period)
}

/// The next entry of the ledger of `bucket`, with the first [`LEDGER_OBJECTS_MAX`] of the objects
/// that no entry lists yet. `None` if none is due ([`is_due`]), or if the newest one was full and
/// nothing is left.
pub fn next(
    bucket: &str,
    newest: Option<&Newest>,
    unlisted: BTreeMap<String, Digest>,
    now: Timestamp,
    period: i64,
) -> Option<LedgerEntry> {
    let until = begin(now, period);
    let objects: BTreeMap<_, _> = unlisted.into_iter().take(LEDGER_OBJECTS_MAX).collect();
    let bucket = bucket.to_owned();
    let Some(Newest { entry, sha256 }) = newest else {
        return Some(LedgerEntry { bucket, number: 0, previous: None, from: until.plus(-period), until, objects });
    };
    if !is_due(newest, now, period) || (entry.until >= until && objects.is_empty()) {
        return None;
    }
    let (from, until) = (entry.until, until.max(entry.until));
    Some(LedgerEntry { bucket, number: entry.number + 1, previous: Some(*sha256), from, until, objects })
}

/// Something that a ledger or the objects in it do not prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object that it is about.
    pub object: String,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.text)
    }
}

/// What an audit starts from.
#[derive(Debug)]
pub struct Terms {
    /// The evidence bucket.
    pub bucket: String,
    /// The ledger key and, after a rotation, those before it, the newest first.
    pub keys: Vec<SingleKey>,
    /// The time of the audit.
    pub now: Timestamp,
    /// Days for which claims, records and entries are kept. What is older may have expired.
    pub retention_days: i64,
}

/// An audit of a ledger: first every entry in order, then every object.
#[derive(Debug)]
pub struct Audit {
    terms: Terms,
    first: Option<LedgerEntry>,
    newest: Option<Newest>,
    /// Which of the keys signed the newest entry.
    signed_by: usize,
    /// The objects that the ledger lists, and when the entry that lists each ended.
    listed: BTreeMap<String, (Digest, Timestamp)>,
    problems: Vec<Problem>,
}

impl Audit {
    /// Starts with nothing.
    pub fn new(terms: Terms) -> Self {
        let signed_by = terms.keys.len();
        Self { terms, first: None, newest: None, signed_by, listed: BTreeMap::new(), problems: Vec::new() }
    }

    fn problem(&mut self, object: &str, text: impl Into<String>) {
        self.problems.push(Problem { object: object.to_owned(), text: text.into() });
    }

    /// Takes the next entry, in the order of names.
    pub fn entry(&mut self, name: &str, bytes: &[u8]) {
        let (entry, key) = match self.verify(bytes) {
            Ok(verified) => verified,
            Err(problem) => return self.problem(name, problem),
        };
        if key > self.signed_by {
            self.problem(name, "is signed by an older key than the entry before it");
        }
        self.signed_by = key;
        if entry.object() != name {
            self.problem(name, format!("is the entry {}", entry.object()));
        }
        if entry.bucket != self.terms.bucket {
            self.problem(name, format!("is of another bucket, {}", entry.bucket));
        }
        match &self.newest {
            None if (entry.number == 0) != entry.previous.is_none() => {
                self.problem(name, "has a predecessor exactly if it is not the first");
            }
            None => {}
            Some(before) if before.entry.number + 1 != entry.number => {
                let text = format!("has the number {}, and the entry before it {}", entry.number, before.entry.number);
                self.problem(name, text);
            }
            Some(before) if entry.previous != Some(before.sha256) => {
                self.problem(name, "names another predecessor than the entry before it: one of them was changed");
            }
            Some(before) if before.entry.until != entry.from || entry.until < entry.from => {
                let text = format!(
                    "is about {} to {}, and the one before ends at {}",
                    entry.from, entry.until, before.entry.until
                );
                self.problem(name, text);
            }
            Some(_) => {}
        }
        for (key, sha256) in &entry.objects {
            if self.listed.insert(key.clone(), (*sha256, entry.until)).is_some() {
                self.problem(key, "is listed twice");
            }
        }
        self.first.get_or_insert_with(|| entry.clone());
        self.newest = Some(Newest { entry, sha256: Digest::of(bytes) });
    }

    /// Verifies an entry. Also returns which of the keys has signed it.
    fn verify(&self, bytes: &[u8]) -> Result<(LedgerEntry, usize), String> {
        // Base64 takes four bytes for three.
        let envelope = Envelope::parse(bytes, 2 * LEDGER_ENTRY_MAX).map_err(|error| error.to_string())?;
        let mut refused = "no key was given".to_owned();
        for (index, key) in self.terms.keys.iter().enumerate() {
            match key.verify::<LedgerEntry>(&envelope) {
                Ok(verified) => return Ok((verified.statement().clone(), index)),
                Err(error) => refused = error.to_string(),
            }
        }
        Err(refused)
    }

    /// Takes an object of the bucket: its name, when it was written, and, if the ledger lists it,
    /// the SHA-256 of its bytes.
    pub fn object(&mut self, key: &str, written_at: Timestamp, sha256: Option<Digest>) {
        let covered = self.newest.as_ref().is_some_and(|newest| must_list(key, written_at, newest.entry.until));
        match self.listed.remove(key) {
            Some((listed, _)) if sha256 == Some(listed) => {}
            Some(_) => self.problem(key, "was changed: its SHA-256 is not that of the ledger"),
            None if covered => self.problem(key, "is in no entry of the ledger, and was there in time"),
            None => {}
        }
    }

    /// Ends the audit, when every object was taken. Returns what is wrong, and nothing if all is
    /// well. `found` are the names of all objects.
    pub fn end(mut self, found: &BTreeSet<String>) -> Vec<Problem> {
        let Terms { now, retention_days, .. } = self.terms;
        // An object may be older than the entry that lists it, and expires as much earlier.
        let kept_since = now.plus(-retention_days * DAY);
        for (key, (_, until)) in std::mem::take(&mut self.listed) {
            if until > kept_since.plus((DAYS_BACK + 1) * DAY) {
                self.problem(&key, "was removed");
            }
        }
        match (self.first.take(), self.newest.take()) {
            (Some(first), Some(Newest { entry: newest, .. })) => {
                if first.number > 0 && first.from > kept_since.plus(DAY) {
                    self.problem(
                        &first.object(),
                        "is the first entry that is there, and those before it cannot have expired yet",
                    );
                }
                if !(-CLOCK_SKEW..=LEDGER_AGE_MAX).contains(&now.since(newest.until)) {
                    let text = format!(
                        "is the newest entry, and ends at {}: the function relay-ledger has stopped, or what it wrote was removed",
                        newest.until
                    );
                    self.problem(&newest.object(), text);
                }
                if self.signed_by > 0 {
                    let text = "is the newest entry, and the newest of the keys has not signed it";
                    self.problem(&newest.object(), text);
                }
            }
            _ => self.problem("ledger/", "has no entry"),
        }
        for claim in found.iter().filter(|key| key.ends_with("/claim")) {
            let Some(day) = day_of(claim) else { continue };
            let folder = deployment_of(claim);
            let has = |name: &str| found.contains(&format!("{folder}/{name}"));
            let may_run = day.plus((DAYS_BACK + 1) * DAY) > now;
            if !may_run && !has("runner/record.json") && !has("launcher/record.json") {
                self.problem(claim, "belongs to a deployment that left no record");
            }
        }
        self.problems
    }
}

#[cfg(test)]
mod tests {
    use relay_protocol::DeploymentId;
    use relay_protocol::keys::PrivateKey;

    use super::*;

    const HOUR: i64 = 3_600;

    fn key() -> PrivateKey {
        PrivateKey::from_seed([7; 32])
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// An evidence bucket with a ledger: the objects by name, each with its time.
    #[derive(Clone, Default)]
    struct Bucket {
        objects: BTreeMap<String, (Timestamp, Vec<u8>)>,
    }

    impl Bucket {
        fn put(&mut self, name: &str, now: Timestamp) {
            self.objects.insert(name.to_owned(), (now, name.as_bytes().to_vec()));
        }

        fn entries(&self) -> Vec<String> {
            self.objects.keys().filter(|name| name.starts_with("ledger/")).cloned().collect()
        }

        fn read(&self, name: &str) -> LedgerEntry {
            let envelope = Envelope::parse(&self.objects[name].1, LEDGER_ENTRY_MAX).unwrap();
            relay_protocol::Statement::parse(envelope.unverified_payload()).unwrap()
        }

        /// The function, once. Returns whether it wrote an entry.
        fn write(&mut self, now: Timestamp) -> bool {
            let listed: BTreeSet<String> =
                self.entries().iter().flat_map(|name| self.read(name).objects.into_keys()).collect();
            let unlisted = self.objects.iter().filter(|(name, _)| day_of(name).is_some() && !listed.contains(*name));
            let unlisted = unlisted.map(|(name, (_, bytes))| (name.clone(), Digest::of(bytes))).collect();
            let newest = self
                .entries()
                .last()
                .map(|name| Newest { entry: self.read(name), sha256: Digest::of(&self.objects[name].1) });
            let Some(entry) = next("evidence", newest.as_ref(), unlisted, now, HOUR) else { return false };
            self.sign(entry, now);
            true
        }

        fn sign(&mut self, entry: LedgerEntry, now: Timestamp) {
            let name = entry.object();
            let signed = key().sign_envelope(entry.to_envelope());
            self.objects.insert(name, (now, signed.to_json().into_bytes()));
        }

        fn audit(&self, now: Timestamp) -> Vec<String> {
            self.audit_by(&[SingleKey::new(key().public()).unwrap()], now)
        }

        fn audit_by(&self, keys: &[SingleKey], now: Timestamp) -> Vec<String> {
            let terms = Terms { bucket: "evidence".to_owned(), keys: keys.to_vec(), now, retention_days: 400 };
            let mut audit = Audit::new(terms);
            for name in self.entries() {
                audit.entry(&name, &self.objects[&name].1);
            }
            for (name, (written_at, bytes)) in &self.objects {
                audit.object(name, *written_at, Some(Digest::of(bytes)));
            }
            audit.end(&self.objects.keys().cloned().collect()).iter().map(ToString::to_string).collect()
        }
    }

    const CLAIM: &str = "deployments/demo/hello/2026-06-01/019e8214-5200-7000-8000-00000000000a/claim";
    const RECORD: &str = "deployments/demo/hello/2026-06-01/019e8214-5200-7000-8000-00000000000a/runner/record.json";
    const OTHER: &str = "deployments/demo/hello/2026-06-01/019e8214-5200-7000-8000-00000000000b/claim";
    const NOW: &str = "2026-06-01T14:20:00Z";

    /// Three hours: a claim, nothing, its record and another claim.
    fn bucket() -> Bucket {
        let mut bucket = Bucket::default();
        bucket.put(CLAIM, at("2026-06-01T11:50:00Z"));
        assert!(bucket.write(at("2026-06-01T12:05:00Z")));
        assert!(bucket.write(at("2026-06-01T13:05:00Z")));
        bucket.put(RECORD, at("2026-06-01T13:30:00Z"));
        bucket.put(OTHER, at("2026-06-01T13:40:00Z"));
        assert!(bucket.write(at("2026-06-01T14:05:00Z")));
        bucket
    }

    // clause: LED-1, LED-2
    #[test]
    fn an_entry_begins_where_the_one_before_ended() {
        let mut bucket = bucket();
        let entries: Vec<LedgerEntry> = bucket.entries().iter().map(|name| bucket.read(name)).collect();
        let spans: Vec<_> = entries.iter().map(|entry| (entry.number, entry.from.hour(), entry.until.hour())).collect();
        assert_eq!(spans, [(0, 11, 12), (1, 12, 13), (2, 13, 14)]);
        assert!(entries[1].objects.is_empty(), "an hour in which nothing happened has an entry too");
        assert_eq!(entries[2].objects.keys().collect::<Vec<_>>(), [RECORD, OTHER]);
        assert!(!bucket.write(at("2026-06-01T14:59:59Z")), "a second time in the same hour");
        // After an outage, one entry is about all the time since.
        assert!(bucket.write(at("2026-06-01T18:05:00Z")));
        let entry = bucket.read(bucket.entries().last().unwrap());
        assert_eq!((entry.number, entry.from.hour(), entry.until.hour()), (3, 14, 18));
    }

    // clause: LED-2
    #[test]
    fn what_does_not_fit_is_in_another_entry_of_the_same_hour() {
        let target = format!("{}/{}", "a".repeat(63), "b".repeat(63));
        let object = |number: usize| {
            let mut random = [0; 10];
            random[2..].copy_from_slice(&number.to_be_bytes());
            let id = DeploymentId::new(1_780_315_200_000, random);
            let name = format!("deployments/{target}/2026-06-01/{id}/launcher/record.json");
            assert!(day_of(&name).is_some(), "{name}");
            (name, Digest::of(b""))
        };
        let all: BTreeMap<_, _> = (0..=LEDGER_OBJECTS_MAX).map(object).collect();
        let now = at(NOW);
        let first = next("evidence", None, all.clone(), now, HOUR).unwrap();
        assert_eq!(first.objects.len(), LEDGER_OBJECTS_MAX);
        assert!(first.to_envelope().unverified_payload().len() < LEDGER_ENTRY_MAX);
        let rest: BTreeMap<_, _> = all.into_iter().filter(|(key, _)| !first.objects.contains_key(key)).collect();
        let newest = Newest { entry: first, sha256: Digest::of(b"first") };
        let second = next("evidence", Some(&newest), rest, now, HOUR).unwrap();
        assert_eq!((second.from, second.until, second.objects.len()), (newest.entry.until, newest.entry.until, 1));
        assert_eq!(next("evidence", Some(&newest), BTreeMap::new(), now, HOUR), None);
    }

    // clause: LED-3
    #[test]
    fn a_whole_ledger_has_no_problem() {
        assert_eq!(bucket().audit(at(NOW)), Vec::<String>::new());
        // The newest entry does not cover what was written after it.
        let mut newer = bucket();
        newer.put(
            "deployments/demo/hello/2026-06-01/019e8214-5200-7000-8000-00000000000c/claim",
            at("2026-06-01T14:10:00Z"),
        );
        assert_eq!(newer.audit(at(NOW)), Vec::<String>::new());
    }

    // clause: LED-3, LED-4
    #[test]
    fn whatever_is_removed_changed_or_left_out_is_found() {
        let change = |change: &dyn Fn(&mut Bucket)| {
            let mut bucket = bucket();
            change(&mut bucket);
            bucket.audit(at(NOW))
        };
        let one = |found: Vec<String>, object: &str, text: &str| {
            assert!(found.iter().any(|found| found.starts_with(object) && found.contains(text)), "{text}: {found:?}");
        };
        let entry = |bucket: &Bucket, number: usize| bucket.entries()[number].clone();
        for object in [CLAIM, RECORD, OTHER] {
            one(change(&|bucket| drop(bucket.objects.remove(object))), object, "was removed");
            one(change(&|bucket| bucket.objects.get_mut(object).unwrap().1.push(b' ')), object, "was changed");
        }
        let left_out = "deployments/demo/hello/2026-06-01/019e8214-5200-7000-8000-00000000000d/claim";
        one(change(&|bucket| bucket.put(left_out, at("2026-06-01T13:59:59Z"))), left_out, "in no entry");
        // A gap in the middle, at the end, and at the beginning.
        one(change(&|bucket| drop(bucket.objects.remove(&entry(bucket, 1)))), "ledger/", "has the number 2");
        one(change(&|bucket| drop(bucket.objects.remove(&entry(bucket, 0)))), "ledger/", "cannot have expired yet");
        let without_end = |bucket: &mut Bucket| {
            let names = bucket.entries();
            names.iter().for_each(|name| drop(bucket.objects.remove(name)));
        };
        one(change(&without_end), "ledger/", "has no entry");
        // Each byte of an entry.
        let length = {
            let bucket = bucket();
            bucket.objects[&entry(&bucket, 1)].1.len()
        };
        for index in 0..length {
            let found = change(&|bucket| {
                let name = entry(bucket, 1);
                bucket.objects.get_mut(&name).unwrap().1[index] ^= 1;
            });
            assert!(!found.is_empty(), "byte {index}");
        }
        // Entries that the ledger's key has signed, and that do not fit.
        let resigned = |change_entry: &dyn Fn(&mut LedgerEntry)| {
            change(&|bucket| {
                let mut changed = bucket.read(&entry(bucket, 1));
                change_entry(&mut changed);
                bucket.sign(changed, at(NOW));
            })
        };
        one(resigned(&|entry| entry.objects.extend([(CLAIM.to_owned(), Digest::of(b"x"))])), CLAIM, "listed twice");
        one(resigned(&|entry| entry.from = entry.from.plus(60)), "ledger/", "the one before ends at");
        one(resigned(&|entry| entry.bucket = "other".to_owned()), "ledger/", "of another bucket");
        one(resigned(&|entry| entry.previous = Some(Digest::of(b"x"))), "ledger/", "another predecessor");
        // A missing hour, signed or not.
        let missing = |bucket: &mut Bucket| {
            let names = bucket.entries();
            let mut last = bucket.read(&names[2]);
            let sha256 = Digest::of(&bucket.objects[&names[0]].1);
            bucket.objects.remove(&names[1]);
            bucket.objects.remove(&names[2]);
            (last.number, last.previous) = (1, Some(sha256));
            bucket.sign(last, at(NOW));
        };
        one(change(&missing), "ledger/", "the one before ends at");
        // An old end.
        assert!(bucket().audit(at("2026-06-01T16:00:00Z")).is_empty());
        one(bucket().audit(at("2026-06-01T16:00:01Z")), "ledger/", "has stopped");
        one(bucket().audit(at("2026-06-01T13:00:00Z")), "ledger/", "is the newest entry");
    }

    // clause: LED-4
    #[test]
    fn a_claim_without_a_record_is_found_and_what_is_too_old_is_not() {
        let mut bucket = bucket();
        let later = at("2026-06-20T10:30:00Z");
        assert!(bucket.write(later));
        assert_eq!(bucket.audit(later), [format!("{OTHER}: belongs to a deployment that left no record")]);
        // Four hundred days later, everything has expired; only the newest entries are there.
        let much_later = at("2027-08-01T10:30:00Z");
        assert!(bucket.write(at("2027-08-01T10:05:00Z")));
        bucket.objects.retain(|name, _| name.starts_with("ledger/"));
        let old = bucket.entries();
        old[..3].iter().for_each(|name| drop(bucket.objects.remove(name)));
        assert_eq!(bucket.audit(much_later), Vec::<String>::new());
    }

    // clause: KEY-9, KEY-10
    #[test]
    fn entries_of_the_key_before_stand_while_it_is_given() {
        let mut bucket = bucket();
        let name = bucket.entries()[2].clone();
        let new = PrivateKey::from_seed([8; 32]);
        let signed = new.sign_envelope(bucket.read(&name).to_envelope());
        bucket.objects.get_mut(&name).unwrap().1 = signed.to_json().into_bytes();
        let both = [new.public(), key().public()].map(|public| SingleKey::new(public).unwrap());
        assert_eq!(bucket.audit_by(&both, at(NOW)), Vec::<String>::new());
        let found = bucket.audit_by(&both[..1], at(NOW));
        assert!(found.iter().any(|found| found.starts_with(&bucket.entries()[0])), "{found:?}");
        // Whoever has the old key can write no entry after the first of the new key.
        let name = bucket.entries()[0].clone();
        let signed = new.sign_envelope(bucket.read(&name).to_envelope());
        bucket.objects.get_mut(&name).unwrap().1 = signed.to_json().into_bytes();
        let found = bucket.audit_by(&both, at(NOW));
        assert!(found.iter().any(|found| found.contains("an older key than the entry before it")), "{found:?}");
        // Nor can a ledger end with it.
        let found = self::bucket().audit_by(&both, at(NOW));
        assert!(found.iter().any(|found| found.contains("the newest of the keys has not signed it")), "{found:?}");
    }

    // clause: LED-1
    #[test]
    fn another_key_proves_nothing() {
        let mut bucket = bucket();
        let name = bucket.entries()[2].clone();
        let forged = PrivateKey::from_seed([8; 32]).sign_envelope(bucket.read(&name).to_envelope());
        bucket.objects.get_mut(&name).unwrap().1 = forged.to_json().into_bytes();
        assert!(bucket.audit(at(NOW)).iter().any(|found| found.starts_with(&name)));
    }
}
