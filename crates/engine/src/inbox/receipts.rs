//! The receipts: which messages may be deleted from the queue.
//!
//! A message may be deleted only after everything up to its frame was written out (clause FRM-11).
//! A CLI that is killed therefore loses nothing that it had not printed: the next reader finds it
//! in the queue.

use std::collections::VecDeque;

/// Names a received message, so that the caller can delete it. The caller chooses the number.
pub type Token = u64;

/// A position in the output that was handed out. A caller that has written everything up to it
/// calls [`Inbox::written`](super::Inbox::written).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// How many messages' contents were handed out.
    messages: u64,
    /// The first frame that was not handed out.
    next: u64,
}

#[derive(Debug, Default)]
pub(super) struct Receipts {
    /// Messages whose frames were handed out but not written yet, in order.
    unwritten: VecDeque<Token>,
    /// How many messages were written and left `unwritten`.
    written: u64,
    deletable: Vec<Token>,
    /// Frames below this number were written.
    acknowledged: u64,
}

impl Receipts {
    /// For a reader that knows that another reader has written the frames below `acknowledged`.
    pub(super) fn new(acknowledged: u64) -> Self {
        Self { acknowledged, ..Self::default() }
    }

    /// The message holds nothing to write.
    pub(super) fn discard(&mut self, token: Token) {
        self.deletable.push(token);
    }

    /// The content of the messages was handed out.
    pub(super) fn hand_out(&mut self, tokens: impl IntoIterator<Item = Token>) {
        self.unwritten.extend(tokens);
    }

    /// Marks everything that was handed out; `next` is the first frame that was not.
    pub(super) fn mark(&self, next: u64) -> Mark {
        Mark { messages: self.written.saturating_add(self.unwritten.len() as u64), next }
    }

    /// Everything up to `mark` is written. An older mark than the last one says nothing new.
    pub(super) fn written(&mut self, mark: Mark) {
        let news = usize::try_from(mark.messages.saturating_sub(self.written)).unwrap_or(usize::MAX);
        self.deletable.extend(self.unwritten.drain(..news.min(self.unwritten.len())));
        self.written = self.written.max(mark.messages);
        self.acknowledged = self.acknowledged.max(mark.next);
    }

    pub(super) fn take_deletable(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.deletable)
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_handed_out_before_the_mark_is_deletable() {
        let mut receipts = Receipts::new(0);
        receipts.hand_out([1, 2]);
        let first = receipts.mark(5);
        receipts.hand_out([3]);
        let second = receipts.mark(6);
        receipts.written(first);
        assert_eq!((receipts.take_deletable(), receipts.acknowledged()), (vec![1, 2], 5));
        receipts.written(second);
        receipts.written(first);
        assert_eq!((receipts.take_deletable(), receipts.acknowledged()), (vec![3], 6));
    }
}
