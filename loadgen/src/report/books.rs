//! What came of the books, and how slow subscribers fared.
//!
//! Knows: figures. Must not know: how they were measured.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;

use super::Percentiles;
use super::words::duration;
use crate::books::Figures;
use crate::clock::NANOS_PER_SECOND;
use crate::record::Recorder;

/// What slow subscribers saw, of one thread or of all.
#[derive(Debug)]
pub(crate) struct Slowness {
    pub(crate) record: Recorder,
    /// From publishing to receiving, of what is newest on a value topic, at most, ns.
    pub(crate) value_age_max_ns: u64,
    /// So many of them.
    pub(crate) values: u64,
}

impl Default for Slowness {
    fn default() -> Self {
        Self { record: Recorder::new(), value_age_max_ns: 0, values: 0 }
    }
}

impl Slowness {
    /// A message of a value topic has come.
    pub(crate) fn value(&mut self, sent_ns: u64, now_ns: u64) {
        self.values += 1;
        self.value_age_max_ns = self.value_age_max_ns.max(now_ns.saturating_sub(sent_ns));
    }

    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &mut Self) {
        self.record.merge(&mut other.record);
        self.values += other.values;
        self.value_age_max_ns = self.value_age_max_ns.max(other.value_age_max_ns);
    }
}

/// `books` of the report.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Books {
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// With --slow.
    pub(crate) slow: Option<Slow>,
}

/// How slow subscribers fared.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Slow {
    /// How many there were.
    pub(crate) subscribers: u64,
    /// What each reads.
    pub(crate) bytes_per_s: u64,
    /// From the intended time, of all that they got.
    pub(crate) latency: Percentiles,
    /// Messages of value topics that they got.
    pub(crate) values: u64,
    /// The oldest of these when it came: from publishing to receiving.
    pub(crate) value_age_max_ns: u64,
    /// So old it may be: what kernels hold, read at this rate, and a second.
    pub(crate) value_age_bound_ns: u64,
    /// What the kernels of both sides hold of one connection at most, as assumed for the bound:
    /// the receive buffer, and of the server --server-buffer.
    pub(crate) kernel_buffer_bytes: u64,
    /// What was read while the oldest was on its way: its age at the rate.
    pub(crate) value_behind_bytes: u64,
}

impl Slow {
    /// From what was measured. `buffer_bytes`: of both kernels.
    pub(crate) fn new(
        slowness: &mut Slowness,
        subscribers: u64,
        bytes_per_s: u64,
        buffer_bytes: u64,
    ) -> Self {
        let at_rate_ns = buffer_bytes.saturating_mul(NANOS_PER_SECOND) / bytes_per_s.max(1);
        let age_ns = slowness.value_age_max_ns;
        Self {
            subscribers,
            bytes_per_s,
            latency: Percentiles::of(slowness.record.corrected()),
            values: slowness.values,
            value_age_max_ns: age_ns,
            value_age_bound_ns: at_rate_ns + NANOS_PER_SECOND,
            kernel_buffer_bytes: buffer_bytes,
            value_behind_bytes: (age_ns as f64 / 1e9 * bytes_per_s as f64) as u64,
        }
    }

    /// Values came older than kernels can make them.
    pub(crate) fn is_stale(&self) -> bool {
        self.value_age_max_ns > self.value_age_bound_ns
    }
}

/// For the table. Writing to a string can't fail.
pub(super) fn text(out: &mut String, books: &Books) {
    let figures = &books.figures;
    let _ = writeln!(
        out,
        "books         {} equal the publisher's at the end, {} differ, {} missing",
        figures.equal, figures.unequal, figures.missing
    );
    let _ = writeln!(
        out,
        "updates       {} follow the one before, {} do not; {} were in the snapshot already\n\
         steps         {} calculated, {} the same on the same book",
        figures.links_held,
        figures.links_broken,
        figures.covered,
        figures.steps_calculated,
        figures.steps_shared
    );
    for (what, count) in [("snapshots", &figures.snapshots), ("gaps told", &figures.gaps_told)] {
        let _ = writeln!(
            out,
            "{what:<13} {} to steady subscribers, {} to those who come back, {} to slow ones",
            count.steady, count.churning, count.slow
        );
    }
    let _ = writeln!(
        out,
        "published     {} snapshots; {} answers wanted one, {} subscribers were told to wait",
        figures.snapshots_published, figures.snapshots_wanted, figures.snapshots_unavailable
    );
    let not: u64 = figures.resumed_not.values().sum();
    if figures.resumed + not > 0 {
        let reasons: Vec<_> =
            figures.resumed_not.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let reasons = if not > 0 { format!(" ({})", reasons.join(", ")) } else { String::new() };
        let _ = writeln!(
            out,
            "resumes       {} topics with everything missed, {not} without{reasons}",
            figures.resumed
        );
    }
    if let Some(slow) = &books.slow {
        let _ = writeln!(
            out,
            "slow          {} subscribers at {} B/s: p50 {}, p99 {}; values at most {} old, {} would be right",
            slow.subscribers,
            slow.bytes_per_s,
            duration(slow.latency.p50_ns),
            duration(slow.latency.p99_ns),
            duration(slow.value_age_max_ns),
            duration(slow.value_age_bound_ns)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_be_as_old_as_buffers_make_them_and_a_second() {
        let mut slowness = Slowness::default();
        slowness.value(NANOS_PER_SECOND, 12 * NANOS_PER_SECOND);
        slowness.value(NANOS_PER_SECOND, 2 * NANOS_PER_SECOND);
        let slow = Slow::new(&mut slowness, 2, 5000, 50_000);
        assert_eq!(
            (slow.value_age_max_ns, slow.value_age_bound_ns, slow.values),
            (11 * NANOS_PER_SECOND, 11 * NANOS_PER_SECOND, 2)
        );
        assert!(!slow.is_stale());
        assert_eq!(slow.value_behind_bytes, 55_000);
        assert!(Slow::new(&mut slowness, 2, 5000, 49_000).is_stale());
    }
}
