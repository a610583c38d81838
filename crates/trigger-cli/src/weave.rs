//! Weaves stdout, stderr and relay's own lines into one log without tearing them. People read both
//! streams in one place, and a tool's reads and writes do not end where its lines do.
//!
//! While one stream is in the middle of a line, what belongs elsewhere waits for the end of that
//! line, for at most [`MOMENT`]. A character is never split, however long its rest takes.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use relay_console::outlet::To;
use relay_protocol::frame::Stream;

/// How long a line may stay unfinished before others are printed into it.
const MOMENT: Duration = Duration::from_millis(250);

/// Something to print.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The tool's bytes.
    Tool(Stream, Bytes),
    /// A line of relay's own for stderr, without its line break.
    Line(String),
}

/// The state of the log. The caller passes the time, and prints what it returns.
#[derive(Debug, Default)]
pub(crate) struct Weave {
    /// Whether stdout and stderr are the same file, so that each ends the other's line.
    one_file: bool,
    /// The stream that is in the middle of a line.
    open: Option<Stream>,
    /// The beginning of a character of stdout and of stderr.
    rest: [Bytes; 2],
    /// What waits for the end of the line, and until when.
    waiting: VecDeque<Piece>,
    until: Option<Duration>,
    /// What is to be printed now.
    ready: Vec<(To, Bytes)>,
}

impl Weave {
    /// For a log whose two streams are one file, or are not.
    pub(crate) fn new(one_file: bool) -> Self {
        Self { one_file, ..Self::default() }
    }

    /// Adds something to print.
    pub(crate) fn push(&mut self, now: Duration, piece: Piece) {
        match piece {
            Piece::Tool(stream, bytes) if self.open == Some(stream) && !self.waiting.is_empty() => {
                self.go_on(stream, bytes);
            }
            piece if self.waiting.is_empty() && self.goes_here(&piece) => self.print(piece),
            piece => {
                self.until.get_or_insert(now + MOMENT);
                self.waiting.push_back(piece);
            }
        }
    }

    /// Prints what has waited long enough.
    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        if self.until.is_some_and(|until| now >= until) {
            self.give_up();
        }
    }

    /// Returns when [`Weave::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        self.until
    }

    /// Prints everything, at the end of the streams.
    pub(crate) fn finish(&mut self) {
        self.give_up();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.rest[stream as usize]);
            self.write(stream, rest);
        }
    }

    /// Returns what is to be printed now.
    pub(crate) fn take_ready(&mut self) -> Vec<(To, Bytes)> {
        std::mem::take(&mut self.ready)
    }

    /// Whether nothing is held back.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.ready.is_empty() && self.rest.iter().all(Bytes::is_empty)
    }

    /// Whether a stream is in the middle of a line.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a piece can follow without tearing a line.
    fn goes_here(&self, piece: &Piece) -> bool {
        match piece {
            Piece::Tool(stream, _) => self.open.is_none_or(|open| open == *stream),
            Piece::Line(_) => self.open.is_none(),
        }
    }

    /// Goes on with a line that others wait for. They come right after it.
    fn go_on(&mut self, stream: Stream, bytes: Bytes) {
        let more = self.print_line(stream, bytes);
        if !more.is_empty() {
            self.waiting.push_back(Piece::Tool(stream, more));
        }
        self.release();
    }

    /// Prints up to the first end of a line, and returns what follows it.
    fn print_line(&mut self, stream: Stream, mut bytes: Bytes) -> Bytes {
        let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        let more = bytes.split_off(end);
        self.print(Piece::Tool(stream, bytes));
        more
    }

    /// Prints what waits, as far as it tears no line. If a piece opens a new line, what ends that
    /// line goes first.
    fn release(&mut self) {
        while let Some(at) = self.waiting.iter().position(|piece| self.goes_here(piece)) {
            match self.waiting.remove(at) {
                Some(Piece::Tool(stream, bytes)) if at > 0 => {
                    let more = self.print_line(stream, bytes);
                    if !more.is_empty() {
                        self.waiting.insert(at, Piece::Tool(stream, more));
                    }
                }
                Some(piece) => self.print(piece),
                None => break,
            }
        }
        if self.waiting.is_empty() {
            self.until = None;
        }
    }

    fn give_up(&mut self) {
        self.until = None;
        while let Some(piece) = self.waiting.pop_front() {
            self.print(piece);
        }
    }

    fn print(&mut self, piece: Piece) {
        match piece {
            Piece::Tool(stream, bytes) => {
                let mut whole = std::mem::take(&mut self.rest[stream as usize]);
                whole = if whole.is_empty() { bytes } else { [whole, bytes].concat().into() };
                self.rest[stream as usize] = whole.split_off(whole.len() - unfinished(&whole));
                self.write(stream, whole);
            }
            Piece::Line(text) => {
                let torn = self.open.is_some_and(|open| open == Stream::Stderr || self.one_file);
                let start = if torn { "\n" } else { "" };
                self.ready.push((To::Stderr, format!("{start}{text}\n").into()));
                if torn {
                    self.open = None;
                }
            }
        }
    }

    fn write(&mut self, stream: Stream, bytes: Bytes) {
        let Some(last) = bytes.last() else { return };
        self.open = (*last != b'\n').then_some(stream);
        let to = if stream == Stream::Stdout { To::Stdout } else { To::Stderr };
        self.ready.push((to, bytes));
    }
}

/// How many bytes at the end are the beginning of a UTF-8 character whose rest is missing.
fn unfinished(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|count| {
            let tail = &bytes[bytes.len() - count..];
            std::str::from_utf8(tail).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OUT: Stream = Stream::Stdout;
    const ERR: Stream = Stream::Stderr;

    fn tool(stream: Stream, text: &str) -> Piece {
        Piece::Tool(stream, text.to_owned().into())
    }

    fn line(text: &str) -> Piece {
        Piece::Line(text.to_owned())
    }

    /// What a log that receives both streams holds.
    fn shown(weave: &mut Weave) -> String {
        weave.take_ready().into_iter().map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect()
    }

    fn woven(pieces: Vec<Piece>) -> String {
        let mut weave = Weave::new(true);
        pieces.into_iter().for_each(|piece| weave.push(Duration::ZERO, piece));
        shown(&mut weave)
    }

    #[test]
    fn what_comes_in_the_middle_of_a_line_waits_for_its_end() {
        let pieces = vec![tool(OUT, "a\nb"), tool(ERR, "warning\n"), line("relay"), tool(OUT, "c\nd")];
        assert_eq!(woven(pieces), "a\nbc\nwarning\nrelay\nd");
        assert_eq!(woven(vec![tool(OUT, "a"), tool(ERR, "b"), tool(OUT, "\n"), tool(ERR, "c\n")]), "a\nbc\n");
    }

    #[test]
    fn a_line_that_does_not_end_is_waited_for_only_a_moment() {
        for (one_file, expected) in [(true, "a prompt: \nrelay\n"), (false, "a prompt: relay\n")] {
            let mut weave = Weave::new(one_file);
            weave.push(Duration::ZERO, tool(OUT, "a prompt: "));
            weave.push(Duration::ZERO, line("relay"));
            assert_eq!((shown(&mut weave).as_str(), weave.poll_timeout()), ("a prompt: ", Some(MOMENT)));
            weave.handle_timeout(MOMENT);
            assert_eq!(["a prompt: ", &shown(&mut weave)].concat(), expected);
            assert!(weave.is_empty());
        }
    }

    #[test]
    fn a_character_is_never_split() {
        let mut weave = Weave::new(true);
        weave.push(Duration::ZERO, Piece::Tool(OUT, b"gr\xc3".as_slice().into()));
        weave.push(Duration::ZERO, tool(ERR, "warning\n"));
        weave.handle_timeout(MOMENT);
        assert_eq!(shown(&mut weave), "grwarning\n");
        assert!(!weave.is_empty());
        weave.push(MOMENT, Piece::Tool(OUT, b"\xbcn\n".as_slice().into()));
        assert_eq!(shown(&mut weave), "ün\n");
        // Bytes that are no text are not held back, and nothing is held back at the end.
        weave.push(MOMENT, Piece::Tool(OUT, b"\xff\xfe\xf0\x9f".as_slice().into()));
        assert_eq!(weave.take_ready(), [(To::Stdout, b"\xff\xfe".as_slice().into())]);
        weave.finish();
        assert_eq!(weave.take_ready(), [(To::Stdout, b"\xf0\x9f".as_slice().into())]);
    }

    proptest! {
        #[test]
        fn each_stream_stays_as_it_is_and_lines_are_whole(
            texts in proptest::collection::vec((any::<bool>(), "[ab]{0,3}\n?"), 0..40)
        ) {
            let mut weave = Weave::new(true);
            let mut said = [String::new(), String::new()];
            for (at, (error, text)) in texts.iter().enumerate() {
                // Capitals show to which stream a letter belongs.
                let text = if *error { text.to_uppercase() } else { text.clone() };
                said[usize::from(*error)].push_str(&text);
                weave.push(Duration::from_millis(at as u64), tool(if *error { ERR } else { OUT }, &text));
            }
            let early = shown(&mut weave);
            for text in early.split_inclusive('\n').filter(|text| text.ends_with('\n')) {
                prop_assert!(!(text.contains(['a', 'b']) && text.contains(['A', 'B'])), "{early:?}");
            }
            weave.finish();
            let all = early + &shown(&mut weave);
            let of = |keep: fn(&char) -> bool| all.chars().filter(keep).collect::<String>();
            prop_assert_eq!(of(|c| c.is_lowercase()), said[0].replace('\n', ""));
            prop_assert_eq!(of(|c| c.is_uppercase()), said[1].replace('\n', ""));
        }
    }
}
