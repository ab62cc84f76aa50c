//! The two queues of a ring: what goes in, in order, and what comes out, whole.
//!
//! Knows: full queues, overflow, interrupted and partial submission. Must not know: what the entries
//! mean.

use std::{collections::VecDeque, time::Duration};

use io_uring::{IoUring, opcode, squeue, types};

use crate::{
    capabilities::Capabilities,
    error::{Errno, RingError},
    io::MinWait,
    sys::{EnterFd, WAIT_SECONDS_MAX},
    tag::{Kind, Tag},
};

/// What the ring has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Times the completion queue was found to have overflowed into the kernel's memory.
    pub overflows: u64,
    /// Accepts that failed.
    pub accepts_failed: u64,
    /// Closes of a slot that the kernel refused: the slot was not open.
    pub closes_failed: u64,
    /// Receives that found no shared buffer (`ENOBUFS`).
    pub no_buffers: u64,
    /// Peers that could not be woken through their ring and were through their eventfd.
    pub wakes_by_bell: u64,
}

/// A completion as the kernel wrote it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

/// The queues.
pub(crate) struct Queues {
    pub(crate) uring: IoUring,
    pub(crate) enter_fd: EnterFd,
    /// Entries that found the queue full and the kernel unable to take any. They go first.
    backlog: VecDeque<squeue::Entry>,
    /// For an entry whose success interests nobody.
    quiet: squeue::Flags,
    /// How a wait ends that may sleep.
    pub(crate) min_wait: Option<MinWait>,
    /// Of the timeout that is an entry, where entering takes none.
    timeout: Option<Box<types::Timespec>>,
    pub(crate) counters: RingCounters,
}

impl Queues {
    pub(crate) fn new(uring: IoUring, capabilities: &Capabilities) -> Self {
        // Without a place left for this thread the ring works as well, a look-up slower.
        let registered = capabilities.registered_ring.then(|| EnterFd::registered(&uring).ok());
        let enter_fd = registered.flatten().unwrap_or_else(|| EnterFd::plain(&uring));
        let skip = capabilities.cqe_skip;
        Self {
            uring,
            enter_fd,
            backlog: VecDeque::new(),
            quiet: if skip { squeue::Flags::SKIP_SUCCESS } else { squeue::Flags::empty() },
            min_wait: None,
            timeout: (!capabilities.ext_arg).then(Box::default),
            counters: RingCounters::default(),
        }
    }

    /// For an entry whose success interests nobody. Its completion may come all the same.
    pub(crate) fn quiet(&self) -> squeue::Flags {
        self.quiet
    }

    pub(crate) fn enters_by_index(&self) -> bool {
        self.enter_fd.is_registered()
    }

    /// Queues an entry behind all others. Never loses it: when the queue is full it is submitted, and
    /// when the kernel takes nothing the entry waits in our own memory.
    ///
    /// # Safety
    /// What the entry points to lives until its last completion.
    pub(crate) unsafe fn push(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() || !self.push_now(&entry) {
            // What is wrong will be told by the next wait, which submits again.
            let _ = self.submit(false);
            self.backlog.push_back(entry);
            self.push_backlog();
        }
    }

    /// Submits all that is queued, backlog too, without waiting and without a completion lost.
    pub(crate) fn submit_all(&mut self, pending: &mut Vec<Raw>) -> Result<(), RingError> {
        loop {
            self.push_backlog();
            if self.queued() == 0 {
                return Ok(());
            }
            match self.submit(true) {
                Ok(()) | Err(Errno(libc::EINTR)) => {}
                // EBUSY: too many completions wait for room.
                Err(Errno(libc::EBUSY)) => self.reap(|raw| pending.push(raw)),
                Err(errno) => return Err(fatal(errno)),
            }
        }
    }

    /// Submits what found the queue full before, if anything did.
    pub(crate) fn submit_backlog(&mut self, pending: &mut Vec<Raw>) -> Result<(), RingError> {
        if self.backlog.is_empty() { Ok(()) } else { self.submit_all(pending) }
    }

    /// Submits all that fits and waits for a completion: at most `timeout`, for ever if `None`, not
    /// at all if zero. Deferred work is run in any case.
    pub(crate) fn submit_and_wait(
        &mut self,
        timeout: Option<Duration>,
        pending: &mut Vec<Raw>,
    ) -> Result<(), RingError> {
        self.submit_backlog(pending)?;
        let (want, timeout) = match timeout {
            Some(Duration::ZERO) => (0, None),
            // A completion already there must not wait for another.
            _ if !pending.is_empty() => (0, None),
            timeout => (1, timeout),
        };
        let (want, timeout) = match timeout {
            Some(timeout) if self.timeout.is_some() => (self.push_timeout(timeout), None),
            timeout => (want, timeout),
        };
        let (want, timeout, min_wait_us) = match (self.min_wait, timeout) {
            (Some(wait), timeout) if want == 1 => {
                // Without a timeout the kernel would end a wait that nothing came to.
                let timeout = timeout.unwrap_or(Duration::from_secs(WAIT_SECONDS_MAX));
                // It looks at the timeout only after the other time.
                let us = u128::from(wait.at_most_us).min(timeout.as_micros()) as u32;
                (if us > 0 { wait.completions } else { 1 }, Some(timeout), us)
            }
            _ => (want, timeout, 0),
        };
        match self.enter_with(want, true, timeout, min_wait_us) {
            // ETIME: the timeout. EINTR: a signal; who waits looks around. EAGAIN: no memory for a
            // request just now. EBUSY: completions first.
            Ok(_) | Err(Errno(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
            Err(errno) => return Err(fatal(errno)),
        }
        self.reap(|raw| pending.push(raw));
        while self.overflowed() {
            match self.enter(0, true, None) {
                Ok(_) | Err(Errno(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(errno) => return Err(fatal(errno)),
            }
            self.reap(|raw| pending.push(raw));
        }
        Ok(())
    }

    /// One `io_uring_enter` with all that is queued.
    pub(crate) fn enter(
        &mut self,
        want: u32,
        events: bool,
        timeout: Option<Duration>,
    ) -> Result<u32, Errno> {
        self.enter_with(want, events, timeout, 0)
    }

    fn enter_with(
        &mut self,
        want: u32,
        events: bool,
        timeout: Option<Duration>,
        min_wait_us: u32,
    ) -> Result<u32, Errno> {
        self.counters.enters += 1;
        let queued = self.queued();
        // SAFETY: each entry came through `push` or `Sends`, whose contracts keep its memory.
        unsafe { self.enter_fd.enter(queued, want, events, timeout, min_wait_us) }
    }

    /// Hands over every completion that is in the queue.
    pub(crate) fn reap(&mut self, mut take: impl FnMut(Raw)) {
        for entry in self.uring.completion() {
            let (user_data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            take(Raw { user_data, result, flags });
        }
    }

    /// Whether the kernel keeps completions for which the queue had no room. They come with an enter
    /// for events, once there is.
    pub(crate) fn overflowed(&mut self) -> bool {
        let overflowed = self.uring.submission().cq_overflow();
        self.counters.overflows += u64::from(overflowed);
        overflowed
    }

    /// Entries in the submission queue.
    pub(crate) fn queued(&mut self) -> u32 {
        self.uring.submission().len() as u32
    }

    /// A timeout as an entry, which ends with the next completion at the latest. Returns for how many
    /// completions to wait: for none if one is there, which it would outlive.
    fn push_timeout(&mut self, timeout: Duration) -> u32 {
        let Some(timespec) = &mut self.timeout else { return 1 };
        if !self.uring.completion().is_empty() {
            return 0;
        }
        **timespec = types::Timespec::new()
            .sec(timeout.as_secs().min(WAIT_SECONDS_MAX))
            .nsec(timeout.subsec_nanos());
        let entry = opcode::Timeout::new(&raw const **timespec).count(1).build();
        // SAFETY: the time is boxed and lives as long as the queues; the kernel copies it when it takes
        // the entry.
        unsafe { self.push(entry.user_data(Tag::index(Kind::Ignored, 0).bits())) };
        1
    }

    fn submit(&mut self, events: bool) -> Result<(), Errno> {
        match self.enter(0, events, None) {
            Ok(_) => Ok(()),
            // No memory for a request: deferred work may free some.
            Err(Errno(libc::EAGAIN)) => self.enter(0, true, None).map(|_| ()),
            Err(errno) => Err(errno),
        }
    }

    fn push_backlog(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.push_now(&entry) {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    fn push_now(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: private, and called only with entries that came through `push`.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        // The thread's place would keep the ring until the thread ends.
        self.enter_fd.unregister(&self.uring);
    }
}

/// What the ring cannot go on after.
pub(crate) fn fatal(errno: Errno) -> RingError {
    match errno {
        // Linux 5.19: a completion found no memory even outside the queue.
        Errno(libc::EBADR) => RingError::CompletionsLost,
        errno => RingError::System { call: "io_uring_enter", errno },
    }
}
