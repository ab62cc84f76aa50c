//! Bars of blocks, and latencies in few buckets.
//!
//! Knows: a histogram, how much room there is. Must not know: the terminal.

use hdrhistogram::Histogram;

use crate::clock::{NANOS_PER_MILLI, NANOS_PER_SECOND};

/// Latencies between the bound of the bucket before and its own.
pub(super) struct Bucket {
    /// Its bound, in words.
    pub(super) below: String,
    pub(super) count: u64,
}

/// In as fine steps as `rows_max` buckets allow; with fewer the lowest are left out.
pub(super) fn buckets(histogram: &Histogram<u64>, rows_max: usize) -> Vec<Bucket> {
    let mut found = Vec::new();
    for ladder in LADDERS {
        found = stretch(histogram, ladder);
        if found.len() <= rows_max {
            return found;
        }
    }
    found.split_off(found.len() - rows_max)
}

/// From the first to the last bucket that has something.
fn stretch(histogram: &Histogram<u64>, ladder: &[u64]) -> Vec<Bucket> {
    let mut recorded = histogram.iter_recorded().peekable();
    let mut found = Vec::new();
    let powers = (0..).map_while(|power| 10u64.checked_pow(power)).skip(3);
    for bound_ns in powers.flat_map(|power| ladder.iter().map(move |step| power * step)) {
        if recorded.peek().is_none() {
            break;
        }
        let mut count = 0;
        while let Some(step) = recorded.next_if(|step| step.value_iterated_to() < bound_ns) {
            count += step.count_at_value();
        }
        if count > 0 || !found.is_empty() {
            found.push(Bucket { below: round(bound_ns), count });
        }
        if bound_ns >= NANOS_MOST {
            break;
        }
    }
    found
}

/// A bound is a small number of its unit.
fn round(ns: u64) -> String {
    match ns {
        0..NANOS_PER_MILLI => format!("{} µs", ns / 1000),
        NANOS_PER_MILLI..NANOS_PER_SECOND => format!("{} ms", ns / NANOS_PER_MILLI),
        _ => format!("{} s", ns / NANOS_PER_SECOND),
    }
}

/// A bar of this share of `width` characters; what is not nothing is seen.
pub(super) fn bar(share: f64, width: usize) -> String {
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    let mut out = "█".repeat(eighths / 8);
    if let Some(part) = (eighths % 8).checked_sub(1) {
        out.push(PARTS[part]);
    }
    out
}

/// The finest that fits is taken.
const LADDERS: [&[u64]; 3] = [&[1, 2, 5], &[1, 3], &[1]];
const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
/// Histograms go to 20 minutes.
const NANOS_MOST: u64 = 10_000 * NANOS_PER_SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_eighths() {
        assert_eq!(bar(0.0, 10), "");
        assert_eq!(bar(0.0001, 10), "▏");
        assert_eq!(bar(0.55, 10), "█████▌");
        assert_eq!(bar(1.0, 3), "███");
    }

    #[test]
    fn buckets_are_as_fine_as_there_is_room_and_hold_everything() {
        let mut histogram = crate::record::histogram();
        for value_ns in [120_000, 150_000, 800_000, 30_000_000] {
            histogram.saturating_record(value_ns);
        }
        let of = |rows: usize| {
            let found = buckets(&histogram, rows);
            found.iter().map(|bucket| (bucket.below.clone(), bucket.count)).collect::<Vec<_>>()
        };
        let found = of(20);
        assert_eq!(found.first(), Some(&("200 µs".to_owned(), 2)));
        assert_eq!(found.last(), Some(&("50 ms".to_owned(), 1)));
        assert_eq!(found.iter().map(|(_, count)| count).sum::<u64>(), 4);
        assert_eq!(of(5).len(), 3);
        assert_eq!(of(3).iter().map(|(_, count)| count).sum::<u64>(), 4);
        assert_eq!(of(2).len(), 2);
        assert!(buckets(&crate::record::histogram(), 5).is_empty());
    }
}
