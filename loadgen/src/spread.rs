//! How long one publication takes to its first, its median and its last subscriber.
//!
//! Knows: sampled publications and the latencies of their deliveries. Must not know: connections,
//! order, printing.
//!
//! A sample needs every delivery's latency, so only one publication in so many is taken; with very
//! many subscribers fewer, but those whole: a sample without its last deliveries would flatter.

use std::collections::BTreeMap;

/// One thread's samples, or all of them when merged.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    /// Numbers with none of these bits set are sampled.
    mask: u64,
    /// (stream, number) → latency, µs, and connection, in the order of arrival.
    samples: BTreeMap<(u16, u64), Vec<(u32, u32)>>,
    /// Latencies held.
    count: usize,
}

/// Of each sampled publication the latency of its first, median and last delivery; of these the
/// median over all samples, µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
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

/// A sampled publication: the latencies of its first, median and last delivery, µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct SpreadSample {
    /// The stream's number.
    pub(crate) stream: u16,
    /// The publication's number within the stream.
    pub(crate) number: u64,
    /// To the first subscriber.
    pub(crate) first_us: u32,
    /// To half of them.
    pub(crate) median_us: u32,
    /// To the last one.
    pub(crate) last_us: u32,
}

/// Each subscriber's mean place in the order in which a publication is delivered, over the sampled
/// publications: 0 is always the first, 1 always the last, 0.5 the mean of all.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct Fairness {
    /// Subscribers with a sample.
    pub(crate) subscribers: usize,
    /// Of the subscriber that is served earliest.
    pub(crate) mean_place_min: f64,
    /// And latest.
    pub(crate) mean_place_max: f64,
    /// From the one to the other.
    pub(crate) mean_place_spread: f64,
    /// Standard deviation of the means.
    pub(crate) mean_place_stddev: f64,
    /// The fewest publications that a subscriber's mean is of: with n of them chance alone makes a
    /// standard deviation of 0.29 / √n.
    pub(crate) samples_min: u32,
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
    pub(crate) fn note(&mut self, stream: u16, number: u64, connection: u32, latency_ns: u64) {
        if self.count >= LATENCIES_MAX {
            self.thin(self.mask << THIN_BITS | ((1 << THIN_BITS) - 1));
            if self.count >= LATENCIES_MAX || !self.wants(number) {
                return;
            }
        }
        self.count += 1;
        let latency_us = u32::try_from(latency_ns / 1000).unwrap_or(u32::MAX);
        self.samples.entry((stream, number)).or_default().push((latency_us, connection));
    }

    /// Keeps only what is sampled with `mask`, and samples so from now on.
    #[cold]
    fn thin(&mut self, mask: u64) {
        self.mask = mask;
        self.samples.retain(|(_, number), _| number & mask == 0);
        self.count = self.samples.values().map(Vec::len).sum();
    }

    /// Adds another thread's samples of the same publications.
    pub(crate) fn merge(&mut self, mut other: Self) {
        // What one of them has thinned out is not whole in the other.
        let mask = self.mask.max(other.mask);
        for spread in [&mut *self, &mut other] {
            if spread.mask != mask {
                spread.thin(mask);
            }
        }
        for (key, mut latencies) in other.samples {
            self.samples.entry(key).or_default().append(&mut latencies);
        }
    }

    /// From numbers of connections within a thread to those within the run.
    pub(crate) fn number_from(&mut self, first: u32) {
        for (_, connection) in self.samples.values_mut().flatten() {
            *connection += first;
        }
    }

    /// How evenly the places in the order of delivery are shared out; `None` without samples of
    /// two subscribers or more.
    pub(crate) fn fairness(&mut self) -> Option<Fairness> {
        let mut places = BTreeMap::<u32, (f64, u32)>::new();
        for latencies in self.samples.values_mut().filter(|latencies| latencies.len() > 1) {
            // Stable: equal times stay in the order of arrival.
            latencies.sort_by_key(|&(latency_us, _)| latency_us);
            let last = (latencies.len() - 1) as f64;
            for (place, &(_, connection)) in latencies.iter().enumerate() {
                let (sum, count) = places.entry(connection).or_default();
                *sum += place as f64 / last;
                *count += 1;
            }
        }
        let means: Vec<f64> = places.values().map(|(sum, count)| sum / f64::from(*count)).collect();
        let count = Some(means.len() as f64).filter(|&count| count > 0.0)?;
        let mean = means.iter().sum::<f64>() / count;
        let variance = means.iter().map(|own| (own - mean).powi(2)).sum::<f64>() / count;
        let least = means.iter().copied().fold(1.0, f64::min);
        let most = means.iter().copied().fold(0.0, f64::max);
        Some(Fairness {
            subscribers: means.len(),
            mean_place_min: least,
            mean_place_max: most,
            mean_place_spread: most - least,
            mean_place_stddev: variance.sqrt(),
            samples_min: places.values().map(|&(_, count)| count).min()?,
        })
    }

    /// The samples in short, evenly thinned out to [`LISTED_MAX`].
    pub(crate) fn list(&mut self) -> Vec<SpreadSample> {
        let every = self.samples.len().div_ceil(LISTED_MAX).max(1);
        let mut listed = Vec::new();
        for (&(stream, number), latencies) in self.samples.iter_mut().step_by(every) {
            latencies.sort_by_key(|&(latency_us, _)| latency_us);
            let at = |place: usize| latencies.get(place).map_or(0, |&(latency_us, _)| latency_us);
            listed.push(SpreadSample {
                stream,
                number,
                first_us: at(0),
                median_us: at(latencies.len() / 2),
                last_us: at(latencies.len().saturating_sub(1)),
            });
        }
        listed
    }

    /// `None` without samples.
    pub(crate) fn summary(&mut self) -> Option<SpreadSummary> {
        let (mut firsts, mut medians, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
        for latencies in self.samples.values_mut() {
            latencies.sort_by_key(|&(latency_us, _)| latency_us);
            firsts.push(latencies.first()?.0);
            medians.push(latencies[latencies.len() / 2].0);
            lasts.push(latencies.last()?.0);
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
/// Samples listed in a report.
const LISTED_MAX: usize = 500;
/// Latencies held per thread at most: 32 MB.
const LATENCIES_MAX: usize = 4 << 20;
/// When they are full, one in 2^3 stays: the less often, the less it costs for each message.
const THIN_BITS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_deliveries_make_fewer_samples_but_whole_ones() {
        let mut spread = Spread::new(16 * SAMPLES);
        let mut other = spread.clone();
        let subscribers = LATENCIES_MAX as u32 / 4;
        for number in (0..12).map(|sample| sample * 16) {
            for connection in 0..subscribers {
                if spread.wants(number) {
                    spread.note(0, number, connection, 1000);
                }
            }
            other.note(0, number, 0, 2000);
        }
        let whole = |spread: &Spread| {
            spread.samples.values().all(|latencies| latencies.len() >= subscribers as usize)
        };
        // One in 128: the first, and the one of those that came after.
        assert_eq!((spread.mask, spread.samples.len()), (127, 2));
        assert!(whole(&spread));
        other.number_from(subscribers);
        spread.merge(other);
        assert!(whole(&spread));
        assert_eq!(spread.summary().map(|summary| summary.last_us), Some(2));
    }

    #[test]
    fn first_median_and_last_over_the_threads() {
        let mut spread = Spread::new(10_000);
        assert!(spread.wants(0) && spread.wants(64) && !spread.wants(65));
        let mut other = spread.clone();
        for (number, base) in [(0, 10_000), (64, 20_000), (128, 30_000)] {
            spread.note(0, number, 0, base);
            spread.note(0, number, 1, base + 5000);
            other.note(0, number, 0, base + 9000);
        }
        other.number_from(2);
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
        let listed = spread.list();
        assert_eq!(listed.len(), 3);
        assert_eq!((listed[1].number, listed[1].first_us, listed[1].last_us), (64, 20, 29));
        let fairness = spread.fairness().expect("samples");
        assert_eq!((fairness.subscribers, fairness.samples_min), (3, 3));
        assert_eq!((fairness.mean_place_min, fairness.mean_place_max), (0.0, 1.0));
        // The first and the last change places in one of four.
        spread.note(0, 192, 2, 40_000);
        spread.note(0, 192, 1, 45_000);
        spread.note(0, 192, 0, 49_000);
        let fairness = spread.fairness().expect("samples");
        assert_eq!((fairness.mean_place_min, fairness.mean_place_max), (0.25, 0.75));
        assert_eq!(Spread::new(1).summary(), None);
        assert_eq!(Spread::new(1).fairness(), None);
    }
}
