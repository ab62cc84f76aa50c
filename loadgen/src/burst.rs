//! Publications that come together instead of evenly spaced.
//!
//! Knows: how many, and within what time. Must not know: who publishes them.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::rate::Rate;

/// So many publications together, at the same mean rate: 50 of them every 50/rate seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Burst {
    size: u64,
    /// From the first of them to where the next would be, ns.
    over_ns: u64,
}

/// What can't be read as a burst.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("should be a number from 1 to {SIZE_MAX}, or within a time as in 50/1ms")]
pub(crate) struct BurstError;

impl Burst {
    /// Evenly spaced.
    pub(crate) const NONE: Self = Self { size: 1, over_ns: 0 };

    /// When the publication in this place is due, ns after the start. Never after its time without
    /// bursts: so a burst ends before the next one begins, however short the time between them is.
    #[inline]
    pub(crate) fn offset_ns(&self, rate: &Rate, place: u64) -> u64 {
        let even_ns = rate.offset_ns(place);
        if self.size == 1 {
            return even_ns;
        }
        let within = place % self.size;
        let begin_ns = rate.offset_ns(place - within);
        even_ns.min(begin_ns.saturating_add(within * self.over_ns / self.size))
    }
}

impl FromStr for Burst {
    type Err = BurstError;

    fn from_str(text: &str) -> Result<Self, BurstError> {
        let (size, over) = match text.split_once('/') {
            Some((size, over)) => {
                let over = humantime::parse_duration(over.trim()).map_err(|_| BurstError)?;
                (size, over)
            }
            None => (text, Duration::ZERO),
        };
        let size = size.trim().parse().ok().filter(|size| (1..=SIZE_MAX).contains(size));
        let over_ns = u64::try_from(over.as_nanos()).ok().filter(|&over_ns| over_ns <= OVER_NS_MAX);
        Ok(Self { size: size.ok_or(BurstError)?, over_ns: over_ns.ok_or(BurstError)? })
    }
}

const SIZE_MAX: u64 = 100_000;
/// An hour: with it no product of the two overflows.
const OVER_NS_MAX: u64 = 3600 * 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets_ns(burst: &str, per_s: f64, count: u64) -> Vec<u64> {
        let burst: Burst = burst.parse().expect("a burst");
        let rate = Rate::constant(per_s);
        (0..count).map(|place| burst.offset_ns(&rate, place)).collect()
    }

    #[test]
    fn so_many_come_together_at_the_same_mean_rate() {
        assert_eq!(offsets_ns("1", 1000.0, 3), [0, 1_000_000, 2_000_000]);
        assert_eq!(
            offsets_ns("3", 1000.0, 7),
            [0, 0, 0, 3_000_000, 3_000_000, 3_000_000, 6_000_000]
        );
        assert_eq!(offsets_ns("2/1ms", 1000.0, 4), [0, 500_000, 2_000_000, 2_500_000]);
    }

    #[test]
    fn a_burst_that_has_no_time_to_end_is_no_burst() {
        assert_eq!(offsets_ns("4/1s", 1000.0, 6), offsets_ns("1", 1000.0, 6));
    }

    #[test]
    fn what_is_no_burst_is_refused() {
        for wrong in ["0", "-1", "", "x", "5/", "5/x", "/1ms", "100001", "2/2h"] {
            assert_eq!(wrong.parse::<Burst>(), Err(BurstError), "{wrong}");
        }
    }
}
