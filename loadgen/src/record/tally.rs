//! A histogram that costs little for each value: counts by bucket, and nothing else.
//!
//! Knows: the buckets of [`histogram`]. Must not know: what the values are.
//!
//! hdrhistogram keeps its least, its greatest and its total up to date with each value, behind a
//! call: as much work as reading a message's stamp. Here a value is one addition to the bucket that
//! hdrhistogram would have chosen; the rest is made up for when the histogram is asked for.

use hdrhistogram::Histogram;

use super::{NANOS_LEAST, histogram};

/// Values that have come, by bucket.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// What is not yet in `histogram`, by bucket.
    counts: Box<[u64]>,
    histogram: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let histogram = histogram();
        let counts = vec![0; histogram.distinct_values()].into_boxed_slice();
        Self { counts, histogram }
    }

    /// Counts one value, ns.
    #[inline(always)]
    pub(crate) fn record(&mut self, value_ns: u64) {
        match self.counts.get_mut(bucket_of(value_ns)) {
            Some(count) => *count += 1,
            None => self.histogram.saturating_record(value_ns),
        }
    }

    /// What has been counted.
    pub(crate) fn histogram(&mut self) -> &mut Histogram<u64> {
        for (bucket, count) in self.counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            self.histogram.saturating_record_n(least_of(bucket), std::mem::take(count));
        }
        &mut self.histogram
    }
}

/// The place of a value's bucket: up to [`SUBBUCKETS`] one for each unit, then [`HALF`] for each
/// doubling.
#[inline]
fn bucket_of(value_ns: u64) -> usize {
    let units = value_ns >> UNIT_BITS;
    let doublings = (units | (SUBBUCKETS - 1)).ilog2() - (SUBBUCKETS - 1).ilog2();
    (u64::from(doublings) * HALF + (units >> doublings)) as usize
}

/// The least value of a bucket, ns.
fn least_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doublings = (bucket / HALF).saturating_sub(1);
    (bucket - doublings * HALF) << doublings << UNIT_BITS
}

/// Values are told apart by 2^6 ns at best: [`NANOS_LEAST`].
const UNIT_BITS: u32 = NANOS_LEAST.ilog2();
/// So many of one size suffice for three significant digits.
const SUBBUCKETS: u64 = 2048;
const HALF: u64 = SUBBUCKETS / 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_the_histogram_would_have_become(
            values in proptest::collection::vec((0..63u32, any::<u64>()), 0..200), pause: bool,
        ) {
            let (mut tally, mut expected) = (Tally::new(), histogram());
            for (bits, value) in values {
                let value_ns = value >> bits;
                tally.record(value_ns);
                expected.saturating_record(value_ns);
                if pause {
                    tally.histogram();
                }
            }
            let found = tally.histogram();
            let buckets = |of: &Histogram<u64>| -> Vec<_> {
                of.iter_recorded().map(|at| (at.value_iterated_to(), at.count_at_value())).collect()
            };
            prop_assert_eq!(buckets(found), buckets(&expected));
            prop_assert_eq!((found.len(), found.min()), (expected.len(), expected.min()));
            prop_assert_eq!(found.mean().to_bits(), expected.mean().to_bits());
            // Of what is shorter than its unit the library says both 0 and 63.
            prop_assert!(found.max() == expected.max() || expected.max() < NANOS_LEAST);
        }
    }

    #[test]
    fn each_bucket_begins_with_its_least_value() {
        for bucket in 0..histogram().distinct_values() {
            assert_eq!(bucket_of(least_of(bucket)), bucket);
            assert_eq!(bucket_of(least_of(bucket + 1) - 1), bucket);
        }
    }
}
