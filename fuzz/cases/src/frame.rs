//! The bodies of frames, and the output that they carry.

use relay_protocol::encoding::base64;
use relay_protocol::frame::{Chunk, Chunks, Offsets, RunnerKind};
use relay_protocol::limits::{FRAME_CHUNKS_MAX, FRAME_MAX, FRAME_OUTPUT_MAX};
use relay_protocol::{LauncherFrame, RunnerFrame};

use crate::input::Input;

/// Whether SQS accepts this body (clause FRM-3).
pub(crate) fn is_sendable(body: &str) -> bool {
    body.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..))
}

/// Parses the bytes as the body of a runner frame and of a launcher frame.
pub fn frame(data: &[u8]) {
    let Ok(body) = std::str::from_utf8(data) else { return };
    if body.len() > FRAME_MAX {
        return;
    }
    if let Ok(frame) = RunnerFrame::parse(body) {
        let written = frame.to_body();
        assert!(is_sendable(&written));
        assert_eq!(RunnerFrame::parse(&written).ok().as_ref(), Some(&frame));
        if let RunnerKind::Output(chunks) = frame.kind {
            unfolds(&chunks);
        }
    }
    if let Ok(frame) = LauncherFrame::parse(body) {
        let written = frame.to_body();
        assert!(is_sendable(&written));
        assert_eq!(LauncherFrame::parse(&written).ok().as_ref(), Some(&frame));
    }
}

/// Builds the content of an output frame from the bytes: the chunk sizes, followed by the bytes
/// that it declares to be zstd.
pub fn output(data: &[u8]) {
    let mut input = Input(data);
    let mut chunks = Vec::new();
    for _ in 0..input.byte() % 8 {
        let stream = if input.flag() { "stdout" } else { "stderr" };
        let size = input.word();
        let text = "x".repeat(usize::from(size % 7));
        chunks.push(match input.byte() % 4 {
            0 => serde_json::json!({ "stream": stream, "ms": 1, "text": text }),
            1 => serde_json::json!({ "stream": stream, "ms": 1, "base64": base64(text.as_bytes()) }),
            _ => serde_json::json!({ "stream": stream, "ms": 1, "size": size }),
        });
    }
    let packed = input.take(usize::MAX);
    let json =
        serde_json::json!({ "offset": { "stdout": 0, "stderr": 0 }, "chunks": chunks, "packed": base64(packed) });
    let chunks: Chunks = serde_json::from_value(json).expect("the form of an output frame");
    if unfolds(&chunks).is_some() {
        let size = zstd::zstd_safe::find_frame_compressed_size(packed).ok();
        assert_eq!(size, Some(packed.len()), "one frame of zstd, and nothing else");
    }
}

/// Unfolded output is within the limits, and folding it in either form unfolds to the same output.
fn unfolds(chunks: &Chunks) -> Option<Vec<Chunk>> {
    let out = chunks.clone().unfold().ok()?;
    assert!(out.len() <= FRAME_CHUNKS_MAX);
    assert!(out.iter().map(|chunk| chunk.bytes.len()).sum::<usize>() <= FRAME_OUTPUT_MAX);
    for again in [Chunks::legible(Offsets::default(), &out), Chunks::packed(Offsets::default(), &out, 1)] {
        assert_eq!(again.unfold().ok().as_ref(), Some(&out));
    }
    Some(out)
}
