//! A bound on a percentile: `p99=5ms`.
//!
//! Knows: how it is written, what a histogram says to it. Must not know: rates, runs.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hdrhistogram::Histogram;
use thiserror::Error;

/// `p50=`, `p99=`, `p99.9=` … or `max=`, and a time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bound {
    /// As written: `p99`.
    name: String,
    /// 0 to 1; 1 is the maximum.
    quantile: f64,
    at_most: Duration,
}

/// What is none.
#[derive(Debug, Error)]
#[error("should be a percentile and a time, as in p99=5ms, p99.9=20ms or max=50ms")]
pub(crate) struct BoundError;

impl FromStr for Bound {
    type Err = BoundError;

    fn from_str(text: &str) -> Result<Self, BoundError> {
        let (name, time) = text.split_once('=').ok_or(BoundError)?;
        let at_most = humantime::parse_duration(time).map_err(|_| BoundError)?;
        let quantile = match name.strip_prefix('p') {
            Some(percent) => {
                let percent = percent.parse::<f64>().ok();
                percent.filter(|percent| *percent > 0.0 && *percent < 100.0).ok_or(BoundError)?
                    / 100.0
            }
            None if name == "max" => 1.0,
            None => return Err(BoundError),
        };
        if at_most.is_zero() {
            return Err(BoundError);
        }
        Ok(Self { name: name.to_owned(), quantile, at_most })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}={}", self.name, humantime::format_duration(self.at_most))
    }
}

impl Bound {
    fn value(&self, histogram: &Histogram<u64>) -> Duration {
        Duration::from_nanos(histogram.value_at_quantile(self.quantile))
    }

    /// The percentile as a share of what it may be: over 1 is too much.
    pub(super) fn share_of(&self, histogram: &Histogram<u64>) -> f64 {
        self.value(histogram).as_secs_f64() / self.at_most.as_secs_f64()
    }

    /// What it was and what it should be.
    pub(super) fn told(&self, histogram: &Histogram<u64>) -> String {
        let value_ms = self.value(histogram).as_secs_f64() * 1e3;
        format!("{} {value_ms:.2} ms, over {}", self.name, humantime::format_duration(self.at_most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_and_compared() {
        let mut histogram = crate::record::histogram();
        for ms in 1..=100u64 {
            histogram.saturating_record(ms * 1_000_000);
        }
        let share = |text: &str| text.parse::<Bound>().expect("a bound").share_of(&histogram);
        assert!((share("p50=100ms") - 0.5).abs() < 0.01);
        assert!((share("p99=50ms") - 1.98).abs() < 0.01);
        assert!((share("max=1s") - 0.1).abs() < 0.01);
        let bound: Bound = "p99.9=20ms".parse().expect("a bound");
        assert_eq!(bound.to_string(), "p99.9=20ms");
        assert!(bound.told(&histogram).starts_with("p99.9 100.0"), "{}", bound.told(&histogram));
        for wrong in ["p99", "p0=1ms", "p100=1ms", "99=1ms", "p99=5", "p99=0s", "mean=1ms", ""] {
            assert!(wrong.parse::<Bound>().is_err(), "{wrong}");
        }
    }
}
