//! Looking on while the run runs: collects what the threads tell, and gives it to the view and to
//! whoever asks for metrics.
//!
//! Knows: the threads' progress, the timeline, the server's process. Must not know: how it is
//! shown, what decides when a phase ends.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use crate::clock::{NANOS_PER_MILLI, NANOS_PER_SECOND, now_ns};
use crate::failure::Failure;
use crate::flags::RunFlags;
use crate::metrics::Metrics;
use crate::server_process::{Reading, ServerProcess, ServerUsage, between};
use crate::shared::Shared;
use crate::timeline::{Cutter, Row, Timeline, TimelineReport};
use crate::verify::Faults;
use crate::view::View;

/// What a person should know about where the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Connections are being opened.
    Connecting,
    /// Publishing, not yet measuring.
    WarmingUp,
    /// Publishing and measuring.
    Measuring,
    /// Waiting for what is on its way.
    Draining,
}

impl Stage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::WarmingUp => "warming up",
            Self::Measuring => "measuring",
            Self::Draining => "waiting for what is on its way",
        }
    }
}

/// Everything that can be seen of a run at one moment.
pub(crate) struct Figures<'a> {
    pub(crate) stage: Stage,
    /// Since the stage began, s.
    pub(crate) elapsed_s: f64,
    /// How long the stage will last, s, where that is known.
    pub(crate) lasts_s: Option<f64>,
    /// Connections that shall be opened.
    pub(crate) connections: u64,
    pub(crate) open: u64,
    pub(crate) opening: u64,
    pub(crate) failed: u64,
    /// Ended by the server.
    pub(crate) closed: u64,
    pub(crate) published: u64,
    pub(crate) received: u64,
    pub(crate) received_bytes: u64,
    pub(crate) faults: Faults,
    /// Ranges skipped that may still come.
    pub(crate) gaps_open: u64,
    /// Finished seconds, the newest last.
    pub(crate) recent: &'a VecDeque<Row>,
    /// Corrected latencies of the run so far.
    pub(crate) run: &'a Histogram<u64>,
    /// With --pid, over the last second.
    pub(crate) server: Option<ServerUsage>,
    /// By thread: whether it publishes, and how busy it was in its last second, 0 to 1.
    pub(crate) threads: Vec<(bool, f64)>,
    /// Where metrics are served.
    pub(crate) metrics: Option<std::net::SocketAddr>,
}

/// One run's onlooker, on the main thread.
pub(crate) struct Watch {
    timeline: Timeline,
    view: View,
    metrics: Option<Metrics>,
    server: Option<Server>,
    connections: u64,
    stage: Option<(Stage, u64)>,
}

/// The process given by --pid.
struct Server {
    process: ServerProcess,
    reading: Reading,
    read_ns: u64,
    usage: Option<ServerUsage>,
}

impl Watch {
    /// # Errors
    /// The address for metrics can't be had.
    pub(crate) fn new(
        flags: &RunFlags,
        server: Option<&ServerProcess>,
        connections: u64,
    ) -> Result<Self, Failure> {
        let metrics = flags.seeing.metrics.map(Metrics::bind).transpose()?;
        let view = View::choose(flags.quiet);
        let server = server.map(|process| Server {
            process: process.clone(),
            // Without one the run says so when it takes its own.
            reading: process.read().unwrap_or_default(),
            read_ns: now_ns(),
            usage: None,
        });
        Ok(Self { timeline: Timeline::new(), view, metrics, server, connections, stage: None })
    }

    /// Begins. To be called when signals are held back.
    pub(crate) fn begin(&mut self) {
        if let Some(metrics) = &mut self.metrics {
            metrics.serve();
        }
    }

    /// The next thread's end of the timeline.
    pub(crate) fn cutter(&mut self) -> Cutter {
        self.timeline.cutter()
    }

    /// To be called many times a second.
    pub(crate) fn tick(&mut self, shared: &Shared, stage: Stage) {
        let now = now_ns();
        let open = shared.sum(|progress| &progress.open);
        self.timeline.collect(open);
        if self.stage.is_none_or(|(before, _)| before != stage) {
            self.stage = Some((stage, now));
        }
        if let Some(server) = &mut self.server {
            server.look(now);
        }
        // Taken out and put back: the figures borrow the rest.
        let mut view = std::mem::take(&mut self.view);
        let figures = self.figures(shared, stage, open, now);
        if let Some(metrics) = &self.metrics {
            metrics.answer(&figures);
        }
        view.show(&figures, now);
        self.view = view;
    }

    fn figures(&self, shared: &Shared, stage: Stage, open: u64, now: u64) -> Figures<'_> {
        let begun_ns = self.stage.map_or(now, |(_, begun_ns)| begun_ns);
        let (start_ns, end_ns) = (shared.start_ns(), shared.end_ns());
        let known_end = Some(end_ns).filter(|&end_ns| end_ns != u64::MAX);
        let lasts_ns = match stage {
            Stage::Measuring => known_end.map(|end_ns| end_ns.saturating_sub(begun_ns)),
            Stage::Connecting | Stage::WarmingUp | Stage::Draining => None,
        };
        let mut faults = Faults::default();
        let (mut gaps_open, mut closed) = (0, 0);
        for (running, _) in self.timeline.threads() {
            faults.merge(&running.faults);
            gaps_open += running.gaps_open;
            closed += running.closed;
        }
        let published = if start_ns == u64::MAX { 0 } else { shared.published_total() };
        Figures {
            stage,
            elapsed_s: now.saturating_sub(begun_ns) as f64 / 1e9,
            lasts_s: lasts_ns.map(|ns| ns as f64 / 1e9),
            connections: self.connections,
            open,
            opening: shared.sum(|progress| &progress.opening).min(self.connections),
            failed: shared.sum(|progress| &progress.failed),
            closed,
            published,
            received: shared.sum(|progress| &progress.received),
            received_bytes: shared.sum(|progress| &progress.received_bytes),
            faults,
            gaps_open,
            recent: self.timeline.recent(),
            run: self.timeline.run(),
            server: self.server.as_ref().and_then(|server| server.usage),
            threads: self
                .timeline
                .threads()
                .map(|(running, busy)| (running.usage.publishes, busy))
                .collect(),
            metrics: self.metrics.as_ref().map(Metrics::address),
        }
    }

    /// Takes the view away: what comes now is for good.
    pub(crate) fn clear(&mut self) {
        self.view = View::default();
    }

    /// When all threads have ended: what happened when, and all corrected latencies.
    pub(crate) fn finish(self, warmup_s: f64) -> (TimelineReport, Histogram<u64>) {
        self.timeline.finish(warmup_s)
    }
}

impl Server {
    fn look(&mut self, now: u64) {
        if now - self.read_ns < NANOS_PER_SECOND - 20 * NANOS_PER_MILLI {
            return;
        }
        if let Ok(reading) = self.process.read() {
            self.usage = Some(between(&self.reading, &reading, now - self.read_ns, 0));
            self.reading = reading;
        }
        self.read_ns = now;
    }
}
