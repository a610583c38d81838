//! Times on the wire: only `YYYY-MM-DDTHH:MM:SSZ`, in whole seconds, UTC (clause TIM-1).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::{Date, Month, OffsetDateTime, Time, Weekday};

/// A time in whole seconds since 1970-01-01T00:00:00Z, between the years 1970 and 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

/// A text that is not a time of the form `YYYY-MM-DDTHH:MM:SSZ` (clause TIM-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time of the form YYYY-MM-DDTHH:MM:SSZ")]
pub struct NotATimestamp;

const LAST: i64 = 253_402_300_799; // 9999-12-31T23:59:59Z

impl Timestamp {
    /// The time `seconds` after the Unix epoch, clamped to what the wire form can express (1970 to
    /// 9999).
    pub fn from_unix(seconds: i64) -> Self {
        Self(seconds.clamp(0, LAST))
    }

    /// Seconds since the Unix epoch.
    pub fn unix(self) -> i64 {
        self.0
    }

    /// The time `seconds` after this one; a negative number goes back. Clamped like
    /// [`Timestamp::from_unix`].
    #[must_use]
    pub fn plus(self, seconds: i64) -> Self {
        Self::from_unix(self.0.saturating_add(seconds))
    }

    /// Seconds from `earlier` to this time; negative if `earlier` is later.
    pub fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// The day in UTC, as `YYYY-MM-DD`.
    pub fn day(self) -> String {
        self.to_string().chars().take(10).collect()
    }

    /// The day of the week, in English, lower case.
    pub fn weekday(self) -> &'static str {
        match self.calendar().weekday() {
            Weekday::Monday => "monday",
            Weekday::Tuesday => "tuesday",
            Weekday::Wednesday => "wednesday",
            Weekday::Thursday => "thursday",
            Weekday::Friday => "friday",
            Weekday::Saturday => "saturday",
            Weekday::Sunday => "sunday",
        }
    }

    /// The hour of the day in UTC, 0 to 23.
    pub fn hour(self) -> u8 {
        self.calendar().hour()
    }

    fn calendar(self) -> OffsetDateTime {
        // Always in range by construction; the fallback is never used.
        OffsetDateTime::from_unix_timestamp(self.0).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.calendar();
        let (year, month, day) = (c.year(), u8::from(c.month()), c.day());
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", c.hour(), c.minute(), c.second())
    }
}

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    fn from_str(text: &str) -> Result<Self, NotATimestamp> {
        let bytes = text.as_bytes();
        if bytes.len() != 20 {
            return Err(NotATimestamp);
        }
        for (at, mark) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')] {
            if bytes.get(at) != Some(&mark) {
                return Err(NotATimestamp);
            }
        }
        let number = |from: usize, to: usize| -> Result<u16, NotATimestamp> {
            let digits = bytes.get(from..to).ok_or(NotATimestamp)?;
            digits.iter().try_fold(0_u16, |n, d| match d {
                b'0'..=b'9' => Ok(n * 10 + u16::from(d - b'0')),
                _ => Err(NotATimestamp),
            })
        };
        let small = |from, to| u8::try_from(number(from, to)?).map_err(|_| NotATimestamp);
        let month = Month::try_from(small(5, 7)?).map_err(|_| NotATimestamp)?;
        let date =
            Date::from_calendar_date(i32::from(number(0, 4)?), month, small(8, 10)?).map_err(|_| NotATimestamp)?;
        // 23:59:60 is refused: POSIX time has no leap seconds.
        let time = Time::from_hms(small(11, 13)?, small(14, 16)?, small(17, 19)?).map_err(|_| NotATimestamp)?;
        let seconds = OffsetDateTime::new_utc(date, time).unix_timestamp();
        if seconds < 0 { Err(NotATimestamp) } else { Ok(Self(seconds)) }
    }
}

impl TryFrom<String> for Timestamp {
    type Error = NotATimestamp;
    fn try_from(text: String) -> Result<Self, NotATimestamp> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

/// A duration of `seconds` in short form: `45s`, `3m12s`, `2h05m`. A negative duration becomes
/// `0s`.
pub fn plain_duration(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0..=59 => format!("{s}s"),
        60..=3_599 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
    }
}

/// [`plain_duration`] of a measured time, in whole seconds.
pub fn plain_elapsed(elapsed: Duration) -> String {
    plain_duration(i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_exact_and_survives_the_way_back() {
        let time: Timestamp = "2026-11-22T01:18:17Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-22T01:18:17Z");
        assert_eq!((time.weekday(), time.hour()), ("sunday", 1));
        for odd in [
            "2026-11-22T01:18:17+00:00",
            "2026-11-22 01:18:17Z",
            "2026-02-30T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T23:59:60Z",
            "",
            "+026-11-22T01:18:17Z",
            "1969-12-31T23:59:59Z",
        ] {
            assert_eq!(odd.parse::<Timestamp>(), Err(NotATimestamp), "{odd}");
        }
    }

    #[test]
    fn durations_read_as_a_person_says_them() {
        assert_eq!(
            (plain_duration(45), plain_duration(192), plain_duration(7_500)),
            ("45s".into(), "3m12s".into(), "2h05m".into())
        );
    }
}
