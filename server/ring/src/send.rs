//! A batch of sends that is over when it returns.
//!
//! Knows: `MSG_DONTWAIT | MSG_WAITALL` and skipped completions. Must not know: whose sockets they
//! are, and why a send was short.
//!
//! The batch borrows its memory, so nothing the kernel may read outlives the call: entries that point
//! to it are consumed before it returns, or the process ends. Such a send never goes asynchronous
//! (Linux 6.1; not with SQPOLL, IOSQE_ASYNC, links or drain, none of which we use): when the enter
//! that consumed it returns, it is finished, and if it was not full success its completion is queued.
//! `MSG_WAITALL` is what makes a short send a failure, whose completion is not skipped. Where
//! completions are not skipped it is left out: before 6.1 it can cost a short send its count. Without
//! both each send posts a completion, and is over as soon on every kernel since 5.10.

use std::{process, thread, time::Duration};

use io_uring::{opcode, squeue, types};

use crate::{
    error::{Errno, RingError},
    io::{Send, SendOutcome, SendTrouble, Token},
    queue::{Queues, Raw, fatal},
    tag::{GENERATION_MASK, Kind, Tag},
};

/// What a batch needs besides the queues.
#[derive(Debug)]
pub(crate) struct Batches {
    /// A full success posts no completion.
    pub(crate) skip_success: bool,
    /// The number of the batch, carried by its completions.
    number: u32,
}

impl Batches {
    pub(crate) fn new(skip_success: bool) -> Self {
        Self { skip_success, number: 0 }
    }

    /// Sends all of it. Completions of anything else go to `pending`.
    pub(crate) fn send(
        &mut self,
        queues: &mut Queues,
        pending: &mut Vec<Raw>,
        sends: &[Send<'_>],
        troubles: &mut Vec<SendTrouble>,
    ) -> Result<(), RingError> {
        troubles.clear();
        // What was asked before comes before, and its errors while nothing of the batch is queued.
        queues.submit_backlog(pending)?;
        self.number = (self.number + 1) & GENERATION_MASK;
        let mut batch = Batch {
            number: self.number,
            sends,
            troubles,
            pending,
            owed: 0,
            skip: self.skip_success,
        };
        let mut next = 0;
        let mut lost = false;
        while next < sends.len() {
            next += batch.push(queues, next);
            lost |= batch.finish(queues);
        }
        // The kernel answers in order as long as nothing overflows.
        if !troubles.is_sorted_by_key(|trouble| trouble.index) {
            troubles.sort_unstable_by_key(|trouble| trouble.index);
        }
        if lost { Err(RingError::CompletionsLost) } else { Ok(()) }
    }
}

struct Batch<'b, 'm> {
    number: u32,
    sends: &'b [Send<'m>],
    troubles: &'b mut Vec<SendTrouble>,
    pending: &'b mut Vec<Raw>,
    /// Completions that will come whatever the outcome.
    owed: usize,
    /// A full success posts no completion.
    skip: bool,
}

impl Batch<'_, '_> {
    /// Queues as many as there is room for, from `first` on; says how many.
    fn push(&mut self, queues: &mut Queues, first: usize) -> usize {
        let mut submission = queues.uring.submission();
        let room = submission.capacity() - submission.len();
        let mut count = 0;
        for (send, index) in self.sends[first..].iter().take(room).zip(first as u32..) {
            let bytes = send.bytes.len().min(SEND_BYTES_MAX);
            let skip = self.skips(send);
            self.owed += usize::from(!skip);
            let (flags, waitall) = match skip {
                true => (squeue::Flags::SKIP_SUCCESS, libc::MSG_WAITALL),
                false => (squeue::Flags::empty(), 0),
            };
            let token = Token { index, generation: self.number };
            let entry =
                opcode::Send::new(types::Fixed(send.slot.0), send.bytes.as_ptr(), bytes as u32)
                    .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | waitall)
                    .build()
                    .flags(flags)
                    .user_data(Tag::new(Kind::Send, token).bits());
            // SAFETY: the bytes are borrowed until the batch returns, and `finish` does not return
            // before the kernel has consumed this entry and is done with it.
            if unsafe { submission.push(&entry) }.is_err() {
                break;
            }
            count += 1;
        }
        count
    }

    /// Returns when all entries are consumed and their completions reaped. Says whether the kernel
    /// lost completions.
    fn finish(&mut self, queues: &mut Queues) -> bool {
        let mut lost = false;
        let mut tries = 0;
        let mut events = false;
        loop {
            match queues.enter(0, events, None) {
                Ok(_) | Err(Errno(libc::EINTR)) => {}
                // No memory for a request (EAGAIN) or for completions (EBUSY): reap, and run deferred
                // work, which frees some.
                Err(Errno(libc::EAGAIN | libc::EBUSY)) if tries < TRIES_MAX => {
                    tries += 1;
                    if tries > TRIES_AT_ONCE {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                Err(Errno(libc::EBADR)) => lost = true,
                Err(errno) => abort(errno),
            }
            queues.reap(|raw| self.take(raw));
            let overflowed = queues.overflowed();
            if queues.queued() == 0 && !overflowed && (self.owed == 0 || lost) {
                return lost;
            }
            events = true;
        }
    }

    /// Whether the send posts no completion if all its bytes are taken. Cut to the kernel's bound it
    /// would be a full success, and what was cut off lost.
    fn skips(&self, send: &Send<'_>) -> bool {
        self.skip && send.bytes.len() <= SEND_BYTES_MAX
    }

    fn take(&mut self, raw: Raw) {
        let index = match Tag::decode(raw.user_data) {
            Some(Tag { kind: Kind::Send, token }) if token.generation == self.number => token.index,
            _ => return self.pending.push(raw),
        };
        let Some(send) = self.sends.get(index as usize) else { return self.pending.push(raw) };
        self.owed -= usize::from(!self.skips(send));
        let outcome = match raw.result {
            taken @ 1.. if taken as usize == send.bytes.len() => None,
            taken @ 1.. => Some(SendOutcome::Short(taken as u32)),
            // Zero bytes taken of at least one asked for: full, by another name.
            0 if send.bytes.is_empty() => None,
            0 => Some(SendOutcome::Full),
            error => match Errno(-error) {
                // EINTR: nothing was taken, and the next visit tries again.
                Errno(libc::EAGAIN | libc::EINTR) => Some(SendOutcome::Full),
                // ENOBUFS, ENOMEM: no memory for the packet. It is full as far as we can tell.
                Errno(libc::ENOBUFS | libc::ENOMEM) => Some(SendOutcome::Full),
                // EPIPE, ECONNRESET, ETIMEDOUT, EHOSTUNREACH …; EBADF for a slot that is closed.
                errno => Some(SendOutcome::Dead(errno)),
            },
        };
        self.troubles.extend(outcome.map(|outcome| SendTrouble { index, outcome }));
    }
}

/// Entries that point to borrowed memory are queued and the kernel does not take them: to return
/// would let it read freed memory later.
#[cold]
pub(crate) fn abort(errno: Errno) -> ! {
    eprintln!("uringcast: {} in the midst of a batch of sends; aborting", fatal(errno));
    process::abort();
}

/// The kernel cuts a transfer to this (`MAX_RW_COUNT`, linux/fs.h).
const SEND_BYTES_MAX: usize = 0x7fff_f000;
/// Times a submission is tried that finds no memory, …
const TRIES_MAX: u32 = 10_000;
/// … and of these, times without a pause.
const TRIES_AT_ONCE: u32 = 100;
