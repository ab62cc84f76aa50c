//! What happened in each second of a run.
//!
//! Knows: seconds, cumulative counts, histograms. Must not know: sockets, messages, how it is
//! shown.
//!
//! A receiving thread does nothing per message for this. Once a second it hands over the histogram
//! that it fills anyway ([`Cutter`]) and goes on with an empty one; the main thread adds it to the
//! second and to the run, and hands it back. However long a run is, so many steps are kept: when
//! they are full, each two become one.

mod cutter;
mod report;

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};

use hdrhistogram::Histogram;

pub(crate) use self::cutter::{Cutter, Part, Running};
pub(crate) use self::report::{Steps, TimelineReport};
use crate::record::histogram;

/// The main thread's side.
pub(crate) struct Timeline {
    parts: Receiver<Part>,
    sender: Sender<Part>,
    /// By thread: takes emptied histograms back.
    spares: Vec<Sender<Histogram<u64>>>,
    /// By thread: its counts as told last, and the second they were told for.
    latest: Vec<(Running, u32)>,
    /// By thread: the share of its last second in which it had work.
    busy: Vec<f64>,
    /// Seconds of which not every thread has told yet, the earliest first.
    open: VecDeque<Second>,
    /// The number of `open[0]`.
    open_first: u32,
    /// Finished seconds, the newest last: as many as can be looked at.
    recent: VecDeque<Row>,
    steps: Steps,
    run: Histogram<u64>,
}

/// What was counted in one second, by all threads.
pub(crate) struct Second {
    pub(crate) deliveries: u64,
    pub(crate) published: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) max_ns: u64,
    pub(crate) latencies: Histogram<u32>,
}

/// A second in short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) deliveries: u64,
    pub(crate) published: u64,
    pub(crate) wire_bytes: u64,
    /// Of corrected latencies.
    pub(crate) latency: Latencies,
}

/// Percentiles, ns; all 0 without a latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Latencies {
    pub(crate) count: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p99_9_ns: u64,
    pub(crate) max_ns: u64,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        let (sender, parts) = channel();
        Self {
            parts,
            sender,
            spares: Vec::new(),
            latest: Vec::new(),
            busy: Vec::new(),
            open: VecDeque::new(),
            open_first: 0,
            recent: VecDeque::new(),
            steps: Steps::default(),
            run: histogram(),
        }
    }

    /// The next thread's end of it.
    pub(crate) fn cutter(&mut self) -> Cutter {
        let (spares, taken) = channel();
        for _ in 0..SPARES {
            // Its receiver is in our hands.
            let _ = spares.send(histogram());
        }
        self.spares.push(spares);
        self.latest.push((Running::default(), 0));
        self.busy.push(0.0);
        Cutter::new(self.latest.len() - 1, self.sender.clone(), taken)
    }

    /// Takes in what the threads have handed over. `connections`: open now.
    pub(crate) fn collect(&mut self, connections: u64) {
        while let Ok(part) = self.parts.try_recv() {
            self.take(part);
        }
        let told = self.latest.iter().map(|&(_, seconds)| seconds).min().unwrap_or(0);
        let newest = self.latest.iter().map(|&(_, seconds)| seconds).max().unwrap_or(0);
        // A thread that says nothing any more holds nobody up.
        let finished = told.max(newest.saturating_sub(LATE_SECONDS_MAX));
        while self.open_first < finished {
            self.close_first(connections);
        }
    }

    fn take(&mut self, part: Part) {
        let Part { thread, second, running, latencies } = part;
        let (before, _) = std::mem::replace(&mut self.latest[thread], (running, second + 1));
        if before.usage.wall_ns > 0 {
            self.busy[thread] = running.usage.since(&before.usage).busy_share;
        }
        let at = second.saturating_sub(self.open_first) as usize;
        while self.open.len() <= at {
            self.open.push_back(Second::new());
        }
        let into = &mut self.open[at];
        into.deliveries += running.messages - before.messages;
        into.published += running.published - before.published;
        into.wire_bytes += running.wire_bytes - before.wire_bytes;
        if let Some(mut latencies) = latencies {
            into.max_ns = into.max_ns.max(latencies.max());
            for step in latencies.iter_recorded() {
                let count = u32::try_from(step.count_at_value()).unwrap_or(u32::MAX);
                into.latencies.saturating_record_n(step.value_iterated_to(), count);
            }
            self.run.add(&latencies).expect("all are made by `histogram`");
            latencies.reset();
            // A thread that has ended needs none.
            let _ = self.spares[thread].send(latencies);
        }
    }

    fn close_first(&mut self, connections: u64) {
        let second = self.open.pop_front().unwrap_or_else(Second::new);
        self.open_first += 1;
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Row {
            deliveries: second.deliveries,
            published: second.published,
            wire_bytes: second.wire_bytes,
            latency: Latencies::of(&second.latencies, second.max_ns),
        });
        self.steps.push(second, connections);
    }

    /// Finished seconds, the newest last.
    pub(crate) fn recent(&self) -> &VecDeque<Row> {
        &self.recent
    }

    /// Corrected latencies of the run so far.
    pub(crate) fn run(&self) -> &Histogram<u64> {
        &self.run
    }

    /// By thread: its counts as told last, and the share of its last second in which it had work.
    pub(crate) fn threads(&self) -> impl Iterator<Item = (&Running, f64)> {
        self.latest.iter().map(|(running, _)| running).zip(self.busy.iter().copied())
    }

    /// When all threads have ended: the whole, and all corrected latencies.
    pub(crate) fn finish(mut self, warmup_s: f64) -> (TimelineReport, Histogram<u64>) {
        self.collect(0);
        while !self.open.is_empty() {
            self.close_first(0);
        }
        (self.steps.report(warmup_s), self.run)
    }
}

impl Second {
    fn new() -> Self {
        Self {
            deliveries: 0,
            published: 0,
            wire_bytes: 0,
            max_ns: 0,
            latencies: Histogram::new_with_bounds(NANOS_LEAST, NANOS_MOST, DIGITS)
                .expect("constant bounds that hdrhistogram allows"),
        }
    }
}

impl Latencies {
    /// `max_ns` is exact, where the histogram's is not.
    pub(crate) fn of<C: hdrhistogram::Counter>(histogram: &Histogram<C>, max_ns: u64) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile).min(max_ns);
        Self {
            count: histogram.len(),
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            p99_9_ns: at(0.999),
            max_ns,
        }
    }
}

/// One that is being filled, one on its way.
const SPARES: usize = 2;
/// So much later than the first thread the last one may tell of a second.
const LATE_SECONDS_MAX: u32 = 3;
/// Finished seconds kept to be looked at.
const RECENT_MAX: usize = 240;
/// Of a second's histogram: 1,024 ns to 20 minutes, two digits, 13 KB.
const NANOS_LEAST: u64 = 1024;
const NANOS_MOST: u64 = 1200 * 1_000_000_000;
const DIGITS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::NANOS_PER_SECOND;

    fn running(messages: u64) -> Running {
        Running { messages, wire_bytes: 10 * messages, ..Running::default() }
    }

    #[test]
    fn seconds_of_all_threads_are_added_and_histograms_come_back() {
        let mut timeline = Timeline::new();
        let mut cutters = [timeline.cutter(), timeline.cutter()];
        let mut filled = [histogram(), histogram()];
        for cutter in &mut cutters {
            cutter.begin(0);
        }
        for second in 0..5u64 {
            for (cutter, filled) in cutters.iter_mut().zip(&mut filled) {
                filled.saturating_record(1_000_000 * (second + 1));
                let now = (second + 1) * NANOS_PER_SECOND;
                assert!(cutter.due_ns() <= now);
                cutter.cut(now, running(7 * (second + 1)), filled);
                assert!(filled.is_empty());
            }
            timeline.collect(3);
        }
        assert_eq!(timeline.recent().len(), 5);
        let row = timeline.recent()[4];
        assert_eq!((row.deliveries, row.wire_bytes, row.latency.count), (14, 140, 2));
        assert!(row.latency.p50_ns > 4_900_000 && row.latency.max_ns < 5_010_000, "{row:?}");
        let (report, run) = timeline.finish(1.5);
        assert_eq!(run.len(), 10);
        assert_eq!((report.step_s, report.steps.len()), (1, 5));
        assert_eq!((report.steps[2].at_s, report.steps[2].deliveries), (2, 14));
    }

    #[test]
    fn a_thread_that_says_nothing_holds_up_nobody_and_one_that_was_late_counts_where_it_was() {
        let mut timeline = Timeline::new();
        let (mut quick, mut slow) = (timeline.cutter(), timeline.cutter());
        quick.begin(0);
        slow.begin(0);
        let mut filled = histogram();
        for second in 1..=6u64 {
            quick.cut(second * NANOS_PER_SECOND, running(second), &mut filled);
        }
        timeline.collect(0);
        assert_eq!(timeline.recent().len(), 3);
        // It was away since before the first second ended.
        slow.cut(6 * NANOS_PER_SECOND + 1, running(100), &mut filled);
        slow.end(6 * NANOS_PER_SECOND + 2, running(101), &mut filled);
        let (report, _) = timeline.finish(0.0);
        let deliveries: Vec<_> = report.steps.iter().map(|step| step.deliveries).collect();
        assert_eq!(deliveries, [1, 1, 1, 101, 1, 1, 1]);
    }

    #[test]
    fn without_an_empty_histogram_the_filled_one_stays() {
        let mut timeline = Timeline::new();
        let mut cutter = timeline.cutter();
        cutter.begin(0);
        let mut filled = histogram();
        for second in 1..=4u64 {
            filled.saturating_record(1000);
            cutter.cut(second * NANOS_PER_SECOND, running(second), &mut filled);
        }
        assert_eq!(filled.len(), 2);
        timeline.collect(0);
        cutter.end(5 * NANOS_PER_SECOND, running(4), &mut filled);
        let (_, run) = timeline.finish(0.0);
        assert_eq!(run.len(), 4);
    }
}
