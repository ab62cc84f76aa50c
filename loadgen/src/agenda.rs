//! What a thread means to do later, and when.
//!
//! Knows: times, errands, sockets' names. Must not know: how errands are run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::driver::SocketId;

/// Something to be done to a connection; void if its generation has passed by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Errand {
    /// The upgrade has not been answered.
    HandshakeTimeout,
    /// Connect again.
    Join,
    /// Send a close.
    Leave,
    /// The close has not been answered.
    LeaveTimeout,
    /// Read again.
    Read,
}

/// A thread's errands, earliest first.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    /// Time, errand, slot, generation.
    heap: BinaryHeap<Reverse<(u64, Errand, u32, u32)>>,
}

impl Agenda {
    pub(crate) fn add(&mut self, at_ns: u64, errand: Errand, socket: SocketId) {
        self.heap.push(Reverse((at_ns, errand, socket.slot, socket.generation)));
    }

    /// When the earliest is due.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ns, ..))| *at_ns)
    }

    /// One that is due.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<(Errand, SocketId)> {
        if self.next_ns()? > now_ns {
            return None;
        }
        let Reverse((_, errand, slot, generation)) = self.heap.pop()?;
        Some((errand, SocketId { slot, generation }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errands_come_in_order_and_not_early() {
        let mut agenda = Agenda::default();
        let socket = |slot| SocketId { slot, generation: 1 };
        agenda.add(30, Errand::Join, socket(3));
        agenda.add(10, Errand::Leave, socket(1));
        agenda.add(20, Errand::HandshakeTimeout, socket(2));
        assert_eq!(agenda.next_ns(), Some(10));
        assert_eq!(agenda.pop_due(9), None);
        assert_eq!(agenda.pop_due(20), Some((Errand::Leave, socket(1))));
        assert_eq!(agenda.pop_due(20), Some((Errand::HandshakeTimeout, socket(2))));
        assert_eq!(agenda.pop_due(20), None);
    }
}
