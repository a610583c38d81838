//! Durations and sizes in their human-readable form: `45m`, `2m`, `90s`, `50MiB`.

use std::time::Duration;

/// Reads a duration such as `90s`, `45m` or `2h`: a whole number and one unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "s" => number,
        "m" => number.checked_mul(60)?,
        "h" => number.checked_mul(3_600)?,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

/// Reads a size such as `512KiB`, `50MiB` or `1GiB`: a whole number and one binary unit.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_and_one_unit() {
        assert_eq!((duration("45m"), size("50MiB")), (Some(Duration::from_secs(2_700)), Some(52_428_800)));
        for odd in ["", "m", "5", "5d", "-5m", "5 m", "1h30m", "99999999999999999999s"] {
            assert_eq!(duration(odd), None, "{odd}");
        }
    }
}
