//! Waits for a condition, with a bound.

use std::time::{Duration, Instant};

/// A bound that no healthy run comes near, even on a busy machine.
pub const LONG: Duration = Duration::from_secs(120);

/// Polls `f` every 10 ms until it returns an answer. Panics with `what` if there is none within
/// [`LONG`].
#[track_caller]
pub fn eventually<T>(what: &str, f: impl FnMut() -> Option<T>) -> T {
    within(LONG, what, f)
}

/// Whether `f` becomes true within the bound of [`eventually`], for a caller who knows more to say
/// if it does not.
pub fn happens(mut f: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !f() {
        if began.elapsed() >= LONG {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Like [`eventually`], with its own bound.
#[track_caller]
pub fn within<T>(bound: Duration, what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = f() {
            return answer;
        }
        assert!(began.elapsed() < bound, "{what}: this did not happen within {bound:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
