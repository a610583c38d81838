//! Output that is in no frame yet: chunks, in the order in which they were read.

use std::collections::VecDeque;
use std::time::Duration;

use relay_protocol::frame::{Chunk, Offsets, Stream};

/// Bytes of output that always fit into a frame, whatever they are: their base64, with the heads of
/// a thousand chunks, stays under the frame limit.
pub(super) const CERTAIN: usize = 150 * 1_024;

/// Small pieces of one stream share a chunk of at most so many bytes. A larger piece is a chunk of
/// its own, and not moved again.
const MERGED: usize = 32 * 1_024;

/// Chunks in one frame. Alternating streams make many small ones.
pub(super) const CHUNKS: usize = 1_000;

#[derive(Debug)]
pub(super) struct Pending {
    chunks: VecDeque<Chunk<Vec<u8>>>,
    bytes: usize,
    /// When the oldest chunk was pushed, or the last frame was cut.
    since: Duration,
    /// Bytes of each stream before the first chunk.
    offset: Offsets,
}

impl Pending {
    pub(super) fn new(now: Duration) -> Self {
        Self { chunks: VecDeque::new(), bytes: 0, since: now, offset: Offsets::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn since(&self) -> Duration {
        self.since
    }

    pub(super) fn offset(&self) -> Offsets {
        self.offset
    }

    /// Adds output that was read `ms` milliseconds after the deployment began.
    pub(super) fn push(&mut self, now: Duration, stream: Stream, ms: u64, bytes: &[u8]) {
        if self.chunks.is_empty() {
            self.since = now;
        }
        self.bytes += bytes.len();
        for part in bytes.chunks(CERTAIN) {
            match self.chunks.back_mut() {
                Some(last) if last.stream == stream && last.bytes.len() + part.len() <= MERGED => {
                    last.bytes.extend_from_slice(part);
                }
                _ => self.chunks.push_back(Chunk { stream, ms, bytes: part.to_vec() }),
            }
        }
    }

    /// Chunks from the front, at most `limit` bytes. The last chunk is split if necessary.
    pub(super) fn peek(&self, limit: usize) -> Vec<Chunk<&[u8]>> {
        let mut room = limit;
        let mut taken = Vec::new();
        for chunk in self.chunks.iter().take(CHUNKS) {
            let part = chunk.bytes.len().min(room);
            taken.push(Chunk { stream: chunk.stream, ms: chunk.ms, bytes: &chunk.bytes[..part] });
            room -= part;
            if room == 0 {
                break;
            }
        }
        taken
    }

    /// Drops bytes from the front, because they are in a frame.
    pub(super) fn drop_front(&mut self, now: Duration, mut bytes: usize) {
        self.since = now;
        self.bytes -= bytes;
        while bytes > 0 {
            let Some(front) = self.chunks.front_mut() else { return };
            let part = front.bytes.len().min(bytes);
            *self.offset.of(front.stream) += part as u64;
            bytes -= part;
            if part == front.bytes.len() {
                self.chunks.pop_front();
            } else {
                front.bytes.drain(..part);
            }
        }
    }
}
