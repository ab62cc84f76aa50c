//! One connection of a floor.
//!
//! Knows: what it is for, and which of its operations the ring has. Must not know: what they do.

use uringcast_ring::{Slot, Token};

use crate::floor::inflow::Inflow;

#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) role: Role,
    /// Rises when the slot is freed.
    generation: u32,
    /// By [`Armed`].
    armed: [bool; 3],
}

#[derive(Debug, Default)]
pub(crate) enum Role {
    /// Nobody's slot.
    #[default]
    Free,
    /// What has come of the request's head.
    Head(Vec<u8>),
    Subscriber,
    Publisher(Inflow),
    /// Waits for its operations to end.
    Closing,
}

/// An operation that stays in the kernel until something happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Armed {
    Readable,
    Writable,
    Receive,
}

impl Connection {
    pub(crate) fn arm(&mut self, armed: Armed, slot: Slot) -> Token {
        self.armed[armed as usize] = true;
        self.token(slot)
    }

    pub(crate) fn disarm(&mut self, armed: Armed) {
        self.armed[armed as usize] = false;
    }

    pub(crate) fn is_armed(&self, armed: Armed) -> bool {
        self.armed[armed as usize]
    }

    /// The ring has nothing of it.
    pub(crate) fn is_quiet(&self) -> bool {
        self.armed == [false; 3]
    }

    pub(crate) fn token(&self, slot: Slot) -> Token {
        Token { index: slot.0, generation: self.generation }
    }

    pub(crate) fn free(&mut self) {
        self.role = Role::Free;
        // The ring carries so many bits.
        self.generation = (self.generation + 1) & 0xFF_FFFF;
    }
}
