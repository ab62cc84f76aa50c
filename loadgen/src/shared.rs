//! What the threads of a run share: atomics, written by one side each.
//!
//! Knows: the phase of the run, how far each thread and each stream is. Must not know: sockets,
//! messages, how it is shown.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Where the run is. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Connections are being opened.
    Connecting,
    /// Publishing and measuring.
    Running,
    /// Publishing has ended; what is on its way arrives.
    Draining,
    /// Connections are being closed.
    Closing,
}

/// The state of a run.
#[derive(Debug)]
pub(crate) struct Shared {
    phase: AtomicU8,
    start_ns: AtomicU64,
    end_ns: AtomicU64,
    /// By stream: how many publications have been given to the kernel.
    published: Vec<AtomicU64>,
    /// By thread.
    pub(crate) progress: Vec<Progress>,
}

/// How far one thread is. Written by that thread alone, in a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Progress {
    /// Connections being opened or waiting for it.
    pub(crate) opening: AtomicU64,
    /// Connections open now.
    pub(crate) open: AtomicU64,
    /// Connections that never opened.
    pub(crate) failed: AtomicU64,
    /// Messages received.
    pub(crate) received: AtomicU64,
    /// Bytes received, of unfinished messages too.
    pub(crate) received_bytes: AtomicU64,
    /// Publishers that have something left to send.
    pub(crate) publishing: AtomicU64,
    /// Every connection has got everything, as of the last look in the draining phase.
    pub(crate) complete: AtomicBool,
    /// In a closed loop: publications that all of this thread's subscribers have got.
    pub(crate) seen_by_all: AtomicU64,
    /// The thread has ended.
    pub(crate) ended: AtomicBool,
    wake: OwnedFd,
}

impl Shared {
    /// # Errors
    /// Without a file descriptor for waking a thread.
    pub(crate) fn new(threads: usize, streams: usize) -> std::io::Result<Self> {
        Ok(Self {
            phase: AtomicU8::new(0),
            start_ns: AtomicU64::new(u64::MAX),
            end_ns: AtomicU64::new(u64::MAX),
            published: (0..streams).map(|_| AtomicU64::new(0)).collect(),
            progress: (0..threads).map(|_| Progress::new()).collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Connecting,
            1 => Phase::Running,
            2 => Phase::Draining,
            _ => Phase::Closing,
        }
    }

    /// Moves on, and wakes everyone.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        for progress in &self.progress {
            progress.wake();
        }
    }

    /// Sets when publishing begins and ends, before the phase becomes [`Phase::Running`].
    pub(crate) fn set_window(&self, start_ns: u64, end_ns: u64) {
        self.start_ns.store(start_ns, Ordering::Relaxed);
        self.end_ns.store(end_ns, Ordering::Relaxed);
    }

    /// When publishing begins, ns; `u64::MAX` before it is known.
    pub(crate) fn start_ns(&self) -> u64 {
        self.start_ns.load(Ordering::Relaxed)
    }

    /// When publishing ends, ns; `u64::MAX` if it does so by itself.
    pub(crate) fn end_ns(&self) -> u64 {
        self.end_ns.load(Ordering::Relaxed)
    }

    /// How many publications of the stream have been sent.
    pub(crate) fn published(&self, stream: u16) -> u64 {
        self.published[usize::from(stream)].load(Ordering::Acquire)
    }

    /// All streams' publications together.
    pub(crate) fn published_total(&self) -> u64 {
        self.published.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Called by the one publisher of the stream.
    pub(crate) fn set_published(&self, stream: u16, count: u64) {
        self.published[usize::from(stream)].store(count, Ordering::Release);
    }

    /// One figure, summed over the threads.
    pub(crate) fn sum(&self, figure: impl Fn(&Progress) -> &AtomicU64) -> u64 {
        self.progress.iter().map(|progress| figure(progress).load(Ordering::Relaxed)).sum()
    }

    /// In a closed loop: publications that every subscriber has got.
    pub(crate) fn seen_by_all(&self) -> u64 {
        let seen = |progress: &Progress| progress.seen_by_all.load(Ordering::Acquire);
        self.progress.iter().map(seen).min().unwrap_or(0)
    }
}

impl Progress {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            opening: AtomicU64::new(u64::MAX >> 16),
            open: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            received: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            publishing: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            seen_by_all: AtomicU64::new(u64::MAX),
            ended: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Interrupts the thread's wait.
    pub(crate) fn wake(&self) {
        // The counter can only be full if the thread has not yet noticed 2^64 calls.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// What [`Self::wake`] makes readable.
    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Makes the next call a new event again.
    pub(crate) fn wake_clear(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
    }
}
