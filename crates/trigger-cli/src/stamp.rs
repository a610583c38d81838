//! The times of `--timestamps`: each line begins with the moment at which this command printed it.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use relay_protocol::Timestamp;
use relay_protocol::frame::Stream;

/// Puts times before lines.
#[derive(Debug, Default)]
pub(crate) struct Stamper {
    /// Whether stdout and stderr are in the middle of a line.
    open: [bool; 2],
}

impl Stamper {
    /// The present time as it stands before a line: `2026-11-28T19:40:00.123Z `.
    pub(crate) fn time() -> String {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = Timestamp::from_unix(i64::try_from(since.as_secs()).unwrap_or_default()).to_string();
        format!("{}.{:03}Z ", seconds.trim_end_matches('Z'), since.subsec_millis())
    }

    /// The bytes with the time before each line that begins in them.
    pub(crate) fn stamped(&mut self, stream: Stream, bytes: &[u8]) -> Bytes {
        let (time, open) = (Self::time(), &mut self.open[stream as usize]);
        let mut out = Vec::with_capacity(bytes.len() + time.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !*open {
                out.extend_from_slice(time.as_bytes());
            }
            out.extend_from_slice(line);
            *open = !line.ends_with(b"\n");
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_one_time() {
        let mut stamper = Stamper::default();
        let mut all = Vec::new();
        for part in ["one\ntw", "", "o\n", "three"] {
            all.extend_from_slice(&stamper.stamped(Stream::Stdout, part.as_bytes()));
        }
        assert!(!stamper.stamped(Stream::Stderr, b"e").is_empty());
        let text = String::from_utf8(all).unwrap();
        let lines: Vec<(&str, &str)> = text.lines().map(|line| line.split_at(Stamper::time().len())).collect();
        assert_eq!(lines.iter().map(|(_, rest)| *rest).collect::<Vec<_>>(), ["one", "two", "three"]);
        assert!(lines.iter().all(|(time, _)| time.len() == 25 && time.starts_with("20") && time.ends_with("Z ")));
    }
}
