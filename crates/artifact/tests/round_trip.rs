//! A packed tree unpacks to the same tree, and the same tree always gives the same bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use relay_artifact::{PackError, Packed, Text, find, pack, unpack};
use relay_protocol::Digest;
use tempfile::TempDir;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Folder,
    File(Vec<u8>, u32),
    Link(String),
}

type Things = BTreeMap<String, Thing>;

fn file(text: &str) -> Thing {
    Thing::File(text.as_bytes().to_vec(), 0o644)
}

fn make<'a>(things: impl IntoIterator<Item = (&'a String, &'a Thing)>, mtime: u64) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, thing) in things {
        let place = folder.path().join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        match thing {
            Thing::Folder => fs::create_dir_all(&place).unwrap(),
            Thing::Link(target) => symlink(target, &place).unwrap(),
            Thing::File(bytes, mode) => {
                fs::write(&place, bytes).unwrap();
                fs::set_permissions(&place, Permissions::from_mode(*mode)).unwrap();
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(mtime);
                fs::File::options().write(true).open(&place).unwrap().set_modified(time).unwrap();
            }
        }
    }
    folder
}

fn read(root: &Path, below: &str, things: &mut Things) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        let metadata = fs::symlink_metadata(root.join(&name)).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            assert_eq!(mode, 0o755, "{name}");
            things.insert(name.clone(), Thing::Folder);
            read(root, &name, things);
        } else if metadata.is_symlink() {
            let target = fs::read_link(root.join(&name)).unwrap().into_os_string().into_string().unwrap();
            things.insert(name, Thing::Link(target));
        } else {
            things.insert(name.clone(), Thing::File(fs::read(root.join(&name)).unwrap(), mode));
        }
    }
}

fn packed(root: &Path, paths: &[&str]) -> Result<(Vec<u8>, Packed), PackError> {
    let mut bytes = Vec::new();
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let packed = pack(root, &paths, Text::Any, &mut bytes)?;
    assert_eq!((packed.size, packed.digest), (bytes.len() as u64, Digest::of(&bytes)));
    Ok((bytes, packed))
}

fn unpacked(bytes: &[u8]) -> Things {
    let into = TempDir::new().unwrap();
    unpack(bytes, bytes.len() as u64, u64::MAX, into.path()).unwrap();
    let mut things = Things::new();
    read(into.path(), "", &mut things);
    things
}

fn sample() -> Things {
    Things::from([
        ("a".into(), Thing::Folder),
        ("a-b".into(), file("sorts between a and a/b")),
        ("a/deep".into(), Thing::Folder),
        ("a/deep/script.sh".into(), Thing::File(b"#!/bin/sh\n".to_vec(), 0o755)),
        ("a/empty".into(), Thing::File(Vec::new(), 0o644)),
        ("a/link".into(), Thing::Link("../a-b".into())),
        ("block".into(), Thing::File((0..1_024_u32).map(|n| n.to_le_bytes()[0]).collect(), 0o644)),
        ("folder-link".into(), Thing::Link("a/deep".into())),
        ("here".into(), Thing::Link(".".into())),
        ("ümlaut 日本 \u{1b}[2J\n".into(), file("a name that a terminal should not see")),
        ("through".into(), Thing::Link("folder-link/../link".into())),
        (format!("{0}/{0}", "n".repeat(120)), Thing::File(vec![7; 70_000], 0o644)),
        ("n".repeat(120), Thing::Folder),
        ("to-long".into(), Thing::Link(format!("{0}/{0}", "n".repeat(120)))),
    ])
}

// clause: ART-7
#[test]
fn the_text_for_approvers_is_relays_own_or_there_is_none() {
    let pack_with = |tree: &Path, text: Text| {
        let mut bytes = Vec::new();
        pack(tree, &[], text, &mut bytes).map(|_| bytes)
    };
    let text_of = |bytes: &[u8]| find(bytes, bytes.len() as u64, "relay.txt", 100).unwrap();
    let plan = Things::from([("plan.bin".into(), Thing::File(vec![0; 300_000], 0o644)), ("z".into(), file("last"))]);
    let tree = make(&plan, 1);
    let with_text = pack_with(tree.path(), Text::Own(b"+ a change\n".to_vec())).unwrap();
    assert_eq!(text_of(&with_text).as_deref(), Some(&b"+ a change\n"[..]));
    assert_eq!(find(&with_text[..], with_text.len() as u64, "relay.txt", 10).unwrap(), None, "longer than that");
    assert_eq!(text_of(&pack_with(tree.path(), Text::None).unwrap()), None);
    assert!(find(&with_text[..20], 20, "relay.txt", 100).is_err());
    // The tool can supply no text of its own, as a file, a folder or a link.
    for odd in [file("all is well"), Thing::Folder, Thing::Link("z".into())] {
        let mut things = plan.clone();
        things.insert("relay.txt".into(), odd);
        let tree = make(&things, 1);
        for text in [Text::None, Text::Own(Vec::new())] {
            assert!(matches!(pack_with(tree.path(), text), Err(PackError::Taken)));
        }
        let any = pack_with(tree.path(), Text::Any).unwrap();
        assert!(text_of(&any).is_none_or(|text| text == b"all is well"));
    }
}

// clause: ART-2
#[test]
fn a_tree_comes_out_as_it_went_in() {
    let tree = make(&sample(), 1);
    let (bytes, packed) = packed(tree.path(), &[]).unwrap();
    assert_eq!(packed.entries, sample().len());
    assert_eq!(unpacked(&bytes), sample());
}

// clause: ART-2
#[test]
fn the_same_tree_gives_the_same_bytes() {
    let things = sample();
    let first = make(&things, 1_000_000_000);
    let second = make(things.iter().rev(), 1_700_000_000);
    fs::set_permissions(second.path().join("a-b"), Permissions::from_mode(0o664)).unwrap();
    fs::set_permissions(second.path().join("a/deep/script.sh"), Permissions::from_mode(0o4775)).unwrap();
    let (bytes, _) = packed(first.path(), &[]).unwrap();
    assert_eq!(bytes, packed(second.path(), &[]).unwrap().0);
    assert_eq!(bytes, packed(second.path(), &["./"]).unwrap().0);
    // The digest must be the same on every machine and at any time. Only a new version of zstd may
    // change it. If one does, say so in the changelog, because plans that were approved by digest
    // have to be packed again.
    let small = make(&Things::from([("hello.txt".into(), file("hello\n"))]), 1);
    let (_, packed) = packed(small.path(), &[]).unwrap();
    assert_eq!(packed.digest.to_string(), "6bcacad8a72377af19f6d7b60ade4587b376988d9cb1ad93c52f264c8e8be76f");
}

// clause: ART-2
#[test]
fn what_only_its_owner_may_read_stays_so() {
    let tree = make(&Things::from([("key".into(), file("k")), ("run".into(), file("r"))]), 1);
    fs::set_permissions(tree.path().join("key"), Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(tree.path().join("run"), Permissions::from_mode(0o700)).unwrap();
    let things = unpacked(&packed(tree.path(), &[]).unwrap().0);
    let mode = |name: &str| match &things[name] {
        Thing::File(_, mode) => *mode,
        _ => panic!("{name} is a file"),
    };
    assert_eq!((mode("key"), mode("run")), (0o600, 0o700));
}

#[test]
fn what_the_rules_leave_out_is_not_packed() {
    let names = ["keep.txt", "drop.log", "keep.log", "target/a", "src/target/b", "src/c"];
    let rules = "*.log\n!keep.log\ntarget/\n";
    let mut things: Things = names.iter().map(|name| ((*name).to_owned(), file(name))).collect();
    things.insert(".relayignore".into(), file(rules));
    for folder in ["target", "src", "src/target"] {
        things.insert(folder.into(), Thing::Folder);
    }
    let tree = make(&things, 1);
    let all =
        |paths: &[&str]| unpacked(&packed(tree.path(), paths).unwrap().0).into_keys().collect::<Vec<_>>().join(" ");
    assert_eq!(all(&[]), "keep.log keep.txt src src/c");
    // A path that the caller names is packed even if a rule matches it.
    assert_eq!(all(&["target"]), "target target/a");
    let (_, bad) = (fs::write(tree.path().join(".relayignore"), "a/{b\n").unwrap(), packed(tree.path(), &[]));
    assert!(bad.unwrap_err().to_string().contains(".relayignore"));
}

#[test]
fn some_of_a_tree_or_a_single_file_can_be_packed() {
    let tree = make(&sample(), 1);
    let names =
        |paths: &[&str]| unpacked(&packed(tree.path(), paths).unwrap().0).into_keys().collect::<Vec<_>>().join(" ");
    assert_eq!(names(&["a/deep/script.sh", "block"]), "a a/deep a/deep/script.sh block");
    assert_eq!(names(&["a", "a-b", "./a/deep"]), "a a-b a/deep a/deep/script.sh a/empty a/link");
    let (bytes, _) = packed(&tree.path().join("a/deep/script.sh"), &[]).unwrap();
    let things = Things::from([("script.sh".into(), Thing::File(b"#!/bin/sh\n".to_vec(), 0o755))]);
    assert_eq!(unpacked(&bytes), things);
}

// clause: ART-4
#[test]
fn what_could_not_be_unpacked_is_not_packed_and_the_error_says_what_to_do() {
    let says = |things: &[(&str, Thing)], paths: &[&str]| {
        let things: Things = things.iter().map(|(name, thing)| ((*name).to_owned(), thing.clone())).collect();
        let tree = make(&things, 1);
        packed(tree.path(), paths).unwrap_err().to_string()
    };
    let link = |target: &str| Thing::Link(target.to_owned());
    for (things, paths, expected) in [
        (vec![("l", link("/etc/passwd"))], vec![], "the symbolic link `l` points to `/etc/passwd`, which is absolute"),
        (vec![("a/l", link("../../x"))], vec![], "outside what is packed: replace it with a copy"),
        (vec![("l", link("gone"))], vec![], "which is not packed"),
        (vec![("l", link("m")), ("m", link("l"))], vec![], "leads in a circle"),
        (vec![("f", file("x")), ("l", link("f/x"))], vec![], "which is not packed"),
        (
            vec![("a/b/l", link("../../s")), ("s", Thing::Folder), ("m", link("a/b/l/../../x"))],
            vec![],
            "leads out of what is packed, through another link",
        ),
        (vec![("l", link("f")), ("f", file("x"))], vec!["l"], "which is not packed"),
        (vec![("d/f", file("x")), ("l", link("d"))], vec!["l/f"], "`l` is not a folder"),
        (vec![("f", file("x"))], vec!["../f"], "`../f` has a `..` in it: rename it"),
        (vec![("f", file("x"))], vec!["/etc"], "`/etc` starts with `/`"),
        (vec![("f", file("x"))], vec!["g"], "g`: No such file"),
        (vec![("a\\b", file("x"))], vec![], "a\\b` contains a backslash: rename it"),
        (vec![("zeros", Thing::File(vec![0; 8 << 20], 0o644))], vec![], "8388608 bytes compress to"),
    ] {
        let said = says(&things, &paths);
        assert!(said.contains(expected), "{said}");
    }
    let tree = TempDir::new().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.path().join("socket")).unwrap();
    let said = packed(tree.path(), &[]).unwrap_err().to_string();
    assert!(said.starts_with("`socket` is neither a file"), "{said}");
    assert!(packed(&tree.path().join("socket"), &[]).is_err());
    let said = packed(Path::new("/dev/null"), &[]).unwrap_err().to_string();
    assert!(said.starts_with("`/dev/null` is neither"), "{said}");
}

fn trees() -> impl Strategy<Value = Things> {
    let content = (prop::collection::vec(any::<u8>(), 0..2_000), prop::bool::ANY)
        .prop_map(|(bytes, executable)| Thing::File(bytes, if executable { 0o755 } else { 0o644 }));
    // Folder names and file names use different characters, so that no path is both.
    let path = prop::collection::vec("[a-c]{1,60}", 0..4)
        .prop_flat_map(|folders| ("[d-f.é -]{0,80}x", Just(folders)))
        .prop_map(|(name, folders)| folders.into_iter().chain([name]).collect::<Vec<_>>().join("/"));
    prop::collection::btree_map(path, content, 0..12).prop_map(|files| {
        let mut things = files.clone();
        for name in files.keys() {
            for (at, _) in name.match_indices('/') {
                things.insert(name[..at].to_owned(), Thing::Folder);
            }
        }
        things
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    // clause: ART-2
    #[test]
    fn any_tree_survives_the_way_there_and_back(things in trees()) {
        let tree = make(&things, 1);
        let (bytes, packed) = packed(tree.path(), &[]).unwrap();
        prop_assert_eq!(packed.entries, things.len());
        prop_assert_eq!(unpacked(&bytes), things);
    }
}
