//! Receives that fill several buffers and post one completion.
//!
//! Knows: that the kernel takes buffers in the order in which they were given to it. Must not know: who
//! receives.

use io_uring::{cqueue, opcode};

use crate::{
    buffers::{Buffer, GROUP},
    io::{Completion, Slot, Token},
    queue::Raw,
    ring::Ring,
    sockets::on,
    tag::{Kind, Tag},
};

impl Ring {
    pub(crate) fn receive_bundle(&mut self, slot: Slot, token: Token) {
        let receive = on!(self.sockets.target(slot), socket => {
            opcode::RecvMultiBundle::new(socket, GROUP).build()
        });
        self.push(Tag::new(Kind::Receive, token), receive);
    }

    /// Tells of each buffer as if it had come alone.
    pub(crate) fn received_bundle(
        &mut self,
        token: Token,
        raw: Raw,
        out: &mut Vec<Completion<Buffer>>,
    ) {
        let Some(first) = cqueue::buffer_select(raw.flags) else {
            return out.push(self.received(token, raw.result, raw.flags));
        };
        let buffer_bytes = self.buffers.buffer_bytes() as u32;
        let mut left = u32::try_from(raw.result).unwrap_or(0);
        let mut id = first;
        loop {
            assert_eq!(self.buffers.given_at(self.trial.buffers_taken), id, "taken in order");
            self.trial.buffers_taken = self.trial.buffers_taken.wrapping_add(1);
            if left <= buffer_bytes {
                break;
            }
            let data = self.buffers.filled(id, buffer_bytes);
            out.push(Completion::Received { token, data, armed: true });
            left -= buffer_bytes;
            id = self.buffers.given_at(self.trial.buffers_taken);
        }
        // The last of them is as the completion says, but for its buffer and its bytes.
        let flags = raw.flags & u32::from(u16::MAX) | u32::from(id) << BUFFER_SHIFT;
        let result = if raw.result > 0 { left as i32 } else { raw.result };
        out.push(self.received(token, result, flags));
    }
}

/// Where the buffer's number stands in a completion's flags.
const BUFFER_SHIFT: u32 = 16;
