//! Two histograms: from the intended time of a publication, and from the time it was really sent.
//!
//! Knows: nanoseconds and how often. Must not know: printing, connections, topics.
//!
//! The first one tells what a subscriber suffers: when the server (or this program) stalls, what
//! should have been sent meanwhile counts from when it should have been. The second leaves that
//! out, as most load generators do, and stands beside it to show the difference (wrk2's method).

mod tally;

use hdrhistogram::Histogram;

use self::tally::Tally;
use crate::steps::Steps;

/// Counts latencies as they come, on one thread.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    corrected: Tally,
    uncorrected: Tally,
    /// Only publications intended in here count, ns: the warm-up is cut.
    pub(crate) window_ns: std::ops::Range<u64>,
    /// The corrected latencies once more, step by step, where a ramp asks for it.
    pub(crate) steps: Option<Box<Steps>>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let (corrected, uncorrected) = (Tally::new(), Tally::new());
        Self { corrected, uncorrected, window_ns: 0..u64::MAX, steps: None }
    }

    /// Measuring begins and ends, ns.
    pub(crate) fn set_window(&mut self, window_ns: std::ops::Range<u64>) {
        if let Some(steps) = &mut self.steps {
            steps.begin(window_ns.start);
        }
        self.window_ns = window_ns;
    }

    /// Counts one delivery, if its publication is in the window. Returns whether it is.
    #[inline(always)]
    pub(crate) fn record(&mut self, intended_ns: u64, sent_ns: u64, now_ns: u64) -> bool {
        let is_wanted = self.window_ns.contains(&intended_ns);
        if is_wanted {
            let latency_ns = now_ns.saturating_sub(intended_ns);
            self.corrected.record(latency_ns);
            if let Some(steps) = &mut self.steps {
                steps.record(intended_ns, latency_ns);
            }
            self.uncorrected.record(now_ns.saturating_sub(sent_ns));
        }
        is_wanted
    }

    /// Latencies from the intended time so far, to be taken out or added to.
    pub(crate) fn corrected(&mut self) -> &mut Histogram<u64> {
        self.corrected.histogram()
    }

    /// Adds what another thread has counted.
    pub(crate) fn merge(&mut self, other: &mut Self) {
        for (into, from) in [
            (&mut self.corrected, &mut other.corrected),
            (&mut self.uncorrected, &mut other.uncorrected),
        ] {
            let (into, from) = (into.histogram(), from.histogram());
            into.add(&*from).expect("all histograms are made by `histogram`, with the same bounds");
        }
        match (&mut self.steps, &other.steps) {
            (Some(steps), Some(others)) => steps.merge(others),
            (None, others) => self.steps.clone_from(others),
            (Some(_), None) => {}
        }
    }

    /// All that has been counted.
    pub(crate) fn latencies(mut self) -> Latencies {
        Latencies {
            corrected: self.corrected.histogram().clone(),
            uncorrected: self.uncorrected.histogram().clone(),
            steps: self.steps,
        }
    }
}

/// Latencies of a whole run.
#[derive(Debug)]
pub(crate) struct Latencies {
    /// From the intended time, ns.
    pub(crate) corrected: Histogram<u64>,
    /// From the time of sending, ns.
    pub(crate) uncorrected: Histogram<u64>,
    /// The corrected ones once more, step by step, where a ramp asks for it.
    pub(crate) steps: Option<Box<Steps>>,
}

/// An empty histogram of nanoseconds: 64 ns to 20 minutes, three significant digits, 230 KB.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(NANOS_LEAST, NANOS_MOST, DIGITS)
        .expect("constant bounds that hdrhistogram allows")
}

const NANOS_LEAST: u64 = 64;
const NANOS_MOST: u64 = 1200 * 1_000_000_000;
const DIGITS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_window_counts_and_a_stall_shows_in_the_corrected_one_only() {
        let mut recorder = Recorder::new();
        recorder.window_ns = 1000..2_000_000_000;
        recorder.record(999, 999, 5000);
        // The sender stalled for a second and then sent at once.
        recorder.record(1000, 1_000_000_000, 1_000_100_000);
        let mut sum = Recorder::new();
        sum.merge(&mut recorder);
        let sum = sum.latencies();
        assert_eq!(sum.corrected.len(), 1);
        assert!(sum.corrected.max() > 990_000_000);
        assert!(sum.uncorrected.max() < 200_000);
    }
}
