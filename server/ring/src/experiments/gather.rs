//! Sends of several pieces each.
//!
//! Knows: the two entries that take a list of pieces. Must not know: where the pieces come from.
//!
//! What `send.rs` says of a batch holds here: the memory is borrowed until the entries are consumed, and
//! a `MSG_DONTWAIT` send is over when it is. The lists are copied by the kernel when it takes an entry.

use std::io::IoSlice;

use io_uring::{opcode, squeue, types};

use crate::{
    error::{Errno, RingError},
    io::{Slot, Token},
    queue::Raw,
    ring::Ring,
    send,
    tag::{Kind, Tag},
};

/// One send of several pieces, in order.
#[derive(Clone, Copy, Debug)]
pub struct Gathered<'m> {
    /// Where to.
    pub slot: Slot,
    /// What.
    pub pieces: &'m [IoSlice<'m>],
}

/// Which entry takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gather {
    /// `SENDMSG` (Linux 5.3).
    Message,
    /// `SEND` with `IORING_SEND_VECTORIZED` (Linux 6.17).
    Vectorized,
}

impl Ring {
    /// Sends each item before it returns, at most as many as the queue holds; says how many were not
    /// taken whole.
    ///
    /// # Errors
    /// What the ring cannot go on after.
    ///
    /// # Panics
    /// For a ring whose sends post a completion each, and for more items than the queue holds.
    pub fn send_gathered(
        &mut self,
        sends: &[Gathered<'_>],
        how: Gather,
    ) -> Result<usize, RingError> {
        assert!(self.describe().skip_success, "each send would post a completion");
        self.queues.submit_all(&mut self.pending)?;
        let messages: Vec<_> = sends.iter().map(message).collect();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let mut submission = self.queues.uring.submission();
        assert!(sends.len() <= submission.capacity(), "one enter");
        for (send, message) in sends.iter().zip(&messages) {
            let target = types::Fixed(send.slot.0);
            let entry = match how {
                Gather::Message => {
                    opcode::SendMsg::new(target, message).flags(flags as u32).build()
                }
                Gather::Vectorized => {
                    let count = send.pieces.len() as u32;
                    opcode::Send::new(target, send.pieces.as_ptr().cast(), count)
                        .ioprio(SEND_VECTORIZED)
                        .flags(flags)
                        .build()
                }
            };
            let tag = Tag::new(Kind::Send, Token { index: send.slot.0, generation: GATHERED });
            let entry = entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(tag.bits());
            // SAFETY: the pieces are borrowed, and their lists live, until the loop below has seen the
            // entry consumed. There is room for it.
            let _ = unsafe { submission.push(&entry) };
        }
        drop(submission);
        while self.queues.queued() > 0 {
            match self.queues.enter(0, false, None) {
                Ok(_) | Err(Errno(libc::EINTR | libc::EAGAIN)) => {}
                Err(errno) => send::abort(errno),
            }
        }
        let (mut troubles, pending) = (0, &mut self.pending);
        self.queues.reap(|raw: Raw| match Tag::decode(raw.user_data) {
            Some(Tag { kind: Kind::Send, .. }) => troubles += 1,
            _ => pending.push(raw),
        });
        Ok(troubles)
    }
}

fn message(send: &Gathered<'_>) -> libc::msghdr {
    libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        // `IoSlice` is laid out as `iovec`; the kernel only reads.
        msg_iov: send.pieces.as_ptr().cast_mut().cast(),
        msg_iovlen: send.pieces.len(),
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

/// The bit of a SEND whose address is that of a list of pieces (linux/io_uring.h).
const SEND_VECTORIZED: u16 = 1 << 5;
/// What completions of these carry where others have the number of a batch.
const GATHERED: u32 = 0;
