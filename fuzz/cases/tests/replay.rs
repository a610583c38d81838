//! Replays the inputs that fuzzing has kept: the corpus (`fuzz/corpus`), and each finding under its
//! own name (`fuzz/regressions`). The tests walk the folders; no list of files exists.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use relay_fuzz_cases::TARGETS;

/// The limits on what a clone of the repository carries: bytes per file, files per target, and
/// bytes in total.
const FILE_MAX: u64 = 4 << 10;
const FILES_MAX: usize = 150;
const ALL_MAX: u64 = 2 << 20;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn inside(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Runs every file and returns the names of those that fail.
fn replay(kept: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for folder in inside(&folder(kept)) {
        let Some((_, target)) = TARGETS.iter().find(|(target, _)| *target == name(&folder)) else {
            panic!("{} is not a target's folder", folder.display());
        };
        let files = inside(&folder);
        assert!(!files.is_empty(), "{} is empty", folder.display());
        for file in files {
            let data = fs::read(&file).unwrap();
            if catch_unwind(|| target(&data)).is_err() {
                findings.push(format!("{kept}/{}/{}", name(&folder), name(&file)));
            }
        }
    }
    findings
}

#[test]
fn the_corpus_holds() {
    assert_eq!(replay("corpus"), [""; 0]);
}

#[test]
fn no_finding_comes_back() {
    assert_eq!(replay("regressions"), [""; 0]);
}

#[test]
fn every_target_has_a_corpus_of_moderate_size() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let corpora = inside(&folder("corpus"));
    assert_eq!(corpora.iter().map(|path| name(path)).collect::<BTreeSet<_>>(), targets);
    let mut all = 0;
    for corpus in corpora {
        let files = inside(&corpus);
        assert!(files.len() <= FILES_MAX, "{}: {} files", corpus.display(), files.len());
        for file in files {
            let size = fs::metadata(&file).unwrap().len();
            assert!(size <= FILE_MAX, "{}: {size} bytes", file.display());
            all += size;
        }
    }
    assert!(all <= ALL_MAX, "{all} bytes in all");
}

#[test]
fn every_target_has_a_program() {
    let programs = inside(&folder("targets"));
    let programs: BTreeSet<String> =
        programs.iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(programs, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for program in programs {
        assert!(manifest.contains(&format!("path = \"targets/{program}.rs\"")), "fuzz/Cargo.toml has no {program}");
    }
}
