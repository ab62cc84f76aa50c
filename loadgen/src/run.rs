//! A run from its threads' start to their end: phases, progress, readings of the server.
//!
//! Knows: when which phase begins. Must not know: what is published, how results are shown.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;

use crate::clock::{NANOS_PER_MILLI, now_ns};
use crate::driver::Interrupts;
use crate::judge::Judge;
use crate::plan::WorkerPlan;
use crate::server_process::{Reading, ServerProcess, ServerUsage, between, read};
use crate::shared::{Phase, Progress, Shared};
use crate::source::Source;
use crate::timeline::{Cutter, TimelineReport};
use crate::watch::{Stage, Watch};
use crate::worker::{Outcome, Worker, WorkerError};

/// One thread's work.
pub(crate) struct Job {
    pub(crate) plan: WorkerPlan,
    pub(crate) judge: Judge,
    pub(crate) sources: Vec<Box<dyn Source>>,
}

/// How long the phases last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// Publishing before measuring.
    pub(crate) warmup: Duration,
    /// Measuring; `None`: until the sources are done.
    pub(crate) duration: Option<Duration>,
    /// Waiting at the end, without a delivery.
    pub(crate) grace: Duration,
    /// Waiting at the end at most, however much still arrives.
    pub(crate) drain_max: Duration,
}

/// What came of it.
pub(crate) struct Finished {
    /// By thread.
    pub(crate) outcomes: Vec<Outcome>,
    /// From the end of the warm-up to the end of publishing, ns.
    pub(crate) window_ns: u64,
    /// From the first connection to all of them, ns.
    pub(crate) connecting_ns: u64,
    /// If a process id was given.
    pub(crate) server: Option<ServerUsage>,
    /// Not everything had arrived when the grace ended.
    pub(crate) incomplete: bool,
    /// A signal ended it before its time.
    pub(crate) interrupted: bool,
    /// This process with few connections, if it was seen so, and with all of them.
    pub(crate) own: (Option<Footing>, Footing),
    /// What happened when.
    pub(crate) timeline: TimelineReport,
}

/// Why there is no result.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    /// No connection was opened at all.
    #[error("no connection was opened: {0}")]
    NoConnection(String),
    /// The process given by --pid is gone.
    #[error("the process given by --pid can no longer be read: {0}")]
    Server(std::io::Error),
    /// A thread could not be started.
    #[error("starting a thread: {0}")]
    Spawn(std::io::Error),
    /// A thread panicked: a fault of this program.
    #[error("thread {0} of the load generator panicked")]
    Panicked(usize),
    /// A thread gave up.
    #[error("thread {thread}: {error}")]
    Worker { thread: usize, error: WorkerError },
}

/// Runs the jobs, one thread each.
///
/// # Errors
/// [`RunError`]; what the server does wrong is a result, no error.
pub(crate) fn run(
    jobs: Vec<Job>,
    shared: &Arc<Shared>,
    timing: Timing,
    server: Option<&ServerProcess>,
    mut watch: Watch,
) -> Result<Finished, RunError> {
    // Before the threads, which inherit that the signals are held back.
    let interrupts = Interrupts::catch().map_err(RunError::Spawn)?;
    watch.begin();
    let is_idle = jobs.iter().all(|job| job.sources.is_empty());
    let begun_ns = now_ns();
    let threads = jobs
        .into_iter()
        .map(|job| spawn(job, shared, watch.cutter()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut run = Run { shared, interrupts, watch, interrupted: false };
    let (footing, own_footing) = run.connect(server);
    let connecting_ns = now_ns() - begun_ns;
    let opened = shared.sum(|progress| &progress.open);
    let reading = read(std::process::id()).unwrap_or_default();
    let own = (own_footing, Footing { reading, open: opened });
    let mut used = None;
    let mut window_ns = 0;
    let mut incomplete = false;
    if !run.interrupted && run.is_alive() && opened > 0 {
        let (begin, end, wall_ns) = run.publish(timing, server)?;
        window_ns = wall_ns;
        used = begin.zip(end);
        incomplete = !run.drain(timing);
    }
    run.watch.clear();
    shared.set_phase(Phase::Closing);
    let mut outcomes = join(threads)?;
    // Interrupted while connecting: nothing is measured, and how far it got is worth telling.
    if window_ns == 0 && !run.interrupted {
        let reason = outcomes.iter().flat_map(|outcome| outcome.failures.keys()).next();
        return Err(RunError::NoConnection(reason.cloned().unwrap_or_default()));
    }
    let messages = outcomes.iter().map(|outcome| outcome.window_messages).sum();
    let server = used.map(|(begin, end)| ServerUsage {
        // With traffic the difference would be buffers, not connections.
        rss_bytes_per_connection: footing
            .filter(|_| is_idle)
            .and_then(|footing| footing.per_connection(&end, opened)),
        cpu_ns_per_connect: footing.and_then(|footing| footing.cpu_per_connect(&begin, opened)),
        ..between(&begin, &end, window_ns, messages)
    });
    let interrupted = run.interrupted;
    let (timeline, latencies) = run.watch.finish(timing.warmup.as_secs_f64());
    // They went through the timeline, second by second.
    if let Some(outcome) = outcomes.first_mut() {
        let corrected = outcome.judge.recorder.corrected();
        corrected.add(latencies).expect("all are made by `histogram`");
    }
    Ok(Finished {
        outcomes,
        window_ns,
        connecting_ns,
        server,
        incomplete,
        interrupted,
        own,
        timeline,
    })
}

fn spawn(
    job: Job,
    shared: &Arc<Shared>,
    cutter: Cutter,
) -> Result<JoinHandle<Result<Outcome, WorkerError>>, RunError> {
    let shared = Arc::clone(shared);
    let thread = job.plan.thread;
    let work = move || {
        let end = Ended { shared: Arc::clone(&shared), thread };
        let worker = Worker::new(job.plan, shared, job.judge, job.sources, cutter)?;
        let outcome = worker.run();
        drop(end);
        outcome
    };
    std::thread::Builder::new()
        .name(format!("loadgen-{thread}"))
        .spawn(work)
        .map_err(RunError::Spawn)
}

/// Tells the others when a thread ends, however it does.
struct Ended {
    shared: Arc<Shared>,
    thread: usize,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.shared.progress[self.thread].ended.store(true, Ordering::Release);
    }
}

fn join(threads: Vec<JoinHandle<Result<Outcome, WorkerError>>>) -> Result<Vec<Outcome>, RunError> {
    let results: Vec<_> = threads.into_iter().map(JoinHandle::join).collect();
    let outcome = |(thread, result): (usize, Result<_, _>)| match result {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(error)) => Err(RunError::Worker { thread, error }),
        Err(_) => Err(RunError::Panicked(thread)),
    };
    results.into_iter().enumerate().map(outcome).collect()
}

/// A process with few connections, to compare with it at many: what each of the others takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footing {
    pub(crate) reading: Reading,
    pub(crate) open: u64,
}

impl Footing {
    /// What each more of them has added, bytes; `None` if they are too few to tell.
    pub(crate) fn per_connection(&self, end: &Reading, open: u64) -> Option<f64> {
        let more = self.more(open)?;
        Some((end.rss_bytes() as f64 - self.reading.rss_bytes() as f64) / more)
    }

    /// The processor time that opening each more of them took, ns; likewise.
    fn cpu_per_connect(&self, opened: &Reading, open: u64) -> Option<f64> {
        let more = self.more(open)?;
        Some(opened.cpu_ns().saturating_sub(self.reading.cpu_ns()) as f64 / more)
    }

    fn more(&self, open: u64) -> Option<f64> {
        let more = open.checked_sub(self.open).filter(|&more| more >= FOOTING_CONNECTIONS)?;
        Some(more as f64)
    }
}

struct Run<'a> {
    shared: &'a Arc<Shared>,
    interrupts: Interrupts,
    watch: Watch,
    /// A signal has come before the end of publishing.
    interrupted: bool,
}

impl Run<'_> {
    fn is_alive(&self) -> bool {
        !self.shared.progress.iter().any(|progress| progress.ended.load(Ordering::Acquire))
    }

    /// Looks on, and rests.
    fn rest(&mut self, stage: Stage) {
        self.watch.tick(self.shared, stage);
        std::thread::sleep(TICK);
    }

    /// Waits until all are open or have failed: the server's memory and ours with the first of them.
    fn connect(&mut self, server: Option<&ServerProcess>) -> (Option<Footing>, Option<Footing>) {
        let (mut footing, mut own) = (None, None);
        while self.is_alive() && self.shared.sum(|progress| &progress.opening) > 0 {
            self.interrupted = self.interrupts.is_raised();
            if self.interrupted {
                break;
            }
            let open = self.shared.sum(|progress| &progress.open);
            if footing.is_none() && open >= FOOTING_CONNECTIONS {
                let reading = server.and_then(|server| server.read().ok());
                footing = reading.map(|reading| Footing { reading, open });
            }
            if own.is_none() && open >= FOOTING_CONNECTIONS {
                own = read(std::process::id()).ok().map(|reading| Footing { reading, open });
            }
            self.rest(Stage::Connecting);
        }
        (footing, own)
    }

    /// Publishes to the end; the server's readings at the window's ends, and its length.
    fn publish(
        &mut self,
        timing: Timing,
        server: Option<&ServerProcess>,
    ) -> Result<(Option<Reading>, Option<Reading>, u64), RunError> {
        let reading = |server: &ServerProcess| server.read().map_err(RunError::Server);
        std::thread::sleep(SETTLE);
        let start_ns = now_ns() + 10 * NANOS_PER_MILLI;
        let window_start_ns = start_ns + timing.warmup.as_nanos() as u64;
        let end_ns = timing
            .duration
            .map_or(u64::MAX, |duration| window_start_ns + duration.as_nanos() as u64);
        self.shared.set_window(start_ns, end_ns);
        self.shared.set_phase(Phase::Running);
        self.sleep_until(window_start_ns, Stage::WarmingUp);
        let begin = server.map(reading).transpose()?;
        // The threads say that nothing is left only after they have looked.
        let is_over = |run: &Self, now: u64| {
            let published = timing.duration.is_none() && run.is_published();
            now >= end_ns || (published && now >= window_start_ns + LEAST_NS)
        };
        while !self.interrupted && !is_over(self, now_ns()) && self.is_alive() {
            self.sleep_until(end_ns.min(now_ns() + TICK.as_nanos() as u64), Stage::Measuring);
        }
        if self.interrupted {
            // What has been published is still waited for and reported.
            self.shared.set_window(start_ns, now_ns());
        }
        let end = server.map(reading).transpose()?;
        let window_ns = now_ns().min(self.shared.end_ns()).saturating_sub(window_start_ns).max(1);
        Ok((begin, end, window_ns))
    }

    fn is_published(&self) -> bool {
        self.shared.sum(|progress| &progress.publishing) == 0
    }

    /// Waits for what is on its way; false if it has not all come.
    fn drain(&mut self, timing: Timing) -> bool {
        let Timing { grace, drain_max, .. } = timing;
        let deadline_ns = now_ns() + drain_max.as_nanos() as u64;
        let shared = self.shared;
        let figures = || {
            let received = shared.sum(|progress| &progress.received_bytes);
            (received, shared.published_total())
        };
        let mut last = (figures(), now_ns());
        let moving = |run: &Self, last: &mut ((u64, u64), u64)| {
            if figures() != last.0 {
                *last = (figures(), now_ns());
            }
            now_ns() - last.1 < grace.as_nanos() as u64
                && now_ns() < deadline_ns
                && !run.interrupts.is_raised()
        };
        // What is due but the server would not take yet: still Running.
        while self.is_alive() && !self.is_published() && moving(self, &mut last) {
            self.rest(Stage::Draining);
        }
        self.shared.set_phase(Phase::Draining);
        last.1 = now_ns();
        let is_complete = |progress: &Progress| progress.complete.load(Ordering::Acquire);
        loop {
            self.rest(Stage::Draining);
            if self.shared.progress.iter().all(is_complete) {
                return true;
            }
            if !self.is_alive() || !moving(self, &mut last) {
                return false;
            }
        }
    }

    /// Looks on until then, or until a signal comes.
    fn sleep_until(&mut self, at_ns: u64, stage: Stage) {
        while let left @ 1.. = at_ns.saturating_sub(now_ns()) {
            self.interrupted |= self.interrupts.is_raised();
            if self.interrupted || !self.is_alive() {
                return;
            }
            if left > LOOK_NS {
                self.watch.tick(self.shared, stage);
            }
            let left = Duration::from_nanos(at_ns.saturating_sub(now_ns()));
            std::thread::sleep(left.min(TICK));
        }
    }
}

/// The first so many connections carry what the server allocates once.
const FOOTING_CONNECTIONS: u64 = 1000;
const TICK: Duration = Duration::from_millis(50);
/// Looking on takes less, ns: it delays no end of a phase.
const LOOK_NS: u64 = 10 * NANOS_PER_MILLI;
/// After the last connection: what came with it is over.
const SETTLE: Duration = Duration::from_millis(200);
/// The shortest window, ns.
const LEAST_NS: u64 = 100 * NANOS_PER_MILLI;
/// However much still arrives, waiting at the end takes no longer.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(60);
