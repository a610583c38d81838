//! The spool: a first-in, first-out queue on disk for data that AWS does not accept yet. Memory use
//! stays small, and the tool need not wait (clause FRM-15). It is a sequence of unnamed files,
//! which the tool cannot open. A file that has been read is dropped, which frees its disk space.
//! The calls are synchronous, because they wait only for the page cache.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// Size in bytes at which a new file is started.
const FILE: u64 = 32 * 1_024 * 1_024;

/// Bytes of the length field in front of each piece.
const HEAD: u64 = 4;

#[derive(Debug)]
struct Segment {
    file: File,
    written: u64,
    read: u64,
}

/// A queue on disk. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Spool {
    directory: PathBuf,
    max: u64,
    segments: VecDeque<Segment>,
}

impl Spool {
    /// Creates an empty spool in `directory`. It has room until it holds `max` bytes, so the last
    /// piece may exceed `max` by its own length. The directory is created when it is first needed.
    pub(crate) fn new(directory: PathBuf, max: u64) -> Self {
        Self { directory, max, segments: VecDeque::new() }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.iter().all(|segment| segment.read == segment.written)
    }

    /// Drops files that are read to the end, and files that a failed write left empty.
    fn drop_read(&mut self) {
        while self.segments.front().is_some_and(|first| first.read == first.written) {
            self.segments.pop_front();
        }
    }
}

impl relay_engine::Spool for Spool {
    fn has_room(&self) -> bool {
        self.segments.iter().map(|segment| segment.written).sum::<u64>() < self.max
    }

    fn put(&mut self, piece: &[u8]) -> io::Result<()> {
        let length = u32::try_from(piece.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        if self.segments.back().is_none_or(|last| last.written >= FILE) {
            std::fs::create_dir_all(&self.directory)?;
            let file = tempfile::tempfile_in(&self.directory)?;
            self.segments.push_back(Segment { file, written: 0, read: 0 });
        }
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        last.file.write_all_at(&length.to_be_bytes(), last.written)?;
        last.file.write_all_at(piece, last.written + HEAD)?;
        last.written += HEAD + u64::from(length);
        Ok(())
    }

    fn clear(&mut self) {
        self.segments.clear();
    }

    fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.drop_read();
        let Some(first) = self.segments.front_mut() else { return Ok(None) };
        let taken = first.take();
        if taken.is_err() {
            self.segments.clear();
        }
        // Free the space now, not at the next `take`: after the last piece there may be no next
        // one, and a writer that found no room would wait forever.
        self.drop_read();
        taken.map(Some)
    }
}

impl Segment {
    fn take(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, self.read)?;
        let length = u32::from_be_bytes(length);
        let mut piece = vec![0; usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?];
        self.file.read_exact_at(&mut piece, self.read + HEAD)?;
        self.read += HEAD + u64::from(length);
        Ok(piece)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use relay_engine::Spool as _;

    use super::*;

    #[test]
    fn first_in_first_out_over_many_files_and_the_disk_is_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(directory.path().join("made/later"), 70 << 20);
        assert!(spool.is_empty() && spool.take().unwrap().is_none() && !directory.path().join("made").exists());
        let piece = |n: u8| vec![n; (1 << 20) + usize::from(n)];
        let mut put = 0;
        while spool.has_room() {
            spool.put(&piece(put)).unwrap();
            put += 1;
        }
        assert_eq!((put, spool.segments.len()), (70, 3));
        for n in 0..put {
            assert!(!spool.is_empty());
            assert_eq!(spool.take().unwrap().unwrap(), piece(n));
        }
        assert!(spool.is_empty() && spool.take().unwrap().is_none());
        assert!(spool.segments.is_empty() && spool.has_room());
        while spool.has_room() {
            spool.put(&piece(0)).unwrap();
        }
        while !spool.is_empty() {
            spool.take().unwrap();
        }
        assert!(spool.has_room(), "an emptied spool has room");
        spool.put(b"").unwrap();
        spool.put(b"again").unwrap();
        assert_eq!((spool.take().unwrap().unwrap(), spool.take().unwrap().unwrap()), (vec![], b"again".to_vec()));
    }

    #[test]
    fn a_disk_that_fails_is_told_and_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let blocked = directory.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        let mut spool = Spool::new(blocked, 1 << 20);
        assert!(spool.put(b"x").is_err() && spool.is_empty());
        // A file that was truncated from outside.
        let mut spool = Spool::new(directory.path().to_owned(), 1 << 30);
        spool.put(b"lost").unwrap();
        spool.segments[0].file.set_len(3).unwrap();
        assert!(spool.take().is_err());
        spool.put(b"next").unwrap();
        assert_eq!(spool.take().unwrap().unwrap(), b"next");
    }
}
