//! Walks `vectors/`: for each file, our code must reach the verdict that the file expects.

use std::collections::BTreeSet;
use std::path::Path;

use relay_protocol::Digest;
use relay_tests::vectors::{Vector, directory, frozen, made, on_disk, verdict};

/// SHA-256 of the frozen vectors: of each name and text, in the order of the names.
const FROZEN: &str = "c71bd075389cae67a86fbfa39546b0a44d6b3bd8f4ed628e5a71b9f2f9c24948";

#[test]
fn our_verdict_is_the_expected_one() {
    judge(&directory());
}

// clause: VER-5
#[test]
fn the_vectors_of_version_1_are_kept_and_replayed() {
    let all = on_disk(&frozen());
    let text: String = all.iter().flat_map(|(name, text)| [name.as_str(), "\n", text]).collect();
    assert_eq!(Digest::of(text.as_bytes()).to_string(), FROZEN, "vectors/v1 never changes");
    judge(&frozen());
}

fn judge(root: &Path) {
    let mut wrong = Vec::new();
    let all = on_disk(root);
    for (name, text) in &all {
        let vector: Vector = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (folder, _) = name.split_once('/').expect("a vector is in a directory");
        let (said, out) = match verdict(folder, &vector) {
            Ok(out) => ("ok", out),
            Err(class) => (class, relay_tests::vectors::Out::default()),
        };
        let same = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        let right = said == vector.expect
            && same(&vector.digest, &out.digest)
            && same(&vector.canonical, &out.canonical)
            && vector.signers == out.signers;
        if !right {
            wrong.push(format!("{name}: expected {}, got {said} ({})", vector.expect, vector.comment));
        }
    }
    assert!(wrong.is_empty(), "{} of {} vectors:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert!(all.len() > 150, "the directory is walked: {}", all.len());
}

#[test]
fn the_files_are_what_the_fixed_keys_make() {
    let (disk, made) = (on_disk(&directory()), made());
    for (name, text) in &made {
        assert!(disk.get(name) == Some(text), "vectors/{name} differs: cargo run -p relay-tests --bin make-vectors");
    }
    for name in disk.keys() {
        assert!(made.contains_key(name), "nothing makes vectors/{name}");
    }
}

#[test]
fn every_failure_class_of_the_document_has_a_vector() {
    let document = include_str!("../../../docs/protocol.md");
    let (_, section) = document.split_once("## 21. Failure classes").expect("section 21");
    let (table, _) = section.split_once("A vector is").expect("the end of the table");
    let listed: BTreeSet<String> =
        table.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect();
    let expected: BTreeSet<String> =
        on_disk(&directory()).values().map(|text| serde_json::from_str::<Vector>(text).unwrap().expect).collect();
    assert_eq!(listed, expected);
}
