//! Receiving where the kernel has no rings of buffers (before Linux 5.19): poll, then recv(2).
//!
//! Knows: who waits for input, and one system call. Must not know: what comes.
//!
//! Older kernels can pick a buffer for a RECV as well, but pick it before they know that there is
//! something to read: each idle receive keeps one, and 5.10 loses it when the receive ends with
//! nothing (`EAGAIN`), without saying which it was.

use std::collections::HashMap;

use io_uring::opcode;
use rustix::net::{RecvFlags, recv};

use crate::{
    buffers::Buffers,
    io::{Slot, Token},
    queue::{Queues, Raw},
    sockets::Kept,
    tag::{Kind, Tag},
};

/// Receives that stay armed, in the only way that there is here.
#[derive(Debug, Default)]
pub(crate) struct ByHand {
    /// Tags of polls in the kernel, and whose input they wait for.
    waiting: HashMap<u64, Slot>,
}

impl ByHand {
    /// Waits for input, to be told by [`Self::ready`].
    pub(crate) fn arm(&mut self, queues: &mut Queues, kept: &Kept, slot: Slot, token: Token) {
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        let tag = Tag::new(Kind::ReceivePoll, token).bits();
        self.waiting.insert(tag, slot);
        let poll = opcode::PollAdd::new(kept.descriptor(slot), events).build();
        // SAFETY: points to nothing.
        unsafe { queues.push(poll.user_data(tag)) };
    }

    /// A poll has ended with `result`: what the kernel would have said of a receive. `None`: there
    /// was nothing after all, and it goes on.
    pub(crate) fn ready(
        &mut self,
        queues: &mut Queues,
        kept: &Kept,
        buffers: &Buffers,
        token: Token,
        result: i32,
    ) -> Option<Raw> {
        let slot = self.waiting.remove(&Tag::new(Kind::ReceivePoll, token).bits())?;
        let tag = Tag::new(Kind::Receive, token).bits();
        if result < 0 {
            return Some(Raw { user_data: tag, result, flags: 0 });
        }
        let raw = receive(kept, buffers, slot, token);
        if raw.result == -libc::EAGAIN {
            self.arm(queues, kept, slot, token);
            return None;
        }
        Some(raw)
    }
}

/// One receive, now, told as the kernel tells one into a buffer that it has picked.
pub(crate) fn receive(kept: &Kept, buffers: &Buffers, slot: Slot, token: Token) -> Raw {
    let user_data = Tag::new(Kind::Receive, token).bits();
    let failed = |errno: i32| Raw { user_data, result: -errno, flags: 0 };
    let Some(socket) = kept.socket(slot) else { return failed(libc::EBADF) };
    let Some(id) = buffers.take() else { return failed(libc::ENOBUFS) };
    let received = buffers.fill(id, |bytes| recv(socket, bytes, RecvFlags::DONTWAIT));
    match received {
        Ok((bytes @ 1.., _)) => {
            let flags = F_BUFFER | u32::from(id) << BUFFER_SHIFT;
            Raw { user_data, result: bytes as i32, flags }
        }
        Ok((0, _)) => {
            buffers.give(id);
            failed(0)
        }
        Err(errno) => {
            buffers.give(id);
            failed(errno.raw_os_error())
        }
    }
}

/// `IORING_CQE_F_BUFFER`, and where the buffer's number stands beside it.
const F_BUFFER: u32 = 1;
const BUFFER_SHIFT: u32 = 16;
