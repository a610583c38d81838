//! The receipts: which messages may be deleted from the queue.
//!
//! A message may be deleted only after everything up to its frame was written out (clause FRM-11).
//! A CLI that is killed therefore loses nothing that it had not printed: the next reader finds it
//! in the queue.

/// Names a received message, so that the caller can delete it. The caller chooses the number.
pub type Token = u64;

#[derive(Debug, Default)]
pub(super) struct Receipts {
    /// Messages whose frames were handed out but not written yet.
    unwritten: Vec<Token>,
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

    /// Everything that was handed out is written; `next` is the first frame that was not handed
    /// out.
    pub(super) fn written(&mut self, next: u64) {
        self.deletable.append(&mut self.unwritten);
        self.acknowledged = next;
    }

    pub(super) fn take_deletable(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.deletable)
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}
