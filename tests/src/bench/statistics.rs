//! Turns samples into figures.

use serde_json::{Value, json};

/// The value at or below which `share` of the samples lie (nearest rank). Zero without samples.
pub(crate) fn quantile(sorted: &[u64], share: f64) -> u64 {
    let last = sorted.len().saturating_sub(1);
    // A share of a sample count fits into usize.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "counts are far below 2^52, shares between 0 and 1"
    )]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(last)).copied().unwrap_or_default()
}

/// Median, 99th percentile and extremes of times in microseconds.
pub(crate) fn summary(samples: &[u64]) -> Value {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    json!({
        "samples": sorted.len(),
        "min_us": quantile(&sorted, 0.0),
        "p50_us": quantile(&sorted, 0.5),
        "p99_us": quantile(&sorted, 0.99),
        "max_us": quantile(&sorted, 1.0),
    })
}

/// The median. With an even number of samples, it is the higher of the middle two.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The part of `from..to` that no interval covers.
pub(crate) fn uncovered(from: u64, to: u64, intervals: &[(u64, u64)]) -> u64 {
    let mut sorted = intervals.to_vec();
    sorted.sort_unstable();
    let (mut at, mut open) = (from, 0);
    for (begin, end) in sorted {
        let (begin, end) = (begin.clamp(at, to.max(at)), end.clamp(at, to.max(at)));
        open += begin - at;
        at = end;
    }
    open + to.saturating_sub(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<u64> = (1..=100).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| quantile(&samples, share)), [1, 50, 99, 100]);
        assert_eq!((quantile(&[7], 0.99), quantile(&[], 0.5)), (7, 0));
    }

    #[test]
    fn what_is_covered_counts_once() {
        assert_eq!(uncovered(10, 20, &[]), 10);
        assert_eq!(uncovered(10, 20, &[(12, 14), (13, 15), (0, 11), (19, 30)]), 5);
        assert_eq!(uncovered(10, 20, &[(0, 30), (12, 13)]), 0);
    }
}
