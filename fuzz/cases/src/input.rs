//! Fuzzer input read as a program: a sequence of operations, each followed by its operands.

/// The bytes that have not been read yet.
#[derive(Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    /// The next operation, or `None` at the end of the input.
    pub(crate) fn operation(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next operand. It is zero if the input ends within an operation.
    pub(crate) fn byte(&mut self) -> u8 {
        self.operation().unwrap_or_default()
    }

    /// A two-byte operand, little-endian.
    pub(crate) fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number below `count`, or 0 if `count` is 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::from(self.word()).checked_rem(count).unwrap_or_default()
    }

    /// A boolean operand.
    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// The next `length` bytes, or all remaining bytes if there are fewer.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
