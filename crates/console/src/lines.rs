//! Escapes multi-line text for printing (clause FRM-17).

use std::io::{self, Write};

use relay_protocol::encoding::Escaper;

/// Escapes everything in `text` that a terminal or a CI system would interpret as a command. Line
/// breaks are kept.
pub fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut escaper = Escaper::default();
    for c in text.chars() {
        escaper.push(c, &mut out);
    }
    escaper.end(&mut out);
    out
}

/// A writer that escapes text as [`harmless`] does. It buffers only an incomplete character or a
/// possible start of a command, and writes that when it is dropped.
#[derive(Debug)]
pub struct Lines<W: Write> {
    to: W,
    /// Bytes of an incomplete character.
    rest: Vec<u8>,
    escaper: Escaper,
}

impl<W: Write> Lines<W> {
    /// Creates a writer that passes the escaped text to `to`.
    pub fn new(to: W) -> Self {
        Self { to, rest: Vec::new(), escaper: Escaper::default() }
    }
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        let mut out = String::new();
        let rest = std::mem::take(&mut self.rest);
        let mut chunks = rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            chunk.valid().chars().for_each(|c| self.escaper.push(c, &mut out));
            // Hold back an incomplete character at the end.
            let begins = std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
            if begins && chunks.peek().is_none() {
                self.rest = chunk.invalid().to_vec();
            } else {
                chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
            }
        }
        self.to.write_all(out.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<W: Write> Drop for Lines<W> {
    fn drop(&mut self) {
        let mut out = String::new();
        self.escaper.end(&mut out);
        std::mem::take(&mut self.rest).iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
        // If the stream is closed, the error cannot be reported to anyone.
        let _ = self.to.write_all(out.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that relay's own messages must never pass on unescaped to a terminal, CI log or reader.
    const HOSTILE: &[&str] = &[
        "\x1b[31mred",
        "\x1b]0;title\x07",
        "\u{9b}31m",
        "a\rb",
        "right \u{202e} to left",
        "soft\u{ad}hyphen",
        "tag \u{e0041}",
        "note \u{fff9}a\u{fffa}b\u{fffb}",
        "zero\u{200b}width",
        "::error::a line of relay's",
        "  ::set-output name=a::b",
        "\n::warning::in a second line",
        "text ##[error]anywhere",
        "##vso[task.complete]",
        "\u{2028}::error::",
    ];

    // clause: FRM-17
    #[test]
    fn nothing_hostile_comes_through_whole_or_in_pieces() {
        for text in HOSTILE {
            let once = harmless(text);
            for (at, line) in once.split('\n').enumerate() {
                assert!(line.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{text:?}: {line:?}");
                assert!(!line.trim_start().starts_with("::"), "{text:?}: line {at}: {line:?}");
                assert!(!line.contains("##[") && !line.contains("##vso["), "{text:?}: {line:?}");
            }
            // Writing byte by byte gives the same result.
            let mut out = Vec::new();
            let mut lines = Lines::new(&mut out);
            text.bytes().for_each(|byte| lines.write_all(&[byte]).unwrap());
            drop(lines);
            assert_eq!(String::from_utf8(out).unwrap(), once, "{text:?}");
        }
    }

    #[test]
    fn what_is_harmless_stays_as_it_is() {
        let text = "error: a::b is ## not [x]\n  two: grün, 日本語, 🚀, #[cfg]\n\n#\n##\n";
        assert_eq!(harmless(text), text);
    }

    #[test]
    fn bytes_that_are_no_text_are_named() {
        let mut out = Vec::new();
        Lines::new(&mut out).write_all(b"a\xff\xe2\x82").unwrap();
        assert_eq!(out, b"a\\xff\\xe2\\x82");
        let mut out = Vec::new();
        Lines::new(&mut out).write_all(b"\xe2\x82a\xe2\x82").unwrap();
        assert_eq!(out, b"\\xe2\\x82a\\xe2\\x82", "both truncated characters are shown");
    }
}
