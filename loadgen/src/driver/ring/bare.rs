//! The least that receiving can cost: bytes are counted where they lie and thrown away.
//!
//! Knows: completions of armed receives. Must not know: what was received. Benches only: what the load
//! generator needs for a message is compared with this.

use io_uring::cqueue;

use super::{KIND_RECEIVE, KIND_SHIFT, Receive, Ring, RingError, unpack};

/// What has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Discarded {
    pub(crate) bytes: u64,
    /// Completions that brought them.
    pub(crate) receives: u64,
    /// Connections that have ended.
    pub(crate) ended: u64,
}

impl Ring {
    /// Counts whatever has come into armed receives.
    ///
    /// # Errors
    /// [`RingError::Enter`].
    pub(crate) fn discard(&mut self, sum: &mut Discarded) -> Result<(), RingError> {
        let Receive::Armed(offered) = &mut self.receive else { return Ok(()) };
        let mut again = Vec::new();
        for entry in self.ring.completion() {
            let (result, flags) = (entry.result(), entry.flags());
            if let Some(buffer) = cqueue::buffer_select(flags) {
                offered.give_back(&self.memory, buffer);
            }
            if entry.user_data() >> KIND_SHIFT != KIND_RECEIVE {
                continue;
            }
            if result > 0 {
                sum.bytes += result as u64;
                sum.receives += 1;
            }
            if !cqueue::more(flags) {
                match result {
                    0 => sum.ended += 1,
                    _ => again.push(unpack(entry.user_data())),
                }
            }
        }
        offered.publish();
        for socket in again {
            self.receive(socket)?;
        }
        Ok(())
    }
}
