//! A ramp, step by step: what rate, what latency, what was lost.
//!
//! Knows: places of publications in the schedule. Must not know: how they were measured.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::words::duration;
use crate::plan::Schedule;
use crate::steps::Steps;
use crate::verify::Missed;

/// One step of `steps`.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub(crate) struct Step {
    /// After the beginning of measuring, s.
    pub(crate) from_s: f64,
    /// Likewise its end, s.
    pub(crate) to_s: f64,
    /// Publications due in it, per second.
    pub(crate) rate_per_s: f64,
    /// Publications due in it.
    pub(crate) publications: u64,
    /// Of these, never sent: the server did not take them.
    pub(crate) unsent: u64,
    /// Deliveries in time or late.
    pub(crate) delivered: u64,
    /// Deliveries that should have been and were not, as far as `missed` lists them.
    pub(crate) lost: u64,
    /// Corrected latency: half of the deliveries took no longer, ns.
    pub(crate) p50_ns: u64,
    /// 90 % took no longer, ns.
    pub(crate) p90_ns: u64,
    /// 99 % took no longer, ns.
    pub(crate) p99_ns: u64,
    /// 99.9 % took no longer, ns.
    pub(crate) p99_9_ns: u64,
    /// The longest, ns.
    pub(crate) max_ns: u64,
}

/// What is known of the run as a whole.
pub(crate) struct StepsOf<'a> {
    /// Of any of the publishers.
    pub(crate) schedule: &'a Schedule,
    /// Before the first step, ns.
    pub(crate) warmup_ns: u64,
    /// Measured, ns: less than planned if interrupted.
    pub(crate) window_ns: u64,
    /// Sent in all.
    pub(crate) published: u64,
    pub(crate) missed: &'a [Missed],
}

impl StepsOf<'_> {
    /// The steps that were reached.
    pub(crate) fn list(&self, steps: &Steps) -> Vec<Step> {
        let count = steps.histograms().len();
        let begins = (0..count as u64).map(|step| step * steps.step_ns());
        let reached = begins.zip(steps.histograms()).enumerate();
        reached
            .take_while(|(_, (begin_ns, _))| *begin_ns < self.window_ns)
            .map(|(step, (begin_ns, histogram))| {
                let is_last = step + 1 == count;
                let end_ns = if is_last { u64::MAX } else { begin_ns + steps.step_ns() };
                self.step(begin_ns, end_ns.min(self.window_ns), histogram)
            })
            .collect()
    }

    fn step(&self, begin_ns: u64, end_ns: u64, histogram: &Histogram<u64>) -> Step {
        let rate = &self.schedule.rate;
        let first = rate.count_before(self.warmup_ns + begin_ns);
        let end = rate.count_before(self.warmup_ns + end_ns).max(first);
        let (from_s, to_s) = (begin_ns as f64 / 1e9, end_ns as f64 / 1e9);
        Step {
            from_s,
            to_s,
            rate_per_s: (end - first) as f64 / (to_s - from_s).max(1e-9),
            publications: end - first,
            // What was not sent are the last ones.
            unsent: end.saturating_sub(self.published.max(first)),
            delivered: histogram.len(),
            lost: self.missed.iter().map(|missed| self.lost(missed, first, end)).sum(),
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p99_9_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        }
    }

    /// How many of a range missed have places from `first` on and before `end`.
    fn lost(&self, missed: &Missed, first: u64, end: u64) -> u64 {
        // A publisher's numbers are every so many places, from its own on.
        let number = |place: u64| {
            place.saturating_sub(u64::from(missed.stream)).div_ceil(self.schedule.publishers)
        };
        let from = missed.from.max(number(first));
        (missed.to + 1).min(number(end)).saturating_sub(from)
    }
}

/// A line for each.
pub(super) fn text(out: &mut String, steps: &[Step]) {
    if steps.is_empty() {
        return;
    }
    out.push_str(
        "\nsteps         from      rate/s  delivered         p50         p99       p99.9         max   lost\n",
    );
    for step in steps {
        // Writing to a string can't fail.
        let _ = writeln!(
            out,
            "         {:>7.1} s {:>11.1} {:>10} {:>11} {:>11} {:>11} {:>11} {:>6}",
            step.from_s,
            step.rate_per_s,
            step.delivered,
            duration(step.p50_ns),
            duration(step.p99_ns),
            duration(step.p99_9_ns),
            duration(step.max_ns),
            step.lost
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::Burst;

    #[test]
    fn publications_and_losses_are_those_of_their_steps() {
        // 10 to 30 a second over 2 s: 15 in the first second, 25 in the second one.
        let rate: crate::rate::Rate = "10..30/2s".parse().expect("a ramp");
        let rate = rate.held_for(std::time::Duration::from_secs(1));
        let schedule =
            Schedule { rate, burst: Burst::NONE, count: None, publishers: 2, publisher: 0 };
        let missed = |stream, from, to| Missed { connection: 0, stream, from, to };
        // Places 10 to 24 are in the first step, 25 to 49 in the second.
        let missed = [missed(0, 0, 4), missed(0, 5, 5), missed(1, 11, 12), missed(1, 24, 24)];
        let of = |window_ns, published| StepsOf {
            schedule: &schedule,
            warmup_ns: 1_000_000_000,
            window_ns,
            published,
            missed: &missed,
        };
        let mut steps = Steps::new(2, 1_000_000_000);
        steps.begin(0);
        steps.record(5, 70_000);
        let list = of(2_000_000_000, 47).list(&steps);
        let figures = |step: &Step| (step.publications, step.unsent, step.delivered, step.lost);
        assert_eq!(list.iter().map(figures).collect::<Vec<_>>(), [(15, 0, 1, 2), (25, 3, 0, 2)]);
        assert_eq!((list[0].rate_per_s, list[1].rate_per_s), (15.0, 25.0));
        // Interrupted in the first step.
        let list = of(500_000_000, 16).list(&steps);
        assert_eq!((list.len(), list[0].publications, list[0].to_s), (1, 7, 0.5));
    }
}
