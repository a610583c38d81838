//! Bytes as a program: operations and operands, one after the other.

/// What is left of them.
#[derive(Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    /// The next operation; `None` at the end.
    pub(crate) fn operation(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next operand; an operation that is cut short has zeros.
    pub(crate) fn byte(&mut self) -> u8 {
        self.operation().unwrap_or_default()
    }

    /// Two bytes of operand.
    pub(crate) fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// One of so many; 0 where there are none.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::from(self.word()).checked_rem(count).unwrap_or_default()
    }

    /// Yes or no.
    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// So many bytes, or all that are left.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
