//! Exponential backoff: each pause is twice as long as the one before, up to a maximum. The caller
//! sleeps, and decides when to stop.

use std::time::Duration;

/// The pauses between the attempts of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with a pause of `first`; no pause is longer than `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The length of the next pause, without using it up.
    pub fn peek(&self) -> Duration {
        self.next
    }

    /// Takes the next pause. The one after it is twice as long.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        pause
    }

    /// Starts again from the first pause, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(5));
        let pauses: Vec<_> = (0..5).map(|_| backoff.pause().as_secs()).collect();
        assert_eq!((pauses, backoff.peek()), (vec![1, 2, 4, 5, 5], seconds(5)));
        backoff.reset();
        assert_eq!(backoff.pause(), seconds(1));
        let mut endless = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!((endless.pause(), endless.pause()), (Duration::MAX, Duration::MAX));
    }
}
