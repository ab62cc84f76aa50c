//! The timeline as the report has it: steps of equal length, never more than so many.
//!
//! Knows: finished seconds. Must not know: threads.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Latencies, Second};

/// `timeline` of the report.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct TimelineReport {
    /// Length of each step, s: 1, and twice as much each time that there would be too many steps.
    pub(crate) step_s: u32,
    /// From the beginning of publishing, where the first step begins, to the measured window, s.
    pub(crate) warmup_s: f64,
    /// In their order, without a gap.
    pub(crate) steps: Vec<Step>,
}

/// What happened in one step of the timeline.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Step {
    /// When it began, s after publishing began.
    pub(crate) at_s: u32,
    /// Messages received.
    pub(crate) deliveries: u64,
    /// Publications given to the kernel.
    pub(crate) published: u64,
    /// Bytes received, frames and handshakes and all.
    pub(crate) wire_bytes: u64,
    /// Connections open at its end.
    pub(crate) connections: u64,
    /// Deliveries of the measured window among them: those that have a latency here.
    pub(crate) measured: u64,
    /// Latency from the intended time of what came in this step, ns; 0 if nothing did. The
    /// percentiles are exact to one in a hundred.
    pub(crate) p50_ns: u64,
    /// The 99th percentile, ns.
    pub(crate) p99_ns: u64,
    /// The 99.9th percentile, ns.
    pub(crate) p99_9_ns: u64,
    /// The longest, ns.
    pub(crate) max_ns: u64,
}

/// All that has happened so far.
pub(crate) struct Steps {
    step_s: u32,
    /// Seconds in the last step.
    filled_s: u32,
    steps: Vec<(Second, u64)>,
}

impl Default for Steps {
    fn default() -> Self {
        Self { step_s: 1, filled_s: 0, steps: Vec::new() }
    }
}

impl Steps {
    /// Adds a finished second and how many connections were open at its end.
    pub(super) fn push(&mut self, second: Second, connections: u64) {
        if self.filled_s == self.step_s || self.steps.is_empty() {
            if self.steps.len() == STEPS_MAX {
                self.halve();
            }
            self.steps.push((second, connections));
            self.filled_s = 1;
        } else if let Some((step, open)) = self.steps.last_mut() {
            step.add(&second);
            *open = connections;
            self.filled_s += 1;
        }
    }

    fn halve(&mut self) {
        let mut steps = std::mem::take(&mut self.steps).into_iter();
        while let Some((mut step, mut open)) = steps.next() {
            if let Some((next, open_next)) = steps.next() {
                step.add(&next);
                open = open_next;
            }
            self.steps.push((step, open));
        }
        self.step_s *= 2;
    }

    pub(super) fn report(self, warmup_s: f64) -> TimelineReport {
        let step = |(number, (second, connections)): (usize, &(Second, u64))| {
            let latency = Latencies::of(&second.latencies, second.max_ns);
            Step {
                at_s: number as u32 * self.step_s,
                deliveries: second.deliveries,
                published: second.published,
                wire_bytes: second.wire_bytes,
                connections: *connections,
                measured: latency.count,
                p50_ns: latency.p50_ns,
                p99_ns: latency.p99_ns,
                p99_9_ns: latency.p99_9_ns,
                max_ns: latency.max_ns,
            }
        };
        let steps = self.steps.iter().enumerate().map(step).collect();
        TimelineReport { step_s: self.step_s, warmup_s, steps }
    }
}

impl Second {
    fn add(&mut self, other: &Self) {
        self.deliveries += other.deliveries;
        self.published += other.published;
        self.wire_bytes += other.wire_bytes;
        self.max_ns = self.max_ns.max(other.max_ns);
        self.latencies.add(&other.latencies).expect("all are made by `Second::new`");
    }
}

/// Steps kept: 8 MB of histograms.
const STEPS_MAX: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_longer_steps_and_loses_nothing() {
        let mut steps = Steps::default();
        let seconds = STEPS_MAX as u64 * 3 + 1;
        for number in 0..seconds {
            let mut second = Second::new();
            second.deliveries = 2;
            second.max_ns = number + 5000;
            second.latencies.saturating_record(number + 5000);
            steps.push(second, number);
        }
        let report = steps.report(0.0);
        assert_eq!(report.step_s, 4);
        assert_eq!(report.steps.len() as u64, seconds.div_ceil(4));
        assert_eq!(report.steps.iter().map(|step| step.deliveries).sum::<u64>(), 2 * seconds);
        assert_eq!(report.steps.iter().map(|step| step.measured).sum::<u64>(), seconds);
        let last = report.steps.last().expect("steps");
        assert_eq!((last.max_ns, last.connections), (seconds - 1 + 5000, seconds - 1));
        assert_eq!(u64::from(last.at_s), seconds - 1);
    }
}
