//! The `output` frame: chunks in the order in which they were read, each with its stream, its time
//! in milliseconds and its bytes (clauses FRM-8 to FRM-11).
//!
//! Small frames stay legible to an auditor who opens the queue: a chunk has `text` if its bytes are
//! UTF-8, otherwise `base64`. Large frames are packed: each chunk gives its `size`, and `packed` is
//! base64 of the zstd of all chunks' bytes, concatenated.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::encoding;
use crate::limits::{FRAME_CHUNKS_MAX, FRAME_OUTPUT_MAX};
use crate::strict;

/// One of the tool's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, file descriptor 1.
    Stdout,
    /// Standard error, file descriptor 2.
    Stderr,
}

/// For each stream, the number of bytes sent before a frame (clause FRM-8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offsets {
    /// Bytes of stdout.
    #[serde(deserialize_with = "strict::count")]
    pub stdout: u64,
    /// Bytes of stderr.
    #[serde(deserialize_with = "strict::count")]
    pub stderr: u64,
}

impl Offsets {
    /// The offset of `stream`.
    pub fn of(&mut self, stream: Stream) -> &mut u64 {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// Bytes that were read from one stream in one read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<B = Bytes> {
    /// The stream that was read.
    pub stream: Stream,
    /// The time of the read, in milliseconds since `started`.
    pub ms: u64,
    /// The bytes that were read.
    pub bytes: B,
}

/// The content of an output frame in its wire form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunks {
    /// The number of bytes of each stream before this frame.
    pub offset: Offsets,
    chunks: Vec<WireChunk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    packed: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WireChunk {
    stream: Stream,
    #[serde(deserialize_with = "strict::count")]
    ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::count_or_none")]
    size: Option<usize>,
}

/// A signed output frame that is inconsistent. The runner is at fault, never the tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// A chunk has none, or more than one, of `text`, `base64` and `size`.
    #[error("a chunk must have exactly one of text, base64 and size")]
    Form,
    /// The data is not valid base64 or not valid zstd.
    #[error("the packed output cannot be unpacked")]
    Packed,
    /// The sizes do not add up (clause FRM-10).
    #[error("the sizes of the chunks do not add up to the size of the packed output")]
    Sizes,
    /// The frame has more than [`FRAME_OUTPUT_MAX`] bytes or [`FRAME_CHUNKS_MAX`] chunks (clause
    /// FRM-9).
    #[error("the frame has more output than allowed")]
    TooLarge,
}

impl Chunks {
    /// Legible chunks: text if the bytes are UTF-8, otherwise base64.
    pub fn legible<B: AsRef<[u8]>>(offset: Offsets, chunks: &[Chunk<B>]) -> Self {
        let wire = |chunk: &Chunk<B>| {
            let bytes = chunk.bytes.as_ref();
            let (text, base64) = match std::str::from_utf8(bytes) {
                Ok(text) => (Some(text.to_owned()), None),
                Err(_) => (None, Some(encoding::base64(bytes))),
            };
            WireChunk { stream: chunk.stream, ms: chunk.ms, text, base64, size: None }
        };
        Self { offset, chunks: chunks.iter().map(wire).collect(), packed: None }
    }

    /// Packed chunks: one zstd frame for all of them, compressed at zstd's `level`.
    pub fn packed<B: AsRef<[u8]>>(offset: Offsets, chunks: &[Chunk<B>], level: i32) -> Self {
        let all: Cow<'_, [u8]> = match chunks {
            [one] => Cow::Borrowed(one.bytes.as_ref()),
            several => Cow::Owned(several.iter().map(|chunk| chunk.bytes.as_ref()).collect::<Vec<_>>().concat()),
        };
        #[allow(clippy::expect_used, reason = "the message states the invariant")]
        let packed = zstd::bulk::compress(&all, level).expect("a slice fits into memory, and zstd clamps its level");
        let packed = encoding::base64(&packed);
        let wire = |chunk: &Chunk<B>| WireChunk {
            stream: chunk.stream,
            ms: chunk.ms,
            text: None,
            base64: None,
            size: Some(chunk.bytes.as_ref().len()),
        };
        Self { offset, chunks: chunks.iter().map(wire).collect(), packed: Some(packed) }
    }

    /// Packed chunks without the packed bytes, and those, as they stand in JSON. `None` if they
    /// need escapes: base64 does not, but a frame that was read may have anything in its place.
    pub(super) fn apart(&self) -> Option<(Self, &str)> {
        let packed = self.packed.as_deref()?;
        // Without an early end, the compiler looks at many bytes at a time.
        let plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
        if !packed.bytes().fold(true, |all, byte| all & plain(byte)) {
            return None;
        }
        Some((Self { offset: self.offset, chunks: self.chunks.clone(), packed: None }, packed))
    }

    /// Decodes the chunks within the limits (clauses FRM-9, FRM-10).
    ///
    /// # Errors
    ///
    /// If the frame is over a limit, its data does not decode, or its sizes do not add up.
    pub fn unfold(self) -> Result<Vec<Chunk>, OutputError> {
        if self.chunks.len() > FRAME_CHUNKS_MAX {
            return Err(OutputError::TooLarge);
        }
        let unpacked = match &self.packed {
            Some(packed) => {
                let bytes = encoding::from_base64(packed).map_err(|_| OutputError::Packed)?;
                // The decompressor by itself would accept several frames, or none.
                if zstd::zstd_safe::find_frame_compressed_size(&bytes) != Ok(bytes.len()) {
                    return Err(OutputError::Packed);
                }
                // Room for what the head of the frame says, and at most for what is allowed.
                let size = zstd::zstd_safe::get_frame_content_size(&bytes).ok().flatten();
                let room = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(FRAME_OUTPUT_MAX);
                zstd::bulk::decompress(&bytes, room.min(FRAME_OUTPUT_MAX)).map_err(|_| OutputError::Packed)?
            }
            None => Vec::new(),
        };
        // The chunks share what was unpacked.
        let mut rest = Bytes::from(unpacked);
        let mut total = 0_usize;
        let mut out = Vec::with_capacity(self.chunks.len());
        for chunk in self.chunks {
            let bytes = match (chunk.text, chunk.base64, chunk.size) {
                (Some(text), None, None) => text.into(),
                (None, Some(base64), None) => encoding::from_base64(&base64).map_err(|_| OutputError::Packed)?.into(),
                (None, None, Some(size)) if size <= rest.len() => rest.split_to(size),
                (None, None, Some(_)) => return Err(OutputError::Sizes),
                _ => return Err(OutputError::Form),
            };
            total = total.saturating_add(bytes.len());
            if total > FRAME_OUTPUT_MAX {
                return Err(OutputError::TooLarge);
            }
            out.push(Chunk { stream: chunk.stream, ms: chunk.ms, bytes });
        }
        if rest.is_empty() { Ok(out) } else { Err(OutputError::Sizes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(parts in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..20)) {
            let chunks: Vec<Chunk> = parts.into_iter().enumerate().map(|(i, (err, bytes))| Chunk {
                stream: if err { Stream::Stderr } else { Stream::Stdout }, ms: i as u64, bytes: bytes.into(),
            }).collect();
            for folded in [Chunks::legible(Offsets::default(), &chunks), Chunks::packed(Offsets::default(), &chunks, 1)] {
                let json = encoding::sqs_safe(serde_json::to_string(&folded).unwrap());
                // A body never contains a character that SQS refuses.
                let sendable = |c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..);
                prop_assert!(json.chars().all(sendable));
                let back: Chunks = serde_json::from_str(&json).unwrap();
                prop_assert_eq!(back.unfold().unwrap(), chunks.clone());
            }
        }
    }

    #[test]
    fn a_bomb_does_not_unfold() {
        let zeros = [Chunk { stream: Stream::Stdout, ms: 0, bytes: Bytes::from(vec![0; FRAME_OUTPUT_MAX + 1]) }];
        assert_eq!(Chunks::packed(Offsets::default(), &zeros, 1).unfold(), Err(OutputError::Packed));
    }

    #[test]
    fn sizes_must_add_up() {
        let chunks = [Chunk { stream: Stream::Stdout, ms: 0, bytes: Bytes::from_static(b"abc") }];
        for size in [2, 4] {
            let mut odd = Chunks::packed(Offsets::default(), &chunks, 1);
            odd.chunks[0].size = Some(size);
            assert_eq!(odd.unfold(), Err(OutputError::Sizes));
        }
    }
}
