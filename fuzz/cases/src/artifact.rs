//! Artifacts. Unpacking any bytes changes nothing outside the destination folder, and a tree that
//! was unpacked can be packed again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use relay_artifact::{PackError, Text, UnpackError, find, pack, unpack};
use tar::{EntryType, Header};

use crate::input::Input;

const BLOCK: usize = 512;

/// Unpacks the bytes as they are; as a tar, with or without its header checksums corrected; or as a
/// program that builds a tar.
pub fn artifact(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.byte();
    let tar = match kind % 4 {
        0 => return unpacked(input.0, input.0.len() as u64),
        1 => input.0.to_vec(),
        2 => with_sums(input.0.to_vec()),
        _ => made(&mut input),
    };
    let packed = zstd::bulk::compress(&tar, 1).expect("compression into memory");
    let lie = u64::from(kind >= 240);
    unpacked(&packed, packed.len() as u64 + lie);
}

/// Corrects the checksum of every header, so that unpacking gets past the checksum test.
fn with_sums(mut tar: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Some(block) = tar.get_mut(at..).and_then(|rest| rest.get_mut(..BLOCK)) {
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        let size = usize::try_from(header.entry_size().unwrap_or(0)).unwrap_or(0);
        at = at.saturating_add(BLOCK).saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
    }
    tar
}

/// Path components that need care.
const PARTS: [&str; 16] =
    ["a", "b", "c", ".", "..", "", "outside", "a b", "\\", "\0", "\u{e9}", "\n", "d", "e", "LONG", "WIDE"];

fn name(input: &mut Input<'_>) -> Vec<u8> {
    let parts = (0..=input.byte() % 6).map(|_| match PARTS[usize::from(input.byte() % 16)] {
        "LONG" => "x".repeat(255),
        "WIDE" => "y".repeat(256),
        part => part.to_owned(),
    });
    let mut name = parts.collect::<Vec<_>>().join("/").into_bytes();
    match input.byte() % 8 {
        0 => name.insert(0, b'/'),
        1 => name.push(b'/'),
        2 => name.push(0xff),
        _ => {}
    }
    name
}

const KINDS: [EntryType; 16] = [
    EntryType::Regular,
    EntryType::Regular,
    EntryType::Regular,
    EntryType::Directory,
    EntryType::Directory,
    EntryType::Symlink,
    EntryType::Symlink,
    EntryType::Symlink,
    EntryType::Link,
    EntryType::Char,
    EntryType::Fifo,
    EntryType::GNULongName,
    EntryType::GNULongLink,
    EntryType::XHeader,
    EntryType::XGlobalHeader,
    EntryType::GNUSparse,
];

fn made(input: &mut Input<'_>) -> Vec<u8> {
    let mut tar = Vec::new();
    while let Some(kind) = input.operation() {
        let kind = KINDS[usize::from(kind % 16)];
        let (name, target) = (name(input), name(input));
        let body = match kind {
            EntryType::Regular => vec![b'x'; usize::from(input.word() % 2_000)],
            EntryType::GNULongName | EntryType::GNULongLink => [&name[..], b"\0"].concat(),
            EntryType::XHeader | EntryType::XGlobalHeader => {
                let key = ["path", "linkpath", "size", "comment", "GNU.sparse.map"][usize::from(input.byte() % 5)];
                record(key, if key == "size" { b"5" } else { &name })
            }
            // An entry that is not a file but has a body.
            _ if input.byte() == 255 => vec![0; 3],
            _ => Vec::new(),
        };
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(u32::from(input.word()) % 0o10_000);
        header.set_size(body.len() as u64);
        let old = header.as_old_mut();
        let put = |field: &mut [u8; 100], text: &[u8]| {
            let length = text.len().min(100);
            field[..length].copy_from_slice(&text[..length]);
        };
        put(&mut old.name, &name);
        put(&mut old.linkname, &target);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(&body);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    tar
}

/// A PAX record. Its length field counts its own digits.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..=4).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
    [format!("{} {key}=", length.unwrap_or(rest)).as_bytes(), value, b"\n"].concat()
}

/// Every entry below a folder: its mode, and its content or link destination. Links are not
/// followed.
fn listing(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            let content = if metadata.is_symlink() {
                let end = path.canonicalize().expect("a link that leads somewhere");
                assert!(end.starts_with(root.canonicalize().expect("the folder")), "a link leads out, to {end:?}");
                fs::read_link(&path).expect("a link").to_string_lossy().into_owned().into_bytes()
            } else if metadata.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else {
                assert!(metadata.is_file());
                fs::read(&path).expect("a file")
            };
            let name = path.strip_prefix(root).expect("below the root").to_str().expect("a name in UTF-8").to_owned();
            found.insert(name, (metadata.permissions().mode(), content));
        }
    }
    found
}

fn unpacked(packed: &[u8], size: u64) {
    let around = tempfile::tempdir().expect("a folder for this run");
    let (inside, outside) = (around.path().join("inside"), around.path().join("outside"));
    fs::create_dir(&inside).expect("a folder");
    fs::write(&outside, b"untouched").expect("a file");
    let result = unpack(packed, size, u64::MAX, &inside);
    let beside: Vec<_> =
        fs::read_dir(around.path()).expect("the folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(beside.len(), 2, "something was written outside: {beside:?}");
    assert_eq!(fs::read(&outside).expect("the file outside"), b"untouched");
    let found = listing(&inside);
    match result {
        Err(error) => {
            assert!(found.is_empty(), "a failed unpacking leaves files behind: {error}");
            // The disk works, so the error must blame the artifact.
            assert!(
                !matches!(error, UnpackError::Left { .. } | UnpackError::Into { .. } | UnpackError::Read(_)),
                "{error:?}"
            );
        }
        Ok(done) => {
            assert_eq!(size, packed.len() as u64, "the size is checked");
            let files = found.values().filter(|(mode, _)| mode >> 12 == 0o10);
            assert_eq!(done.bytes, files.map(|(_, content)| content.len() as u64).sum::<u64>());
            assert_eq!(done.entries, found.len());
            for (name, (mode, _)) in &found {
                let is_known =
                    matches!(mode, 0o100_644 | 0o100_755 | 0o100_600 | 0o100_700 | 0o040_755) || mode >> 12 == 0o12;
                assert!(is_known, "{name} has the mode {mode:o}");
            }
            // What an approver reads is what is unpacked.
            if let Some((name, (_, content))) = found.iter().find(|(_, (mode, _))| mode >> 12 == 0o10) {
                let read = find(packed, size, name, u64::MAX).expect("it was unpacked");
                assert_eq!(read.as_deref(), Some(content.as_slice()), "{name}");
            }
            again(&inside, &around.path().join("again"), &found);
        }
    }
}

/// Packs the unpacked tree. The bytes are the same each time, and they unpack to the same tree.
fn again(inside: &Path, place: &Path, found: &BTreeMap<String, (u32, Vec<u8>)>) {
    let mut packed = Vec::new();
    match pack(inside, &[], Text::Any, &mut packed) {
        Ok(done) => assert_eq!((done.entries, done.size), (found.len(), packed.len() as u64)),
        // It compresses too well: a runner would reject it as a decompression bomb.
        Err(PackError::Ratio { .. }) => return,
        Err(error) => panic!("cannot pack it again: {error}"),
    }
    let mut twice = Vec::new();
    pack(inside, &[], Text::Any, &mut twice).expect("it was packed before");
    assert!(packed == twice, "the same tree gives different bytes");
    fs::create_dir(place).expect("a folder");
    unpack(packed.as_slice(), packed.len() as u64, u64::MAX, place).expect("a packed artifact can be unpacked");
    assert!(listing(place) == *found, "the unpacked tree differs from the packed one");
}
