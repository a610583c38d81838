//! The wall clock, read at the edge and nowhere else.

use std::time::{SystemTime, UNIX_EPOCH};

use relay_protocol::Timestamp;

/// Now, in whole seconds.
pub fn now() -> Timestamp {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Timestamp::from_unix(i64::try_from(seconds).unwrap_or(i64::MAX))
}
