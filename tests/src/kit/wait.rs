//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

/// A bound that no healthy run comes near, on a machine that has other things to do.
pub const LONG: Duration = Duration::from_secs(120);

/// Asks `f` again and again until it has an answer; panics with `what` when it has none within [`LONG`].
#[track_caller]
pub fn eventually<T>(what: &str, f: impl FnMut() -> Option<T>) -> T {
    within(LONG, what, f)
}

/// [`eventually`], with a bound of one's own.
#[track_caller]
pub fn within<T>(bound: Duration, what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = f() {
            return answer;
        }
        assert!(began.elapsed() < bound, "{what}: not within {bound:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
