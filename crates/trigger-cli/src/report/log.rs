//! The log of a report: the lines of both streams in the order in which the runner read them, with
//! relay's own lines among them.

use std::collections::VecDeque;

use relay_engine::Event;
use relay_protocol::evidence::frames;
use relay_protocol::frame::{Chunk, Stream};
use relay_protocol::{DeploymentId, PublicKey};

use crate::verify::replay::Replay;

/// The most lines and bytes that a page shows: what a browser takes without effort.
const LINES_MAX: usize = 100_000;
const BYTES_MAX: usize = 32 << 20;

/// The most bytes of one line.
const LINE_MAX: usize = 16 << 10;

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Stdout,
    Stderr,
    Relay,
}

/// A line, without its line break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) from: From,
    /// When its first byte was read, in milliseconds since the runner started.
    pub(crate) ms: u64,
    pub(crate) bytes: Vec<u8>,
}

/// The last lines of a deployment.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) lines: VecDeque<Line>,
    /// How many lines before these are left out.
    pub(crate) left_out: u64,
    bytes: usize,
    /// What stdout and stderr have begun: a line that has no end yet.
    open: [Option<Line>; 2],
    /// The time of the last output.
    ms: u64,
}

impl Log {
    /// The log in these objects. Only frames that a vouched key of these has signed count.
    pub(crate) fn of(objects: &[Vec<u8>], id: &DeploymentId, keys: &[PublicKey]) -> Self {
        let (mut replay, mut log) = (Replay::new(id, keys), Self::default());
        for frame in objects.iter().flat_map(|object| frames(object)).flatten() {
            replay.take(frame).into_iter().for_each(|event| log.push(event));
        }
        log.finish();
        log
    }

    fn push(&mut self, event: Event) {
        match event {
            Event::Output(chunks) => chunks.iter().for_each(|chunk| self.output(chunk)),
            Event::Step { index, name, rollback } => {
                let kind = if rollback { "rollback" } else { "step" };
                self.relay(&format!("{kind} {}: {name}", index.saturating_add(1)));
            }
            Event::Note(text) => self.relay(&text),
            Event::Gap(missing) => self.relay(&format!("{} frames are damaged or missing here", missing.frames)),
            Event::Started { .. } | Event::Launcher(_) => {}
        }
    }

    fn output(&mut self, chunk: &Chunk) {
        self.ms = chunk.ms;
        let from = if chunk.stream == Stream::Stdout { From::Stdout } else { From::Stderr };
        for part in chunk.bytes.split_inclusive(|byte| *byte == b'\n') {
            let open = &mut self.open[chunk.stream as usize];
            let line = open.get_or_insert_with(|| Line { from, ms: chunk.ms, bytes: Vec::new() });
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let room = LINE_MAX.saturating_sub(line.bytes.len()).min(text.len());
            line.bytes.extend_from_slice(&text[..room]);
            if text.len() < part.len()
                && let Some(line) = open.take()
            {
                self.add(line);
            }
        }
    }

    fn relay(&mut self, text: &str) {
        self.finish();
        self.add(Line { from: From::Relay, ms: self.ms, bytes: text.as_bytes().to_vec() });
    }

    /// Ends the lines that are open.
    fn finish(&mut self) {
        for stream in 0..self.open.len() {
            if let Some(line) = self.open[stream].take() {
                self.add(line);
            }
        }
    }

    fn add(&mut self, line: Line) {
        self.bytes += line.bytes.len();
        self.lines.push_back(line);
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(first) = self.lines.pop_front() else { return };
            self.bytes -= first.bytes.len();
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(stream: Stream, ms: u64, text: &str) -> Chunk {
        Chunk { stream, ms, bytes: text.to_owned().into() }
    }

    #[test]
    fn lines_are_whole_and_have_the_time_of_their_first_byte() {
        let mut log = Log::default();
        log.push(Event::Output(vec![
            chunk(Stream::Stdout, 1, "one\ntw"),
            chunk(Stream::Stderr, 2, "error\n"),
            chunk(Stream::Stdout, 3, "o\n\nopen"),
        ]));
        log.push(Event::Step { index: 0, name: "apply".to_owned(), rollback: false });
        let found: Vec<(From, u64, &str)> =
            log.lines.iter().map(|line| (line.from, line.ms, std::str::from_utf8(&line.bytes).unwrap())).collect();
        let expected = [
            (From::Stdout, 1, "one"),
            (From::Stderr, 2, "error"),
            (From::Stdout, 1, "two"),
            (From::Stdout, 3, ""),
            (From::Stdout, 3, "open"),
            (From::Relay, 3, "step 1: apply"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_last_lines_are_kept() {
        let mut log = Log::default();
        let text: String = (0..LINES_MAX + 5).map(|n| format!("{n}\n")).collect();
        log.push(Event::Output(vec![chunk(Stream::Stdout, 0, &text)]));
        assert_eq!((log.lines.len(), log.left_out), (LINES_MAX, 5));
        assert_eq!(log.lines[0].bytes, b"5");
        log.push(Event::Output(vec![chunk(Stream::Stdout, 0, &("x".repeat(LINE_MAX + 1) + "\n"))]));
        assert_eq!(log.lines.back().map(|line| line.bytes.len()), Some(LINE_MAX));
    }
}
