//! A ring that takes every send at once and never has anything to tell.
//!
//! Knows: what was last asked of it. Must not know: who asks.

use std::time::Duration;

use uringcast_ring::{
    Completion, Io, ListenerId, Operation, Send, SendTrouble, Slot, Token, error::RingError,
};

/// Stands where the real ring stands, so that what remains is the server's own work.
#[derive(Debug, Default)]
pub struct NullRing {
    /// Sends so far.
    pub sends: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last poll for input that was armed.
    pub polled: Option<Token>,
    /// The last receive that was asked for.
    pub received: Option<Token>,
    /// Each send since this was last emptied, in order, if anybody wants to know.
    pub noted: Option<Vec<Noted>>,
}

/// One send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The number of the socket in the ring's table.
    pub slot: u32,
    /// How much it was given.
    pub bytes: u32,
}

impl Io for NullRing {
    type Buffer = Vec<u8>;

    fn wait(
        &mut self,
        _timeout: Option<Duration>,
        _out: &mut Vec<Completion<Vec<u8>>>,
    ) -> Result<(), RingError> {
        Ok(())
    }

    fn send(
        &mut self,
        sends: &[Send<'_>],
        troubles: &mut Vec<SendTrouble>,
    ) -> Result<(), RingError> {
        troubles.clear();
        self.sends += sends.len() as u64;
        self.bytes += sends.iter().map(|send| send.bytes.len() as u64).sum::<u64>();
        if let Some(noted) = &mut self.noted {
            noted.extend(
                sends.iter().map(|s| Noted { slot: s.slot.0, bytes: s.bytes.len() as u32 }),
            );
        }
        Ok(())
    }

    fn poll_readable(&mut self, _slot: Slot, token: Token) {
        self.polled = Some(token);
    }

    fn poll_writable(&mut self, _slot: Slot, _token: Token) {}

    fn receive(&mut self, _slot: Slot, token: Token) {
        self.received = Some(token);
    }

    fn receive_multishot(&mut self, _slot: Slot, token: Token) {
        self.received = Some(token);
    }

    fn receive_when_readable(&mut self, _slot: Slot, token: Token) {
        self.received = Some(token);
    }

    fn cancel(&mut self, _operation: Operation, _token: Token) {}

    fn close(&mut self, _slot: Slot, _token: Token) {}

    fn resume_accepts(&mut self, _listener: ListenerId) {}

    fn stop_accepting(&mut self) {}

    fn wake(&mut self, _peer: usize) {}

    fn receive_buffer_bytes(&self) -> usize {
        RECEIVE_BYTES
    }
}

/// As the real ring's shared buffers.
pub const RECEIVE_BYTES: usize = 2048;
