//! What a thread of the load generator uses of its processor, and where it runs.
//!
//! Knows: /proc, affinity, the thread's CPU clock. Must not know: connections, messages.

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::clock::{now_ns, thread_cpu_ns};

/// Use of one thread over the measured window, ns.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct Usage {
    /// This is the thread that publishes.
    pub(crate) publishes: bool,
    /// Wall-clock length of the window.
    pub(crate) wall_ns: u64,
    /// Spent on a processor.
    pub(crate) cpu_ns: u64,
    /// Spent waiting for one that others had.
    pub(crate) queued_ns: u64,
    /// Share of the window in which the thread had work, running or waiting to run.
    pub(crate) busy_share: f64,
    /// It was busy for so much of it that what it measured is at least partly its own doing.
    pub(crate) limit: bool,
}

impl Usage {
    /// Between an earlier reading of the same thread and this one.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            publishes: self.publishes,
            wall_ns: self.wall_ns.saturating_sub(earlier.wall_ns),
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            queued_ns: self.queued_ns.saturating_sub(earlier.queued_ns),
            ..Self::default()
        }
        .judged()
    }

    fn judged(self) -> Self {
        let busy_share = (self.cpu_ns + self.queued_ns) as f64 / self.wall_ns.max(1) as f64;
        Self { busy_share, limit: busy_share > BUSY_SHARE_MAX, ..self }
    }
}

/// Takes the readings at the window's two ends.
#[derive(Debug, Default)]
pub(crate) struct UsageWindow {
    begin: Option<(Usage, u64)>,
    end: Option<(Usage, u64)>,
}

impl UsageWindow {
    /// To be called now and then with whether the window has begun and ended.
    pub(crate) fn look(&mut self, begun: bool, ended: bool, messages: u64) {
        if begun && self.begin.is_none() {
            self.begin = Some((reading(), messages));
        }
        if ended && self.end.is_none() {
            self.end = Some((reading(), messages));
        }
    }

    /// Use between the two.
    pub(crate) fn usage(&self) -> Usage {
        match (&self.begin, &self.end) {
            (Some((begin, _)), Some((end, _))) => Usage {
                publishes: false,
                wall_ns: end.wall_ns - begin.wall_ns,
                cpu_ns: end.cpu_ns - begin.cpu_ns,
                queued_ns: end.queued_ns.saturating_sub(begin.queued_ns),
                ..Usage::default()
            }
            .judged(),
            _ => Usage::default(),
        }
    }

    /// Messages between the two.
    pub(crate) fn messages(&self) -> u64 {
        match (&self.begin, &self.end) {
            (Some((_, begin)), Some((_, end))) => end - begin,
            _ => 0,
        }
    }
}

/// Keeps the calling thread on one processor.
///
/// # Errors
/// It is not there, or not allowed.
pub(crate) fn stay_on(cpu: usize) -> rustix::io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(rustix::io::Errno::INVAL);
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}

/// Timers of this thread fire when they should: the default lets them be 50 µs late.
pub(crate) fn sharpen_timers() {
    // Without it publications are a little later, which the figures show.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// Lets the calling thread run before others as soon as it wakes, where that is allowed
/// (CAP_SYS_NICE): the publishing thread sleeps nearly always, and stands for the outside world.
pub(crate) fn go_first() {
    // Without it publications are a little later, which the figures show.
    let _ = rustix::process::setpriority_process(None, FIRST_NICE);
}

/// What the calling thread has used so far.
pub(crate) fn reading() -> Usage {
    // "<on cpu ns> <waiting ns> <slices>"; absent without CONFIG_SCHEDSTATS.
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let queued = schedstat.split_whitespace().nth(1).and_then(|field| field.parse().ok());
    Usage {
        publishes: false,
        wall_ns: now_ns(),
        cpu_ns: thread_cpu_ns(),
        queued_ns: queued.unwrap_or(0),
        ..Usage::default()
    }
}

/// A thread that is busier is the limit of what it measures.
const BUSY_SHARE_MAX: f64 = 0.95;

const FIRST_NICE: i32 = -10;
