//! Timestamps and random identifiers, in the formats that AWS's responses use.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since the epoch as a JSON number, the form of the AWS JSON protocols.
pub(crate) fn epoch_seconds(ms: u64) -> serde_json::Value {
    let whole = ms / 1000;
    let thousandths = u32::try_from(ms % 1000).unwrap_or(0);
    match u32::try_from(whole) {
        Ok(seconds) => serde_json::json!(f64::from(seconds) + f64::from(thousandths) / 1000.0),
        Err(_) => serde_json::json!(whole),
    }
}

fn date(ms: u64) -> OffsetDateTime {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    // Dates after the year 9999 are not representable; none occurs here.
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn date_and_time(ms: u64) -> String {
    let at = date(ms);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
}

/// `2026-01-31T23:59:59.000Z`
pub(crate) fn iso_millis(ms: u64) -> String {
    format!("{}.{:03}Z", date_and_time(ms), ms % 1000)
}

/// `2026-01-31T23:59:59Z`
pub(crate) fn iso_seconds(ms: u64) -> String {
    format!("{}Z", date_and_time(ms))
}

/// `Sat, 31 Jan 2026 23:59:59 GMT`
pub(crate) fn http_date(ms: u64) -> String {
    let at = date(ms);
    let short = |name: String| name.chars().take(3).collect::<String>();
    let (weekday, month) = (short(at.weekday().to_string()), short(at.month().to_string()));
    let (day, year) = (at.day(), at.year());
    format!("{weekday}, {day:02} {month} {year:04} {:02}:{:02}:{:02} GMT", at.hour(), at.minute(), at.second())
}

/// Random bytes. If the system provides none, they come from the clock: this is a sandbox, and its
/// secrets protect nothing.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    if getrandom::fill(&mut bytes).is_err() {
        for (byte, clock) in bytes.iter_mut().zip(now_ms().to_le_bytes().iter().cycle()) {
            *byte = *clock;
        }
    }
    bytes
}

/// Random lower-case hexadecimal text of `2 * N` characters.
pub(crate) fn random_hex<const N: usize>() -> String {
    data_encoding::HEXLOWER.encode(&random::<N>())
}

/// A random UUID, version 4.
pub(crate) fn uuid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(iso_millis(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso_millis(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(iso_seconds(4_107_542_399_000), "2100-02-28T23:59:59Z");
        assert_eq!(iso_seconds(4_107_542_400_000), "2100-03-01T00:00:00Z");
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
