//! The result of a run: one structure, told as a table, as JSON and as HdrHistogram's text.
//!
//! Knows: figures and what makes a run clean. Must not know: how they were measured.

mod books;
mod changes;
mod conduct;
mod curve;
mod deflate;
mod foreign;
mod hgrm;
mod own;
mod steps;
mod table;
pub(crate) mod words;

use std::collections::BTreeMap;
use std::io::Write as _;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::Serialize;

pub(crate) use self::books::{Books, Slow, Slowness};
use self::changes::Changes;
pub(crate) use self::conduct::{Answers, Conduct};
pub(crate) use self::curve::Curves;
pub(crate) use self::deflate::Deflate;
pub(crate) use self::own::Own;
pub(crate) use self::steps::{Step, StepsOf};
pub(crate) use self::words::duration;
use crate::acks::Acks;
use crate::books::Figures;
use crate::conduct as notes;
use crate::failure::Failure;
use crate::find_max::FindMax;
use crate::flags::RunFlags;
use crate::judge::Counts;
use crate::machine::Machine;
use crate::page::Run;
use crate::plan::{ClientPlan, Role};
use crate::post::Posts;
use crate::record::{Latencies, Recorder, histogram};
use crate::run::{Finished, Timing};
use crate::server_process::ServerUsage;
use crate::source::Tally;
use crate::spread::{Fairness, Spread, SpreadSample, SpreadSummary};
use crate::timeline::TimelineReport;
use crate::usage::Usage;
use crate::verify::{Faults, Missed, Streams};
use crate::watchlists;

/// Everything there is to say about a run. Its JSON form is the `--json` file; `schema` rises when
/// a field changes its meaning or goes, not when one is added.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Report {
    /// Version of this structure: 1.
    pub(crate) schema: u32,
    /// Nothing lost, doubled, reordered, damaged or closed, and everyone connected.
    pub(crate) clean: bool,
    /// What makes it unclean, and what else a reader should know, in sentences.
    pub(crate) notes: Vec<String>,
    /// Every flag of the command with its value, given or not, and the command itself as `command`;
    /// a flag that is only there or not is `true` or `false`.
    pub(crate) settings: BTreeMap<String, String>,
    /// What it ran on, and how it was called.
    pub(crate) machine: Machine,
    /// How many there were, and what became of them.
    pub(crate) connections: Connections,
    /// What the publishers sent.
    pub(crate) published: Tally,
    /// How their requests were answered, if they publish by HTTP.
    pub(crate) posts: Option<Posts>,
    /// What the subscribers received.
    pub(crate) deliveries: Deliveries,
    /// With --deflate.
    pub(crate) deflate: Option<Deflate>,
    /// What was wrong with what they received.
    pub(crate) faults: Faults,
    /// Who missed what: numbers of connections as in `connections`, of streams as in `streams`.
    pub(crate) missed: Vec<Missed>,
    /// Ranges missed that are counted in `faults.lost` and not listed.
    pub(crate) missed_unlisted: u64,
    /// Names of the streams, by number: publishers or topics.
    pub(crate) streams: Vec<String>,
    /// From publishing to receiving, of the measured window; with --books of subscribers that stay
    /// and are not slow.
    pub(crate) latency: Latency,
    /// The same from the shortest to the longest, to be drawn.
    pub(crate) curves: Curves,
    /// What happened when.
    pub(crate) timeline: TimelineReport,
    /// Time to the first, median and last subscriber, of sampled publications.
    pub(crate) spread: Option<SpreadSummary>,
    /// The sampled publications themselves, by stream and number; at most 500, evenly chosen.
    pub(crate) spread_samples: Vec<SpreadSample>,
    /// How evenly places in the order of delivery are shared out.
    pub(crate) fairness: Option<Fairness>,
    /// With --books.
    pub(crate) books: Option<Books>,
    /// With --changing.
    pub(crate) changes: Option<Changes>,
    /// From beginning to connect until the answer to the upgrade.
    pub(crate) handshake: Percentiles,
    /// The server's process, with --pid.
    pub(crate) server: Option<ServerUsage>,
    /// The load generator's own threads, while measuring.
    pub(crate) threads: Vec<Usage>,
    #[serde(flatten)]
    pub(crate) conduct: Conduct,
    /// With a ramp.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<Step>,
    /// With --find-max: then all the rest is of the step at the rate found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) find_max: Option<FindMax>,
    /// The load generator's memory, and what it used of the kernel.
    pub(crate) own: Option<Own>,
    /// For the table and --hgrm.
    #[serde(skip)]
    pub(crate) latencies: Latencies,
    #[serde(skip)]
    slowness: Slowness,
    #[serde(skip)]
    slow_buffer_bytes: u64,
}

/// Connections, counted.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Connections {
    /// Those that receive and are checked.
    pub(crate) subscribers: u64,
    /// Part of the subscribers: those that come and go.
    pub(crate) churning: u64,
    /// Those that publish.
    pub(crate) publishers: u64,
    /// Part of the subscribers: those that read slowly.
    pub(crate) slow: u64,
    /// Those that never read.
    pub(crate) stalled: u64,
    /// Those that are held and watched.
    pub(crate) idle: u64,
    /// From the first connect to the last answer, s.
    pub(crate) connecting_s: f64,
    /// Lives begun by churning connections while running.
    pub(crate) lives: u64,
    /// Why connections did not open, and how many.
    pub(crate) failures: BTreeMap<String, u64>,
    /// How connections ended that the server ended, and how many.
    pub(crate) closes: BTreeMap<String, u64>,
}

impl Connections {
    /// All of them.
    fn total(&self) -> u64 {
        self.subscribers + self.publishers + self.stalled + self.idle
    }
}

impl Connections {
    /// What each is for.
    fn of(clients: &[ClientPlan]) -> Self {
        let count = |role: fn(Role) -> bool| {
            clients.iter().filter(|client| role(client.role)).count() as u64
        };
        Self {
            subscribers: count(|role| matches!(role, Role::Subscriber { .. } | Role::Slow)),
            churning: count(|role| role == Role::Subscriber { churns: true }),
            publishers: count(|role| matches!(role, Role::Publisher(_))),
            slow: count(|role| role == Role::Slow),
            stalled: count(|role| role == Role::Stalled),
            idle: count(|role| role == Role::Idle),
            ..Self::default()
        }
    }
}

/// Deliveries, counted.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Deliveries {
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// Bytes received, frames and handshakes and all.
    pub(crate) wire_bytes: u64,
    /// Length of the measured window, s.
    pub(crate) window_s: f64,
    /// Messages received in the window.
    pub(crate) window_messages: u64,
    /// The same per second.
    pub(crate) per_s: f64,
    /// How often a thread had no free receive buffer.
    pub(crate) buffers_exhausted: u64,
}

/// Both histograms.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Latency {
    /// From the intended time of publishing.
    pub(crate) corrected: Percentiles,
    /// From the actual one.
    pub(crate) uncorrected: Percentiles,
}

impl Latency {
    fn of(latencies: &Latencies) -> Self {
        Self {
            corrected: Percentiles::of(&latencies.corrected),
            uncorrected: Percentiles::of(&latencies.uncorrected),
        }
    }
}

/// A histogram in short, ns.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Percentiles {
    /// Values recorded.
    pub(crate) count: u64,
    /// Their mean, ns.
    pub(crate) mean_ns: f64,
    /// The least, ns; 0 without a value.
    pub(crate) min_ns: u64,
    /// Half are no longer, ns.
    pub(crate) p50_ns: u64,
    /// 90 % are no longer, ns.
    pub(crate) p90_ns: u64,
    /// 99 % are no longer, ns.
    pub(crate) p99_ns: u64,
    /// 99.9 % are no longer, ns.
    pub(crate) p99_9_ns: u64,
    /// 99.99 % are no longer, ns.
    pub(crate) p99_99_ns: u64,
    /// 99.999 % are no longer, ns.
    pub(crate) p99_999_ns: u64,
    /// The longest, ns.
    pub(crate) max_ns: u64,
}

impl Percentiles {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean_ns: histogram.mean(),
            min_ns: if histogram.is_empty() { 0 } else { histogram.min() },
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p99_9_ns: histogram.value_at_quantile(0.999),
            p99_99_ns: histogram.value_at_quantile(0.9999),
            p99_999_ns: histogram.value_at_quantile(0.99999),
            max_ns: histogram.max(),
        }
    }
}

impl Report {
    /// Merges what the threads found. `firsts`: the number of each thread's first connection.
    pub(crate) fn new(
        finished: Finished,
        firsts: &[u32],
        streams: &Streams,
        clients: &[ClientPlan],
        timing: Timing,
        flags: &RunFlags,
        has_books: bool,
    ) -> Self {
        let mut merged = Merged::default();
        for (outcome, first) in finished.outcomes.into_iter().zip(firsts) {
            merged.add(outcome, *first);
        }
        let window_s = finished.window_ns as f64 / 1e9;
        let connections = Connections {
            connecting_s: finished.connecting_ns as f64 / 1e9,
            lives: merged.lives,
            failures: merged.failures,
            closes: merged.closes,
            ..Connections::of(clients)
        };
        let deliveries = Deliveries {
            // Interrupted while connecting there was no window.
            per_s: merged.deliveries.window_messages as f64 / window_s.max(1e-9),
            window_s,
            ..merged.deliveries
        };
        // Changes go with publishing: the warm-up is part of it.
        let publishing_s =
            if finished.window_ns > 0 { window_s + timing.warmup.as_secs_f64() } else { 0.0 };
        let conduct = Conduct::new(
            &merged.conduct,
            finished.interrupted,
            flags.checks.silence,
            &merged.tally,
            publishing_s,
            &merged.threads,
        );
        let latencies = merged.recorder.latencies();
        let mut report = Self {
            schema: 1,
            clean: true,
            notes: Vec::new(),
            settings: BTreeMap::new(),
            machine: Machine::read(),
            connections,
            published: merged.tally,
            posts: Some(merged.posts).filter(|posts| *posts != Posts::default()),
            deliveries,
            deflate: flags.deflate.then_some(merged.deflate),
            faults: merged.faults,
            missed: merged.missed,
            missed_unlisted: merged.missed_unlisted,
            streams: streams.names.clone(),
            latency: Latency::of(&latencies),
            curves: Curves::of(&latencies),
            timeline: finished.timeline,
            spread_samples: merged.spread.as_mut().map(Spread::list).unwrap_or_default(),
            fairness: merged.spread.as_mut().and_then(Spread::fairness),
            spread: merged.spread.as_mut().and_then(Spread::summary),
            changes: merged.changes.map(|figures| Changes::new(&figures, publishing_s)),
            books: has_books.then_some(Books { figures: merged.figures, slow: None }),
            handshake: Percentiles::of(&merged.handshake),
            server: finished.server,
            threads: merged.threads,
            conduct,
            steps: Vec::new(),
            find_max: None,
            own: None,
            latencies,
            slowness: merged.slowness,
            slow_buffer_bytes: merged.slow_buffer_bytes,
        };
        if let Some(acks) = &merged.acks {
            report.conduct.acks = Some(Answers::new(acks, report.published.published));
        }
        report.judge(finished.incomplete, merged.first_error, timing);
        report.add_foreign(merged.first_unrecognised, &merged.last_to_publishers);
        report
    }

    /// Adds what the load generator itself took.
    pub(crate) fn add_own(&mut self, own: Own) {
        self.notes.extend(own.note());
        self.own = Some(own);
    }

    /// Adds how the slow subscribers fared, if there were any. Both in bytes: what each read in a
    /// second, and what the server's kernel may hold of one connection.
    pub(crate) fn add_slow(&mut self, bytes_per_s: u64, server_buffer_bytes: u64) {
        let Some(books) = self.books.as_mut().filter(|_| self.connections.slow > 0) else { return };
        let buffer_bytes = self.slow_buffer_bytes + server_buffer_bytes;
        let slow = Slow::new(&mut self.slowness, self.connections.slow, bytes_per_s, buffer_bytes);
        if slow.is_stale() {
            self.clean = false;
            self.notes.push(format!(
                "a slow subscriber got a value that was {:.1} s old, {:.1} s would be right",
                slow.value_age_max_ns as f64 / 1e9,
                slow.value_age_bound_ns as f64 / 1e9
            ));
        }
        books.slow = Some(slow);
    }

    fn judge(&mut self, incomplete: bool, first_error: Option<String>, timing: Timing) {
        let mut wrong = Vec::new();
        if !self.faults.is_clean() {
            wrong.push(format!("NOT CLEAN: {}", table::faults(&self.faults)));
        }
        if incomplete {
            let grace = humantime::format_duration(timing.grace);
            let most = humantime::format_duration(timing.drain_max);
            wrong.push(format!(
                "not everything had arrived {grace} after the last delivery, or {most} after the end"
            ));
        }
        for (reason, count) in &self.connections.failures {
            wrong.push(format!("{count} connections did not open: {reason}"));
        }
        for (reason, count) in &self.connections.closes {
            wrong.push(format!("{count} connections ended: {reason}"));
        }
        let counts = &self.deliveries.counts;
        if let Some(books) = &self.books {
            wrong.extend(books.figures.wrong());
        } else if counts.gaps_announced > 0 {
            wrong.push(format!("the server announced {} gaps", counts.gaps_announced));
        }
        if let Some(error) = first_error {
            let count = counts.errors_announced;
            wrong.push(format!("the server announced {count} errors, the first: {error}"));
        }
        if self.published.unsent > 0 {
            let unsent = self.published.unsent;
            wrong.push(format!("{unsent} publications were due and not taken by the server"));
        }
        wrong.extend(self.conduct.wrong());
        wrong.extend(self.changes.as_ref().and_then(Changes::wrong));
        if self.conduct.interrupted && self.deliveries.window_s == 0.0 {
            wrong.push(format!(
                "interrupted while connecting: {} of {} connections were open, nothing was measured",
                self.handshake.count,
                self.connections.total()
            ));
        }
        self.clean = wrong.is_empty();
        self.notes = wrong;
        if self.conduct.interrupted && self.deliveries.window_s > 0.0 {
            self.notes.push(format!("interrupted after {:.1} s", self.deliveries.window_s));
        }
        if let Some(deflate) = self.deflate.filter(|deflate| deflate.agreed < deflate.offered) {
            let plain = deflate.offered - deflate.agreed;
            self.notes.push(format!(
                "{plain} of {} connections are plain: the server did not agree to permessage-deflate",
                deflate.offered
            ));
        }
        if self.published.late > 0 {
            self.notes.push(format!(
                "{} of {} publications went out over 1 ms late, at most {:.1} ms",
                self.published.late,
                self.published.published,
                self.published.late_ns_max as f64 / 1e6
            ));
        }
        for usage in &self.threads {
            let what = if usage.publishes { "publishing" } else { "receiving" };
            if usage.limit {
                self.notes.push(format!(
                    "a {what} thread of the load generator was itself the limit ({:.0} % busy): \
                     latencies and rates are at least partly its own",
                    usage.busy_share * 100.0
                ));
            }
        }
    }
}

/// Results of all threads, summed.
struct Merged {
    recorder: Recorder,
    spread: Option<Spread>,
    figures: Figures,
    changes: Option<watchlists::Figures>,
    slowness: Slowness,
    slow_buffer_bytes: u64,
    handshake: Histogram<u64>,
    tally: Tally,
    deliveries: Deliveries,
    deflate: Deflate,
    faults: Faults,
    missed: Vec<Missed>,
    missed_unlisted: u64,
    lives: u64,
    failures: BTreeMap<String, u64>,
    closes: BTreeMap<String, u64>,
    threads: Vec<Usage>,
    conduct: notes::Conduct,
    acks: Option<Box<Acks>>,
    first_error: Option<String>,
    first_unrecognised: Option<String>,
    last_to_publishers: Vec<u8>,
    posts: Posts,
}

impl Default for Merged {
    fn default() -> Self {
        Self {
            recorder: Recorder::new(),
            spread: None,
            figures: Figures::default(),
            changes: None,
            slowness: Slowness::default(),
            slow_buffer_bytes: 0,
            handshake: histogram(),
            tally: Tally::default(),
            deliveries: Deliveries::default(),
            deflate: Deflate::default(),
            faults: Faults::default(),
            missed: Vec::new(),
            missed_unlisted: 0,
            lives: 0,
            failures: BTreeMap::new(),
            closes: BTreeMap::new(),
            threads: Vec::new(),
            conduct: notes::Conduct::default(),
            acks: None,
            first_error: None,
            first_unrecognised: None,
            last_to_publishers: Vec::new(),
            posts: Posts::default(),
        }
    }
}

impl Merged {
    fn add(&mut self, outcome: crate::worker::Outcome, first: u32) {
        let mut judge = outcome.judge;
        judge.spread.number_from(first);
        if let Some(follower) = &judge.follower {
            self.figures.merge(&follower.figures);
        }
        if let Some(changes) = &judge.changes {
            self.changes.get_or_insert_default().merge(&changes.figures);
        }
        self.figures.snapshots_published += outcome.tally.snapshots;
        self.slowness.merge(&mut judge.slowness);
        self.slow_buffer_bytes = self.slow_buffer_bytes.max(outcome.slow_buffer_bytes);
        self.recorder.merge(&mut judge.recorder);
        match &mut self.spread {
            Some(spread) => spread.merge(judge.spread),
            None => self.spread = Some(judge.spread),
        }
        self.handshake.add(&outcome.handshake).expect("all are made by `histogram`");
        self.tally.merge(&outcome.tally);
        self.deliveries.counts.merge(&judge.counts);
        self.deliveries.wire_bytes += outcome.wire_bytes;
        self.deflate.add(&outcome.deflate);
        self.deliveries.window_messages += outcome.window_messages;
        self.deliveries.buffers_exhausted += outcome.buffers_exhausted;
        self.faults.merge(&judge.ledger.faults);
        self.missed_unlisted += judge.ledger.missed_unlisted;
        let in_run = |missed: Missed| Missed { connection: missed.connection + first, ..missed };
        self.missed.extend(judge.ledger.into_missed().into_iter().map(in_run));
        self.lives += outcome.lives;
        for (into, from) in
            [(&mut self.failures, outcome.failures), (&mut self.closes, outcome.closes)]
        {
            for (reason, count) in from {
                *into.entry(reason).or_default() += count;
            }
        }
        self.threads.push(outcome.usage);
        self.conduct.merge(&outcome.conduct);
        // Publishers are in one thread.
        self.acks = self.acks.take().or(judge.acks);
        self.first_error = self.first_error.take().or(judge.first_error);
        let first = judge.first_unrecognised;
        self.first_unrecognised = self.first_unrecognised.take().or(first);
        if outcome.usage.publishes {
            self.last_to_publishers = judge.last_aside;
        }
        self.posts.merge(&outcome.posts);
    }
}

/// Prints the table and writes the files.
///
/// # Errors
/// A file can't be written.
pub(crate) fn publish(report: &Report, flags: &RunFlags) -> Result<(), Failure> {
    if !flags.quiet {
        // A closed standard output is the reader's wish, no failure of the run.
        let _ = std::io::stdout().write_all(table::text(report).as_bytes());
    }
    if let Some(path) = &flags.json {
        let failure = |error| Failure::Write { path: path.clone(), error };
        let mut text = serde_json::to_vec_pretty(report)
            .map_err(|error| failure(std::io::Error::other(error)))?;
        text.push(b'\n');
        std::fs::write(path, text).map_err(failure)?;
    }
    if let Some(path) = &flags.seeing.html {
        let value = serde_json::to_value(report).map_err(|error| Failure::Write {
            path: path.clone(),
            error: std::io::Error::other(error),
        })?;
        crate::page::write(path, &[Run::new("", value)], None)?;
    }
    if let Some(path) = &flags.hgrm {
        let failure = |error| Failure::Write { path: path.clone(), error };
        std::fs::write(path, hgrm::text(&report.latencies.corrected)).map_err(failure)?;
    }
    Ok(())
}
