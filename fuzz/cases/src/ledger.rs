//! Entries of the ledger, and whole ledgers: whatever is done to one is found, and an untouched one
//! has no problem.

use std::collections::{BTreeMap, BTreeSet};

use relay_engine::ledger::{Audit, Newest, Terms, next};
use relay_protocol::keys::{PrivateKey, SingleKey};
use relay_protocol::ledger::{LedgerEntry, day_of, deployment_of};
use relay_protocol::limits::LEDGER_ENTRY_MAX;
use relay_protocol::{DeploymentId, Digest, Envelope, Statement as _, Timestamp};

use crate::input::Input;
use crate::statement::says_the_same;

const HOUR: i64 = 3_600;

/// Parses the bytes as an entry, and runs them as the history of a bucket.
pub fn ledger(data: &[u8]) {
    if let Ok(entry) = LedgerEntry::parse(data) {
        let payload = entry.to_envelope().unverified_payload().to_vec();
        says_the_same(data, &payload);
        assert_eq!(LedgerEntry::parse(&payload).ok(), Some(entry));
    }
    if let Ok(name) = std::str::from_utf8(data) {
        assert!(name.starts_with(deployment_of(name)));
        assert!(day_of(name).is_none() || deployment_of(name).split('/').count() == 5);
    }
    history(data);
}

/// A bucket: objects with their time and content.
type Bucket = BTreeMap<String, (Timestamp, Vec<u8>)>;

/// The folder of a deployment of the day of `now`.
fn deployment(now: Timestamp, number: u8) -> String {
    let id = DeploymentId::new(u64::try_from(now.unix()).unwrap_or_default() * 1_000, [number; 10]);
    format!("deployments/a/b/{}/{id}", now.day())
}

fn entries(bucket: &Bucket) -> Vec<String> {
    bucket.keys().filter(|name| name.starts_with("ledger/")).cloned().collect()
}

fn read(bytes: &[u8]) -> Option<LedgerEntry> {
    LedgerEntry::parse(Envelope::parse(bytes, LEDGER_ENTRY_MAX).ok()?.unverified_payload()).ok()
}

/// Each byte does something to the bucket: an hour passes and an entry is written, or an object is
/// put. What comes after a zero tampers with it.
fn history(data: &[u8]) {
    let key = PrivateKey::from_seed([7; 32]);
    let mut now = Timestamp::from_unix(1_780_315_200);
    let mut bucket = Bucket::new();
    let (good, bad) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => data.split_at(at),
        None => (data, [].as_slice()),
    };
    for byte in good.iter().take(64) {
        now = now.plus(60);
        match byte % 4 {
            0 => {
                now = now.plus(HOUR * i64::from(byte / 64));
                write(&mut bucket, &key, now);
            }
            _ => {
                let kind =
                    ["claim", "runner/record.json", "launcher/vsa.json", "request.json"][usize::from(byte / 4 % 4)];
                let name = format!("{}/{kind}", deployment(now, byte / 16));
                bucket.entry(name).or_insert_with(|| (now, vec![*byte]));
            }
        }
    }
    write(&mut bucket, &key, now.plus(HOUR));
    let now = now.plus(HOUR);
    assert_eq!(audit(&bucket, &key, now), Vec::<String>::new(), "an untouched ledger has no problem");
    let mut input = Input(bad);
    let Some(_) = input.operation() else { return };
    let newest = entries(&bucket).pop();
    let mut touched = bucket.clone();
    while let Some(operation) = input.operation() {
        let names: Vec<String> =
            touched.keys().filter(|name| name.starts_with("ledger/") || day_of(name).is_some()).cloned().collect();
        let Some(name) = names.get(input.below(names.len())) else { return };
        match operation % 3 {
            // That the newest entry was removed, with what it lists, only a copy or the log shows
            // (clause LED-4).
            0 if Some(name) == newest.as_ref() => {}
            0 => drop(touched.remove(name)),
            1 => {
                let Some((_, bytes)) = touched.get_mut(name) else { return };
                let at = input.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= input.byte();
                }
            }
            _ => {
                let left_out = format!("{}/claim", deployment(now, 16 + input.byte() % 16));
                touched.insert(left_out, (Timestamp::from_unix(1), Vec::new()));
            }
        }
    }
    // What no signature covers, such as a hint, may be changed; all else is found.
    let same = |one: &Bucket, other: &Bucket| {
        one.len() == other.len()
            && one.iter().all(|(name, (_, bytes))| {
                other.get(name).is_some_and(|(_, found)| {
                    bytes == found || name.starts_with("ledger/") && read(bytes) == read(found) && read(bytes).is_some()
                })
            })
    };
    if !same(&bucket, &touched) {
        assert!(!audit(&touched, &key, now).is_empty(), "nobody missed it");
    }
}

fn write(bucket: &mut Bucket, key: &PrivateKey, now: Timestamp) {
    let listed: BTreeSet<String> = entries(bucket)
        .iter()
        .filter_map(|name| read(&bucket[name].1))
        .flat_map(|entry| entry.objects.into_keys())
        .collect();
    let unlisted = bucket.iter().filter(|(name, _)| day_of(name).is_some() && !listed.contains(*name));
    let unlisted = unlisted.map(|(name, (_, bytes))| (name.clone(), Digest::of(bytes))).collect();
    let newest = entries(bucket).last().and_then(|name| {
        let bytes = &bucket[name].1;
        Some(Newest { entry: read(bytes)?, sha256: Digest::of(bytes) })
    });
    if let Some(entry) = next("evidence", newest.as_ref(), unlisted, now, HOUR) {
        let name = entry.object();
        bucket.insert(name, (now, key.sign_envelope(entry.to_envelope()).to_json().into_bytes()));
    }
}

fn audit(bucket: &Bucket, key: &PrivateKey, now: Timestamp) -> Vec<String> {
    let keys = vec![SingleKey::new(key.public()).expect("a good key")];
    let mut audit = Audit::new(Terms { bucket: "evidence".to_owned(), keys, now, retention_days: 400 });
    for name in entries(bucket) {
        audit.entry(&name, &bucket[&name].1);
    }
    for (name, (written_at, bytes)) in bucket {
        audit.object(name, *written_at, Some(Digest::of(bytes)));
    }
    // A claim without a record is no problem here: most of these deployments have none.
    let problems = audit.end(&BTreeSet::new());
    problems.iter().map(ToString::to_string).collect()
}
