//! Time as text, and random identifiers: the few forms that AWS answers need, without a calendar crate.

use std::time::{SystemTime, UNIX_EPOCH};

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

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    seconds: u64,
    weekday: usize,
}

/// Days to a date, after Howard Hinnant's `civil_from_days`; dates before 1970 do not occur here.
fn civil(ms: u64) -> Civil {
    let seconds = ms / 1000;
    let days = seconds / 86_400;
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    Civil {
        year: year_of_era + era * 400 + u64::from(month <= 2),
        month,
        day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
        seconds: seconds % 86_400,
        weekday: usize::try_from((days + 4) % 7).unwrap_or(0),
    }
}

/// `2026-01-31T23:59:59.000Z`
pub(crate) fn iso_millis(ms: u64) -> String {
    let c = civil(ms);
    let (h, m, s) = (c.seconds / 3600, c.seconds / 60 % 60, c.seconds % 60);
    format!("{:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}.{:03}Z", c.year, c.month, c.day, ms % 1000)
}

/// `2026-01-31T23:59:59Z`
pub(crate) fn iso_seconds(ms: u64) -> String {
    let c = civil(ms);
    let (h, m, s) = (c.seconds / 3600, c.seconds / 60 % 60, c.seconds % 60);
    format!("{:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}Z", c.year, c.month, c.day)
}

/// `Sat, 31 Jan 2026 23:59:59 GMT`
pub(crate) fn http_date(ms: u64) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let c = civil(ms);
    let month = usize::try_from(c.month).unwrap_or(1).saturating_sub(1);
    let (h, m, s) = (c.seconds / 3600, c.seconds / 60 % 60, c.seconds % 60);
    format!(
        "{}, {:02} {} {:04} {h:02}:{m:02}:{s:02} GMT",
        DAYS.get(c.weekday).unwrap_or(&"Sun"),
        c.day,
        MONTHS.get(month).unwrap_or(&"Jan"),
        c.year
    )
}

/// Random bytes. Where the system has none, the clock must do: this is a sandbox, and its secrets protect nothing.
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
