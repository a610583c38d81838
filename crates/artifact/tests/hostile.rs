//! Malicious artifacts: each is refused as a whole and leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use relay_artifact::{UnpackError, Unpacked, unpack};
use relay_protocol::artifact::UnsafeEntry;
use tar::{EntryType, Header};
use tempfile::TempDir;

/// One entry, with its names written into the header unchanged.
fn entry(kind: EntryType, name: &str, link: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, name, link, body.len() as u64);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn header(kind: EntryType, name: &str, link: &str, size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o6755);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn file(name: &str) -> Vec<u8> {
    entry(EntryType::Regular, name, "", b"text")
}

fn folder(name: &str) -> Vec<u8> {
    entry(EntryType::Directory, name, "", b"")
}

fn link(name: &str, target: &str) -> Vec<u8> {
    entry(EntryType::Symlink, name, target, b"")
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let length = (1..).find(|length: &usize| length.to_string().len() + rest.len() == *length).unwrap();
        body.push_str(&format!("{length}{rest}"));
    }
    entry(EntryType::XHeader, "pax", "", body.as_bytes())
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = entries.concat();
    tar.extend([0; 1_024]);
    zstd::encode_all(tar.as_slice(), 3).unwrap()
}

fn try_unpack(bytes: &[u8]) -> Result<Unpacked, UnpackError> {
    // An enclosing folder shows whether anything escapes.
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("x"), "outside").unwrap();
    let into = outside.path().join("into");
    fs::create_dir(&into).unwrap();
    let result = unpack(bytes, bytes.len() as u64, 1 << 40, &into);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
    assert_eq!(fs::read(outside.path().join("x")).unwrap(), b"outside");
    if result.is_err() {
        assert_eq!(fs::read_dir(&into).unwrap().count(), 0, "unpacking left something behind");
    }
    result
}

fn refused(entries: &[Vec<u8>]) -> UnpackError {
    // The entries before the refused one are unpacked first, and must be gone in the end.
    let entries = [&[folder("d"), file("d/first")], entries].concat();
    let error = try_unpack(&archive(&entries)).unwrap_err();
    assert!(error.is_artifacts_fault(), "{error:?}");
    error
}

// clause: ART-4
#[test]
fn names_and_links_that_lead_out() {
    let unsafe_entry = |entries: &[Vec<u8>]| match refused(entries) {
        UnpackError::Unsafe(error) => error,
        other => panic!("{other:?}"),
    };
    for name in ["../x", "a/../../x", "d/.."] {
        assert!(matches!(unsafe_entry(&[file(name)]), UnsafeEntry::Parent(_)), "{name}");
        assert!(matches!(unsafe_entry(&[folder(name)]), UnsafeEntry::Parent(_)), "{name}");
    }
    for name in ["/etc/x", "//x"] {
        assert!(matches!(unsafe_entry(&[file(name)]), UnsafeEntry::Absolute(_)), "{name}");
    }
    for name in ["\\\\server\\x", "a\\b"] {
        assert!(matches!(unsafe_entry(&[file(name)]), UnsafeEntry::Backslash(_)), "{name}");
    }
    for target in ["/etc/passwd", "..", "../x", "d/../../x", ""] {
        assert!(matches!(unsafe_entry(&[link("l", target)]), UnsafeEntry::LinkOut { .. }), "{target}");
    }
    let long = entry(EntryType::GNULongName, "././@LongLink", "", b"../x\0");
    assert!(matches!(unsafe_entry(&[long, file("y")]), UnsafeEntry::Parent(_)));
    let long = entry(EntryType::GNULongName, "././@LongLink", "", b"a\0b\0");
    assert!(matches!(unsafe_entry(&[long, file("y")]), UnsafeEntry::Odd(_)));
    assert!(matches!(unsafe_entry(&[pax(&[("path", "/x")]), file("y")]), UnsafeEntry::Absolute(_)));
    assert!(matches!(unsafe_entry(&[pax(&[("linkpath", "../x")]), link("y", "d")]), UnsafeEntry::LinkOut { .. }));
    assert!(matches!(unsafe_entry(&[file("a/")]), UnsafeEntry::Odd(_)));
    assert!(matches!(unsafe_entry(&[file("./")]), UnsafeEntry::Odd(_)));
    assert!(matches!(unsafe_entry(&[pax(&[("path", &"a/".repeat(2_500))]), folder("y")]), UnsafeEntry::Odd(_)));
}

// clause: ART-4
#[test]
fn a_chain_of_links_leads_out_although_each_text_stays_inside() {
    // By its text, a/b/l starts at depth 3, but it leads to depth 1. From there, m climbs out.
    let chain = [folder("s"), link("a/b/l", "../../s"), link("m", "a/b/l/../../x")];
    assert!(matches!(refused(&chain), UnpackError::Unsafe(UnsafeEntry::LinkOut { .. })));
    let nowhere = [folder("s"), link("a/b/l", "../../s"), link("m", "a/b/l/../../y")];
    assert!(matches!(refused(&nowhere), UnpackError::Dangling { .. }));
    assert!(matches!(refused(&[link("l", "gone")]), UnpackError::Dangling { .. }));
    assert!(matches!(refused(&[link("l", "m"), link("m", "l")]), UnpackError::Dangling { .. }));
    let fine = [folder("s"), file("s/f"), link("a/b/l", "../../s"), link("m", "a/b/l/f")];
    assert_eq!(try_unpack(&archive(&fine)).unwrap(), Unpacked { entries: 6, bytes: 4 });
}

// clause: ART-4
#[test]
fn kinds_that_are_no_file_folder_or_link() {
    let kinds = [
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Continuous,
        EntryType::GNUSparse,
    ];
    for kind in kinds.into_iter().chain([b'Z', b'D', b'V', b'M'].map(EntryType::new)) {
        let error = refused(&[entry(kind, "odd", "d/first", b"")]);
        assert!(matches!(error, UnpackError::Unsafe(UnsafeEntry::Kind(_))), "{kind:?}: {error:?}");
    }
    let sparse = refused(&[pax(&[("GNU.sparse.major", "1")]), file("odd")]);
    assert!(matches!(sparse, UnpackError::Unsafe(UnsafeEntry::Kind(_))));
}

// clause: ART-6
#[test]
fn nothing_is_written_through_a_link_or_over_another_entry() {
    for (what, entries) in [
        ("file below a link", vec![link("l", "d"), file("l/f")]),
        ("file below a link that comes later", vec![file("l/f"), link("l", "d")]),
        ("link below a link", vec![link("l", "d"), link("l/m", "d")]),
        ("link below a link, made in the other order", vec![link("l/m", "d"), link("l", "d")]),
        ("two files", vec![file("f"), file("f")]),
        ("two spellings", vec![file("d/f"), file("./d//./f")]),
        ("file over folder", vec![folder("f"), file("f")]),
        ("folder over file", vec![file("f"), folder("f")]),
        ("file below a file", vec![file("f"), file("f/g")]),
        ("link over file", vec![file("f"), link("f", "d")]),
        ("file over link", vec![link("f", "d"), file("f")]),
        ("two links", vec![link("f", "d"), link("f", "d")]),
    ] {
        let error = refused(&entries);
        assert!(matches!(error, UnpackError::Duplicate { .. }), "{what}: {error:?}");
    }
    assert!(try_unpack(&archive(&[folder("d"), file("d/f"), folder("d")])).is_ok(), "a folder may occur twice");
}

/// The zstd of `start` followed by `size` zeros, which are never all in memory.
fn bomb(start: Vec<u8>, size: u64) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(&start).unwrap();
    io::copy(&mut io::repeat(0).take(size), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

// clause: ART-5
#[test]
fn bombs_stop_early() {
    let too_large = |bytes: &[u8]| matches!(try_unpack(bytes), Err(UnpackError::Unsafe(UnsafeEntry::TooLarge { .. })));
    // A declared size of 10 GiB: refused by the header, before the body is read.
    assert!(too_large(&bomb(header(EntryType::Regular, "zeros", "", 10 << 30), 64 << 20)));
    // A true size, 10,000 times the packed size; then the same zeros after the end of the tar.
    assert!(too_large(&bomb(header(EntryType::Regular, "zeros", "", 64 << 20), 64 << 20)));
    assert!(too_large(&bomb(file("f"), 64 << 20)));
    // Many small entries.
    let many: Vec<Vec<u8>> =
        (0..24).map(|n| entry(EntryType::Regular, &format!("f{n}"), "", &vec![0; 100_000])).collect();
    assert!(too_large(&archive(&many)));
    let names: Vec<Vec<u8>> =
        (0..40).flat_map(|n| [pax(&[("comment", &"x".repeat(60_000))]), file(&format!("f{n}"))]).collect();
    assert!(too_large(&archive(&names)));
    // A name that would be read into memory as a whole.
    let name = bomb(header(EntryType::GNULongName, "././@LongLink", "", 900_000), 64 << 20);
    assert!(matches!(try_unpack(&name), Err(UnpackError::Tar(_))));
}

// clause: ART-5
#[test]
fn a_window_that_would_take_too_much_memory() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&file("f")).unwrap();
    encoder.write_all(&[0; 1_024]).unwrap();
    assert!(matches!(try_unpack(&encoder.finish().unwrap()), Err(UnpackError::Zstd(_))));
}

// clause: ART-5
#[test]
fn too_many_entries() {
    let folders = |count| folder("d").repeat(count);
    assert!(try_unpack(&archive(&[folders(100_000)])).is_ok());
    let too_many = |bytes: &[u8]| matches!(try_unpack(bytes), Err(UnpackError::Unsafe(UnsafeEntry::TooMany)));
    assert!(too_many(&archive(&[folders(100_001)])));
    // Folders that no entry names count too.
    let deep = [pax(&[("path", &"a/".repeat(1_000))]), folder("x")].concat();
    assert!(try_unpack(&archive(&[folders(99_000), deep.clone()])).is_ok());
    assert!(too_many(&archive(&[folders(99_001), deep])));
}

#[test]
fn damaged_or_cut_off_or_followed_by_something() {
    let whole = archive(&[file("f")]);
    for length in 0..whole.len() {
        assert!(try_unpack(&whole[..length]).is_err_and(|error| error.is_artifacts_fault()), "{length}");
    }
    assert!(matches!(try_unpack(&whole[..whole.len() - 1]), Err(UnpackError::Truncated)));
    assert!(matches!(try_unpack(b"PK\x03\x04 this is a zip"), Err(UnpackError::Zstd(_))));
    assert!(matches!(try_unpack(&zstd::encode_all(&b"x".repeat(512)[..], 3).unwrap()), Err(UnpackError::Tar(_))));
    let no_end = zstd::encode_all(file("f").as_slice(), 3).unwrap();
    assert!(matches!(try_unpack(&no_end), Err(UnpackError::Truncated)));
    for more in [b"x".to_vec(), vec![0], whole.clone()] {
        assert!(matches!(try_unpack(&[whole.clone(), more].concat()), Err(UnpackError::Trailing)));
    }
    let tail = zstd::encode_all([file("f"), vec![0; 1_024], file("g")].concat().as_slice(), 3).unwrap();
    assert!(matches!(try_unpack(&tail), Err(UnpackError::Trailing)));
}

#[test]
fn what_two_readers_would_read_differently() {
    for entries in [
        vec![pax(&[("size", "0")]), file("f")],
        vec![pax(&[("path", "a"), ("path", "b")]), file("f")],
        vec![pax(&[("path", "a")]), entry(EntryType::GNULongName, "././@LongLink", "", b"b\0"), file("f")],
        vec![entry(EntryType::XGlobalHeader, "pax", "", b"10 path=a\n"), file("f")],
        vec![entry(EntryType::XHeader, "pax", "", b"99 path=a\n"), file("f")],
        vec![entry(EntryType::Directory, "body", "", b"x")],
        vec![entry(EntryType::Symlink, "body", "d", b"x")],
    ] {
        let error = refused(&entries);
        assert!(matches!(error, UnpackError::Tar(_)), "{error:?}");
    }
    let comment = entry(EntryType::XGlobalHeader, "pax", "", b"13 comment=x\n");
    let fine = [comment, pax(&[("path", "two\nlines"), ("size", "4")]), file("f")];
    assert_eq!(try_unpack(&archive(&fine)).unwrap(), Unpacked { entries: 1, bytes: 4 });
}

/// A size beyond 64 bits, a negative one, a signed one, and a mode in another form: GNU tar, the
/// `tar` crate and Python read each in another way.
#[test]
fn numbers_have_one_reading() {
    let with = |at: usize, field: &[u8]| {
        let mut entry = file("f");
        entry[at..at + field.len()].copy_from_slice(field);
        entry[148..156].fill(b' ');
        let sum: u32 = entry[..512].iter().map(|byte| u32::from(*byte)).sum();
        entry[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        entry
    };
    let size = |first: [u8; 4]| [&first[..], &4_u64.to_be_bytes()].concat();
    for entry in [
        with(124, &size([0x80, 0, 0, 1])),
        with(124, &size([0x81, 0, 0, 0])),
        with(124, &size([0xff, 0xff, 0xff, 0xff])),
        with(124, b"+0000000004\0"),
        with(124, b"00000000004x"),
        with(100, &[0x80, 0, 0, 0, 0, 0, 1, 0xa4]),
        with(100, b"+000644\0"),
    ] {
        let error = refused(&[entry]);
        assert!(matches!(error, UnpackError::Tar(_)), "{error:?}");
    }
    // The binary form itself is fine: large files need it.
    let fine = with(124, &size([0x80, 0, 0, 0]));
    assert_eq!(try_unpack(&archive(&[fine])).unwrap(), Unpacked { entries: 1, bytes: 4 });
}

#[test]
fn modes_are_0644_or_0755_and_the_rest_is_dropped() {
    let into = TempDir::new().unwrap();
    let bytes = archive(&[folder("d"), file("d/f")]);
    unpack(bytes.as_slice(), bytes.len() as u64, 1 << 20, into.path()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&into.path().join("d")), mode(&into.path().join("d/f"))), (0o755, 0o755));
}

#[test]
fn faults_that_are_not_the_artifacts() {
    let bytes = archive(&[file("f")]);
    let into = TempDir::new().unwrap();
    let unpack_to = |place: &Path, size| unpack(bytes.as_slice(), size, 1 << 20, place).unwrap_err();
    let size = bytes.len() as u64;
    assert!(matches!(unpack_to(into.path(), size + 1), UnpackError::Size { .. }));
    assert!(matches!(unpack_to(&into.path().join("gone"), size), UnpackError::Into { .. }));
    fs::write(into.path().join("mine"), "").unwrap();
    let error = unpack_to(into.path(), size);
    assert!(matches!(error, UnpackError::Into { .. }) && !error.is_artifacts_fault());
    assert!(into.path().join("mine").exists(), "what was there before must remain");

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::ConnectionReset))
        }
    }
    let into = TempDir::new().unwrap();
    let error = unpack(bytes[..20].chain(Broken), size, 1 << 20, into.path()).unwrap_err();
    assert!(matches!(&error, UnpackError::Read(_)) && !error.is_artifacts_fault(), "{error:?}");
}
