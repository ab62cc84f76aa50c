//! A shard's view of the simulated kernels.
//!
//! Knows: which kernel is its own. Must not know: anything else; it only passes on.

use std::{cell::RefCell, rc::Rc, time::Duration};

use uringcast_ring::{
    Completion, Io, ListenerId, Operation, Send, SendTrouble, Slot, Token, error::RingError,
};

use crate::net::{Net, SimBuffer, Wait};

/// The simulated ring of one shard.
#[derive(Debug)]
pub(crate) struct SimIo {
    pub(crate) net: Rc<RefCell<Net>>,
    pub(crate) shard: usize,
}

impl Io for SimIo {
    type Buffer = SimBuffer;

    fn wait(
        &mut self,
        _timeout: Option<Duration>,
        out: &mut Vec<Completion<SimBuffer>>,
    ) -> Result<(), RingError> {
        out.extend(self.net.borrow_mut().deliver(self.shard));
        Ok(())
    }

    fn send(
        &mut self,
        sends: &[Send<'_>],
        troubles: &mut Vec<SendTrouble>,
    ) -> Result<(), RingError> {
        self.net.borrow_mut().send(self.shard, sends, troubles);
        Ok(())
    }

    fn poll_readable(&mut self, slot: Slot, token: Token) {
        self.net.borrow_mut().poll_readable(self.shard, slot, token);
    }

    fn poll_writable(&mut self, slot: Slot, token: Token) {
        self.net.borrow_mut().poll_writable(self.shard, slot, token);
    }

    fn receive(&mut self, slot: Slot, token: Token) {
        self.net.borrow_mut().receive(self.shard, slot, token, Wait::No);
    }

    fn receive_multishot(&mut self, slot: Slot, token: Token) {
        self.net.borrow_mut().receive(self.shard, slot, token, Wait::Always);
    }

    fn receive_when_readable(&mut self, slot: Slot, token: Token) {
        self.net.borrow_mut().receive(self.shard, slot, token, Wait::Once);
    }

    fn cancel(&mut self, operation: Operation, token: Token) {
        self.net.borrow_mut().cancel(self.shard, operation, token);
    }

    fn close(&mut self, slot: Slot, token: Token) {
        self.net.borrow_mut().close(self.shard, slot, token);
    }

    fn resume_accepts(&mut self, listener: ListenerId) {
        self.net.borrow_mut().resume_accepts(self.shard, listener);
    }

    fn stop_accepting(&mut self) {
        self.net.borrow_mut().stop_accepting(self.shard);
    }

    fn wake(&mut self, peer: usize) {
        self.net.borrow_mut().wake(peer);
    }

    fn receive_buffer_bytes(&self) -> usize {
        self.net.borrow().buffer_bytes(self.shard)
    }
}
