//! The wall clock. Only programs and adapters read it; the other crates take the time as an
//! argument.

use std::time::{SystemTime, UNIX_EPOCH};

use relay_protocol::Timestamp;

/// The current time, in whole seconds since the Unix epoch.
pub fn now() -> Timestamp {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Timestamp::from_unix(i64::try_from(seconds).unwrap_or(i64::MAX))
}
