//! How long one publication takes to its first, its median and its last subscriber.
//!
//! Knows: sampled publications and the latencies of their deliveries. Must not know: connections,
//! order, printing.
//!
//! A sample needs every delivery's latency, so only one publication in so many is taken.

use std::collections::BTreeMap;

/// One thread's samples, or all of them when merged.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    /// Numbers with none of these bits set are sampled.
    mask: u64,
    /// (stream, number) → latencies, µs.
    samples: BTreeMap<(u16, u64), Vec<u32>>,
    /// Latencies held.
    count: usize,
}

/// Of each sampled publication the latency of its first, median and last delivery; of these the
/// median over all samples, µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct SpreadSummary {
    /// Publications sampled.
    pub(crate) samples: usize,
    /// To the first subscriber.
    pub(crate) first_us: u32,
    /// To half of them.
    pub(crate) median_us: u32,
    /// To the last one.
    pub(crate) last_us: u32,
    /// To the last one, in the worst sample.
    pub(crate) last_us_max: u32,
}

impl Spread {
    /// Samples so that about [`SAMPLES`] publications of `publications` are taken.
    pub(crate) fn new(publications: u64) -> Self {
        let every = (publications / SAMPLES).max(1).next_power_of_two();
        Self { mask: every - 1, samples: BTreeMap::new(), count: 0 }
    }

    /// Whether deliveries of this publication are wanted.
    #[inline]
    pub(crate) fn wants(&self, number: u64) -> bool {
        number & self.mask == 0
    }

    /// Notes one delivery of a wanted publication.
    pub(crate) fn note(&mut self, stream: u16, number: u64, latency_ns: u64) {
        if self.count < LATENCIES_MAX {
            self.count += 1;
            let latency_us = u32::try_from(latency_ns / 1000).unwrap_or(u32::MAX);
            self.samples.entry((stream, number)).or_default().push(latency_us);
        }
    }

    /// Adds another thread's samples of the same publications.
    pub(crate) fn merge(&mut self, other: Self) {
        for (key, mut latencies) in other.samples {
            self.samples.entry(key).or_default().append(&mut latencies);
        }
    }

    /// `None` without samples.
    pub(crate) fn summary(&mut self) -> Option<SpreadSummary> {
        let (mut firsts, mut medians, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
        for latencies in self.samples.values_mut() {
            latencies.sort_unstable();
            firsts.push(*latencies.first()?);
            medians.push(latencies[latencies.len() / 2]);
            lasts.push(*latencies.last()?);
        }
        for column in [&mut firsts, &mut medians, &mut lasts] {
            column.sort_unstable();
        }
        let middle = firsts.len() / 2;
        Some(SpreadSummary {
            samples: firsts.len(),
            first_us: *firsts.get(middle)?,
            median_us: medians[middle],
            last_us: lasts[middle],
            last_us_max: *lasts.last()?,
        })
    }
}

/// Publications sampled in a run, about.
const SAMPLES: u64 = 256;
/// Latencies held per thread at most: 16 MB.
const LATENCIES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_median_and_last_over_the_threads() {
        let mut spread = Spread::new(10_000);
        assert!(spread.wants(0) && spread.wants(64) && !spread.wants(65));
        let mut other = spread.clone();
        for (number, base) in [(0, 10_000), (64, 20_000), (128, 30_000)] {
            spread.note(0, number, base);
            spread.note(0, number, base + 5000);
            other.note(0, number, base + 9000);
        }
        spread.merge(other);
        assert_eq!(
            spread.summary(),
            Some(SpreadSummary {
                samples: 3,
                first_us: 20,
                median_us: 25,
                last_us: 29,
                last_us_max: 39
            })
        );
        assert_eq!(Spread::new(1).summary(), None);
    }
}
