//! Waking a ring that sleeps in the kernel.
//!
//! Knows: messages between rings, eventfds. Must not know: what there is to do once awake.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io,
};

use crate::error::RingError;

/// Wakes one ring, or one thread that waits for an eventfd. Outlives what it wakes without harm.
#[derive(Clone, Debug)]
pub struct WakeHandle(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    /// For messages from other rings (`IORING_OP_MSG_RING`, Linux 5.18).
    ring: Option<OwnedFd>,
    bell: OwnedFd,
}

impl WakeHandle {
    /// For a thread without a ring, which waits for this eventfd itself.
    pub fn eventfd_only(bell: OwnedFd) -> Self {
        Self(Arc::new(Ends { ring: None, bell }))
    }

    /// Wakes it from any thread, with or without a ring: one write(2) to its eventfd.
    pub fn ring_bell(&self) {
        // EAGAIN: the counter is at its end, so it was rung and not heard yet. Other errors cannot
        // be: it is an eventfd and eight bytes.
        let _ = io::write(&self.0.bell, &1_u64.to_ne_bytes());
    }

    pub(crate) fn ring_fd(&self) -> Option<RawFd> {
        self.0.ring.as_ref().map(AsRawFd::as_raw_fd)
    }

    pub(crate) fn bell_fd(&self) -> RawFd {
        self.0.bell.as_raw_fd()
    }

    /// For a ring: its descriptor and a new eventfd.
    pub(crate) fn of(ring: impl AsFd) -> Result<Self, RingError> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|errno| RingError::system("eventfd")(errno.into()))?;
        let ring = ring
            .as_fd()
            .try_clone_to_owned()
            .map_err(RingError::system("dup of the ring's descriptor"))?;
        Ok(Self(Arc::new(Ends { ring: Some(ring), bell })))
    }

    /// Sets the eventfd back to silence; whether it was rung.
    pub(crate) fn hush(&self) -> bool {
        // EAGAIN: it was silent.
        io::read(&self.0.bell, &mut [0; 8]).is_ok()
    }
}
