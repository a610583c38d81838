//! Removes secrets from a stream, including secrets that are split over writes, have several lines,
//! or appear in base64.

use aho_corasick::{AhoCorasick, MatchKind};

/// The replacement for a secret.
const MASK: &[u8] = b"***";

/// Secrets shorter than this many bytes are not masked: they would black out half of the output and
/// hide nothing.
const SECRET_MIN: usize = 4;

/// Masks one stream. Bytes that may be the beginning of a secret are held back until the next bytes
/// decide, or the stream ends.
///
/// ```
/// use relay_engine::Masker;
///
/// let mut masker = Masker::new(&["hunter22"]);
/// let mut shown = masker.push(b"password: hunt");
/// assert_eq!(shown, b"password: ");
/// shown.extend(masker.push(b"er22\n"));
/// shown.extend(masker.finish());
/// assert_eq!(shown, b"password: ***\n");
/// ```
#[derive(Debug)]
pub struct Masker {
    patterns: Vec<Vec<u8>>,
    finder: Option<AhoCorasick>,
    held: Vec<u8>,
}

impl Masker {
    /// Masks `secrets`, each line of them, and their base64.
    pub fn new(secrets: &[impl AsRef<[u8]>]) -> Self {
        let mut masker = Self { patterns: Vec::new(), finder: None, held: Vec::new() };
        masker.learn(secrets);
        masker
    }

    /// Masks `secrets` from here on instead of the previous ones. Bytes that are held back are
    /// kept.
    pub fn learn(&mut self, secrets: &[impl AsRef<[u8]>]) {
        let mut patterns: Vec<Vec<u8>> = Vec::new();
        for secret in secrets.iter().map(AsRef::as_ref) {
            let lines = secret.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            let encoded = relay_protocol::encoding::base64(secret).trim_end_matches('=').as_bytes().to_vec();
            patterns.push(secret.to_vec());
            patterns.push(encoded);
            patterns.extend(lines.map(<[u8]>::to_vec));
        }
        patterns.retain(|pattern| pattern.len() >= SECRET_MIN);
        patterns.sort_unstable();
        patterns.dedup();
        // Building fails only if the patterns do not fit into memory. The output is then withheld
        // rather than leaked.
        self.finder = (!patterns.is_empty())
            .then(|| AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns).ok())
            .flatten();
        self.patterns = patterns;
    }

    /// Adds bytes of the stream. Returns what may be shown now, masked.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.patterns.is_empty() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        let open = self.open_at();
        let (shown, used) = self.masked(open);
        self.held.drain(..used);
        shown
    }

    /// Ends the stream. Returns what was held back, masked.
    pub fn finish(&mut self) -> Vec<u8> {
        let (shown, _) = self.masked(self.held.len());
        self.held.clear();
        shown
    }

    /// The position of the earliest incomplete beginning of a secret; the length if there is none.
    fn open_at(&self) -> usize {
        let longest = |pattern: &Vec<u8>| {
            let most = (pattern.len() - 1).min(self.held.len());
            (1..=most).rev().find(|k| self.held.ends_with(&pattern[..*k])).unwrap_or(0)
        };
        self.held.len() - self.patterns.iter().map(longest).max().unwrap_or(0)
    }

    /// Masks what begins before `open`. Returns the text and the number of held bytes that it
    /// stands for.
    fn masked(&self, open: usize) -> (Vec<u8>, usize) {
        let Some(finder) = &self.finder else { return (Vec::new(), self.held.len()) };
        let mut shown = Vec::with_capacity(open);
        let mut at = 0;
        for found in finder.find_iter(&self.held) {
            if found.start() >= open {
                break;
            }
            shown.extend_from_slice(&self.held[at..found.start()]);
            shown.extend_from_slice(MASK);
            at = found.end();
        }
        if at < open {
            shown.extend_from_slice(&self.held[at..open]);
            at = open;
        }
        (shown, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(secrets: &[&str], parts: &[&str]) -> String {
        let secrets: Vec<Vec<u8>> = secrets.iter().map(|s| s.as_bytes().to_vec()).collect();
        let mut masker = Masker::new(&secrets);
        let mut out = Vec::new();
        for part in parts {
            out.extend(masker.push(part.as_bytes()));
        }
        out.extend(masker.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_secret_split_over_writes_is_masked() {
        assert_eq!(through(&["hunter22"], &["pass=hun", "ter", "22!"]), "pass=***!");
        assert_eq!(through(&["hunter22"], &["hunt", "er"]), "hunter");
    }

    #[test]
    fn the_longer_of_two_secrets_wins_also_across_writes() {
        assert_eq!(through(&["abcd", "abcdefgh"], &["abcd", "efgh", "."]), "***.");
        assert_eq!(through(&["abcd", "abcdefgh"], &["abcd", "xy"]), "***xy");
    }

    #[test]
    fn lines_and_base64_of_a_secret_are_masked() {
        assert_eq!(through(&["first line\nsecond line\n"], &["x second line y"]), "x *** y");
        assert_eq!(through(&["hunter22"], &["aHVudGVyMjI="]), "***=");
    }

    proptest! {
        #[test]
        fn no_split_leaks_and_nothing_else_changes(text in "[abx]{0,60}", cuts in proptest::collection::vec(0_usize..60, 0..6)) {
            let mut at: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let parts: Vec<&str> = at.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            prop_assert_eq!(through(&["abab", "bxbxa"], &parts), through(&["abab", "bxbxa"], &[&text]));
            prop_assert!(!through(&["abab"], &parts).contains("abab"));
        }
    }
}
