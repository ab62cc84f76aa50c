//! A run cut into steps of equal length: latency for each.
//!
//! Knows: when a publication was meant to go out, how late it came. Must not know: rates, printing,
//! connections.

use std::ops::Range;

use hdrhistogram::Histogram;

use crate::record::histogram;

/// One thread's steps, or all of them when merged.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    /// Length of each, ns.
    step_ns: u64,
    /// When the first begins, ns.
    start_ns: u64,
    /// From the intended time, ns, by step.
    histograms: Vec<Histogram<u64>>,
    /// The step of the delivery before: nearly always that of the next one too.
    current: usize,
    current_ns: Range<u64>,
}

impl Steps {
    /// So many steps of `step_ns`; they begin when [`Self::begin`] says so.
    pub(crate) fn new(count: usize, step_ns: u64) -> Self {
        let histograms = vec![histogram(); count.max(1)];
        Self {
            step_ns: step_ns.max(1),
            start_ns: u64::MAX,
            histograms,
            current: 0,
            current_ns: 0..0,
        }
    }

    /// The first one begins.
    pub(crate) fn begin(&mut self, start_ns: u64) {
        self.start_ns = start_ns;
        self.current_ns = 0..0;
    }

    /// Counts one delivery of a publication within the measured window.
    #[inline]
    pub(crate) fn record(&mut self, intended_ns: u64, latency_ns: u64) {
        if !self.current_ns.contains(&intended_ns) {
            self.turn(intended_ns);
        }
        self.histograms[self.current].saturating_record(latency_ns);
    }

    #[cold]
    fn turn(&mut self, intended_ns: u64) {
        let step = intended_ns.saturating_sub(self.start_ns) / self.step_ns;
        // What rounding leaves over at the end belongs to the last one.
        self.current = (step as usize).min(self.histograms.len() - 1);
        let begin_ns = self.start_ns.saturating_add(step * self.step_ns);
        self.current_ns = begin_ns..begin_ns.saturating_add(self.step_ns);
    }

    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (into, from) in self.histograms.iter_mut().zip(&other.histograms) {
            into.add(from).expect("all histograms are made by `histogram`, with the same bounds");
        }
    }

    /// Length of each, ns.
    pub(crate) fn step_ns(&self) -> u64 {
        self.step_ns
    }

    /// By step.
    pub(crate) fn histograms(&self) -> &[Histogram<u64>] {
        &self.histograms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_delivery_counts_in_the_step_of_its_intended_time() {
        let mut steps = Steps::new(3, 1000);
        steps.begin(5000);
        for intended_ns in [5000, 5999, 6000, 5500, 7999, 8000] {
            steps.record(intended_ns, 100_000 + intended_ns);
        }
        let counts: Vec<_> = steps.histograms().iter().map(Histogram::len).collect();
        assert_eq!(counts, [3, 1, 2]);
        let mut sum = Steps::new(3, 1000);
        sum.merge(&steps);
        sum.merge(&steps);
        assert_eq!(sum.histograms()[0].len(), 6);
        assert!(sum.histograms()[2].max() >= 107_000);
    }
}
