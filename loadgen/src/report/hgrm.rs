//! HdrHistogram's text format of percentiles, which its plotter and others read.
//!
//! Knows: the format (as written by the Java and C implementations). Must not know: the run.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// The distribution, values in milliseconds.
pub(super) fn text(histogram: &Histogram<u64>) -> String {
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let value = step.value_iterated_to() as f64 / NANOS_PER_UNIT;
        // Writing to a string can't fail.
        let _ = if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            writeln!(out, "{value:12.6} {quantile:2.12} {total:10} {inverse:14.2}")
        } else {
            writeln!(out, "{value:12.6} {quantile:2.12} {total:10}")
        };
    }
    let unit = |value: f64| value / NANOS_PER_UNIT;
    let _ = writeln!(
        out,
        "#[Mean    = {:12.6}, StdDeviation   = {:12.6}]\n\
         #[Max     = {:12.6}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]",
        unit(histogram.mean()),
        unit(histogram.stdev()),
        unit(histogram.max() as f64),
        histogram.len(),
        histogram.buckets(),
        (2 * 10u64.pow(u32::from(histogram.sigfig()))).next_power_of_two(),
    );
    out
}

const TICKS_PER_HALF_DISTANCE: u32 = 5;
const NANOS_PER_UNIT: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_the_distribution_has_everything() {
        let mut histogram = crate::record::histogram();
        for value in 1..=1000 {
            histogram.saturating_record(value * 1_000_000);
        }
        let text = text(&histogram);
        let last = text.lines().rfind(|line| !line.starts_with('#')).expect("a line");
        let fields: Vec<_> = last.split_whitespace().collect();
        assert_eq!(fields[1..], ["1.000000000000", "1000"]);
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }
}
