//! Removes secrets from a stream, in whatever pieces the stream comes (clauses MSK-1 to MSK-5).
//! `forms` says in which forms a secret is found.

mod forms;

use memchr::memchr2_iter;

use forms::Patterns;
pub use forms::SECRET_MIN;

/// The replacement for a secret.
const MASK: &[u8] = b"***";

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
#[derive(Debug, Default)]
pub struct Masker {
    /// Finds a secret as it is.
    plain: Finder,
    /// Finds a secret in an encoding that others wrap into lines. It reads the stream without its
    /// line breaks.
    wrapped: Finder,
    held: Vec<u8>,
    /// So many of the first bytes that are held belong to a secret whose mask was already shown.
    masked: usize,
}

impl Masker {
    /// Masks `secrets`, in all their forms.
    pub fn new(secrets: &[impl AsRef<[u8]>]) -> Self {
        let mut masker = Self::default();
        masker.learn(secrets);
        masker
    }

    /// Masks `secrets` from here on instead of the previous ones. Bytes that are held back are
    /// kept.
    pub fn learn(&mut self, secrets: &[impl AsRef<[u8]>]) {
        let Patterns { plain, wrapped } = Patterns::of(secrets.iter().map(AsRef::as_ref));
        (self.plain, self.wrapped) = (Finder::new(plain), Finder::new(wrapped));
    }

    /// Whether there is nothing to mask, and nothing held back: the stream may be shown as it is.
    pub fn is_idle(&self) -> bool {
        self.plain.patterns.is_empty() && self.held.is_empty()
    }

    /// Adds bytes of the stream. Returns what may be shown now, masked.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.is_idle() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        let joined = Joined::new(&self.held);
        let open = self.wrapped.open_at(&joined.bytes);
        let in_wrapped = if open < joined.bytes.len() { joined.place(open) } else { self.held.len() };
        let open = self.plain.open_at(&self.held).min(in_wrapped);
        self.take(open, &joined)
    }

    /// Ends the stream. Returns what was held back, masked.
    pub fn finish(&mut self) -> Vec<u8> {
        let joined = Joined::new(&self.held);
        self.take(self.held.len(), &joined)
    }

    /// Takes the first `open` bytes, masked. No secret that is still incomplete begins in them.
    fn take(&mut self, open: usize, joined: &Joined) -> Vec<u8> {
        let mut secrets = self.plain.find(&self.held);
        let wrapped = self.wrapped.find(&joined.bytes).into_iter();
        secrets.extend(wrapped.map(|(start, end)| (joined.place(start), joined.place(end.saturating_sub(1)) + 1)));
        secrets.sort_unstable();
        let mut shown = Vec::with_capacity(open);
        // Up to here everything is shown, and up to `end` everything belongs to a secret.
        let (mut at, mut end) = (0, self.masked);
        for (start, its_end) in secrets.into_iter().take_while(|(start, _)| *start < open) {
            if start >= end {
                shown.extend_from_slice(self.held.get(at.max(end)..start).unwrap_or_default());
                shown.extend_from_slice(MASK);
                at = start;
            }
            end = end.max(its_end);
        }
        shown.extend_from_slice(self.held.get(at.max(end)..open).unwrap_or_default());
        self.masked = end.saturating_sub(open);
        self.held.drain(..open);
        shown
    }
}

/// Finds a set of patterns, at a speed that does not depend on how many there are: a look into a
/// small table rules out nearly every place, and a comparison decides the others.
#[derive(Debug, Default)]
struct Finder {
    /// Sorted.
    patterns: Vec<Vec<u8>>,
    /// The hashes of the first bytes of all patterns.
    heads: Heads,
    longest: usize,
}

/// Bytes at the beginning of a pattern that are looked up. No pattern is shorter.
const HEAD: usize = SECRET_MIN;

/// A set of hashes of [`HEAD`] bytes: one bit each, in a table that stays in the processor's first
/// cache (16 KiB).
#[derive(Debug, Default)]
struct Heads(Vec<u64>);

impl Heads {
    const BITS: u32 = 17;

    /// The word and the bit of a head: a multiplicative hash (Knuth, volume 3, section 6.4).
    fn place(head: [u8; HEAD]) -> (usize, u64) {
        let hash = u32::from_le_bytes(head).wrapping_mul(0x9e37_79b1) >> (u32::BITS - Self::BITS);
        ((hash >> 6) as usize, 1 << (hash & 63))
    }

    fn of(patterns: &[Vec<u8>]) -> Self {
        let mut words = vec![0; if patterns.is_empty() { 0 } else { 1 << (Self::BITS - 6) }];
        for head in patterns.iter().filter_map(|pattern| pattern.first_chunk()) {
            let (word, bit) = Self::place(*head);
            words[word] |= bit;
        }
        Self(words)
    }

    /// Whether a pattern may begin with these bytes.
    fn may_be(&self, head: [u8; HEAD]) -> bool {
        let (word, bit) = Self::place(head);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

impl Finder {
    fn new(patterns: Vec<Vec<u8>>) -> Self {
        let heads = Heads::of(&patterns);
        let longest = patterns.iter().map(Vec::len).max().unwrap_or_default();
        Self { patterns, heads, longest }
    }

    /// Every place at which a pattern is: start and end. They may overlap.
    fn find(&self, bytes: &[u8]) -> Vec<(usize, usize)> {
        let mut places = Vec::new();
        if self.patterns.is_empty() {
            return places;
        }
        for (at, head) in bytes.array_windows().enumerate().filter(|(_, head)| self.heads.may_be(**head)) {
            let rest = bytes.get(at..).unwrap_or_default();
            let first = self.patterns.partition_point(|pattern| pattern.as_slice() < head.as_slice());
            let alike = self.patterns.iter().skip(first).take_while(|pattern| pattern.starts_with(head));
            places.extend(alike.filter(|pattern| rest.starts_with(pattern)).map(|pattern| (at, at + pattern.len())));
        }
        places
    }

    /// The position of the earliest incomplete beginning of a pattern; the length if there is none.
    fn open_at(&self, bytes: &[u8]) -> usize {
        let first = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        let begins = |at: &usize| {
            let tail = bytes.get(*at..).unwrap_or_default();
            if tail.first_chunk().is_some_and(|head| !self.heads.may_be(*head)) {
                return false;
            }
            let next = self.patterns.partition_point(|pattern| pattern.as_slice() <= tail);
            self.patterns.get(next).is_some_and(|pattern| pattern.starts_with(tail))
        };
        (first..bytes.len()).find(begins).unwrap_or(bytes.len())
    }
}

/// The bytes without line breaks.
#[derive(Debug, Default)]
struct Joined {
    bytes: Vec<u8>,
    /// For each line break that was left out, the length of what came before it here.
    breaks: Vec<usize>,
}

impl Joined {
    fn new(bytes: &[u8]) -> Self {
        let mut joined = Self { bytes: Vec::with_capacity(bytes.len()), breaks: Vec::new() };
        let mut from = 0;
        for at in memchr2_iter(b'\r', b'\n', bytes) {
            joined.bytes.extend_from_slice(bytes.get(from..at).unwrap_or_default());
            joined.breaks.push(joined.bytes.len());
            from = at + 1;
        }
        joined.bytes.extend_from_slice(bytes.get(from..).unwrap_or_default());
        joined
    }

    /// The place in the original of the byte that is here at `at`.
    fn place(&self, at: usize) -> usize {
        at + self.breaks.partition_point(|before| *before <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(secrets: &[&str], parts: &[&str]) -> String {
        let mut masker = Masker::new(secrets);
        let mut out = Vec::new();
        for part in parts {
            out.extend(masker.push(part.as_bytes()));
        }
        out.extend(masker.finish());
        String::from_utf8(out).unwrap()
    }

    // clause: MSK-4
    #[test]
    fn a_secret_split_over_writes_is_masked() {
        assert_eq!(through(&["hunter22"], &["pass=hun", "ter", "22!"]), "pass=***!");
        assert_eq!(through(&["hunter22"], &["hunt", "er"]), "hunter");
        assert_eq!(through(&["hunter22"], &["hunthunter22er"]), "hunt***er");
    }

    #[test]
    fn secrets_that_overlap_are_both_masked() {
        for parts in [&["abcd", "efgh", "."][..], &["abcdefgh."], &["a", "b", "c", "d", "e", "f", "g", "h", "."]] {
            assert_eq!(through(&["abcd", "abcdefgh"], parts), "***.");
            assert_eq!(through(&["abcd", "cdef", "efgh"], parts), "***.");
        }
        assert_eq!(through(&["abcd", "abcdefgh"], &["abcd", "xy"]), "***xy");
    }

    /// A stream of nothing but one overlapping secret does not grow what is held back.
    #[test]
    fn what_is_held_back_is_bounded() {
        let mut masker = Masker::new(&["aaaaaaaa"]);
        let mut shown = Vec::new();
        for _ in 0..1_000 {
            shown.extend(masker.push(b"aaaaa"));
            assert!(masker.held.len() < 64, "{}", masker.held.len());
        }
        shown.extend(masker.finish());
        assert_eq!(shown, b"***");
    }

    proptest! {
        /// Otherwise it would not be found.
        #[test]
        fn no_pattern_is_shorter_than_what_is_looked_up(secret in proptest::collection::vec(any::<u8>(), 0..40), text in "[ %a\\n]{0,12}") {
            let Patterns { plain, wrapped } = Patterns::of([secret.as_slice(), text.as_bytes()].into_iter());
            prop_assert!(plain.iter().chain(&wrapped).all(|pattern| pattern.len() >= HEAD));
        }

        #[test]
        fn no_split_leaks_and_nothing_else_changes(text in "[abx\n]{0,60}", cuts in proptest::collection::vec(0_usize..60, 0..6)) {
            let mut at: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let parts: Vec<&str> = at.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let whole = through(&["abab", "bxbxa"], &[&text]);
            prop_assert_eq!(through(&["abab", "bxbxa"], &parts), whole.clone());
            prop_assert!(!whole.contains("abab") && !whole.contains("bxbxa"));
            // The text between the masks is unchanged.
            prop_assert!(whole.split("***").all(|part| text.contains(part)));
        }
    }
}
