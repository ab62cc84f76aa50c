//! The distributions of latency as points of a curve, finer the nearer the end: what is drawn.
//!
//! Knows: histograms. Must not know: how it is drawn.

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::Serialize;

use crate::record::Latencies;

/// Both histograms.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Curves {
    /// From the intended time of publishing.
    pub(crate) corrected: Vec<Point>,
    /// From the actual one.
    pub(crate) uncorrected: Vec<Point>,
}

/// A point of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Point {
    /// Share of all values, 0 to 1.
    pub(crate) quantile: f64,
    /// So many of them are no longer than this, ns.
    pub(crate) ns: u64,
}

impl Curves {
    pub(super) fn of(latencies: &Latencies) -> Self {
        Self { corrected: curve(&latencies.corrected), uncorrected: curve(&latencies.uncorrected) }
    }
}

fn curve(histogram: &Histogram<u64>) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        let point = Point { quantile: step.quantile_iterated_to(), ns: step.value_iterated_to() };
        // Of a stretch of equal values its ends say everything.
        let at = points.len();
        if at >= 2 && points[at - 1].ns == point.ns && points[at - 2].ns == point.ns {
            points.pop();
        }
        points.push(point);
    }
    points
}

const TICKS_PER_HALF_DISTANCE: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_from_the_least_to_the_longest() {
        let mut histogram = crate::record::histogram();
        assert_eq!(curve(&histogram), []);
        for value in 1..=10_000u64 {
            histogram.saturating_record(value * 1000);
        }
        let points = curve(&histogram);
        assert!((40..200).contains(&points.len()), "{}", points.len());
        assert!(points.is_sorted_by(|a, b| a.quantile < b.quantile && a.ns <= b.ns), "{points:?}");
        assert_eq!(points.last().map(|last| last.quantile), Some(1.0));
        let mut equal = crate::record::histogram();
        equal.saturating_record_n(1000, 100_000);
        assert_eq!(curve(&equal).len(), 2);
    }
}
