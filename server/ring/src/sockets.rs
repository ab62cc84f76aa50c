//! The connections' sockets, by slot of the ring's table of descriptors.
//!
//! Knows: two ways to keep them. Must not know: what is done with them.
//!
//! Sends name the slot on every kernel: it spares them a look-up. Direct descriptors are in the
//! table and nowhere else. Before Linux 6.13 a slot that is emptied lets go of its socket only when
//! everything that was in flight before, on any slot, has ended: one poll that stays armed would keep
//! all connections closed since from being closed. So there each socket is a descriptor of the
//! process as well: what stays armed names that, only sends, which are over at once, name the slot,
//! and closing shuts the socket down first.

use std::{
    net::Shutdown,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
};

use io_uring::{IoUring, types::Fd};
use socket2::SockRef;

use crate::{error::Errno, io::Slot};

/// Who has the sockets.
#[derive(Debug)]
pub(crate) enum Sockets {
    /// The table alone.
    Direct,
    /// The process as well.
    Kept(Kept),
}

/// Descriptors by slot, and which slots are free.
#[derive(Debug)]
pub(crate) struct Kept {
    sockets: Vec<Option<OwnedFd>>,
    free: Vec<u32>,
}

/// How an entry that may stay in flight names a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Slot(u32),
    Descriptor(RawFd),
}

impl Kept {
    pub(crate) fn socket(&self, slot: Slot) -> Option<&OwnedFd> {
        self.sockets.get(slot.0 as usize)?.as_ref()
    }

    /// For an entry that may stay in flight; -1 (`EBADF`) without a socket.
    pub(crate) fn descriptor(&self, slot: Slot) -> Fd {
        Fd(self.socket(slot).map_or(-1, AsRawFd::as_raw_fd))
    }
}

/// Builds an entry for either kind of target.
macro_rules! on {
    ($target:expr, $socket:ident => $entry:expr) => {
        match $target {
            $crate::sockets::Target::Slot(slot) => {
                let $socket = io_uring::types::Fixed(slot);
                $entry
            }
            $crate::sockets::Target::Descriptor(descriptor) => {
                let $socket = io_uring::types::Fd(descriptor);
                $entry
            }
        }
    };
}
pub(crate) use on;

impl Sockets {
    pub(crate) fn new(direct: bool, slots: u32) -> Self {
        match direct {
            true => Self::Direct,
            false => Self::Kept(Kept {
                sockets: (0..slots).map(|_| None).collect(),
                free: (0..slots).rev().collect(),
            }),
        }
    }

    /// For what may stay in flight. A slot without a socket is answered with `EBADF`, as the table
    /// does.
    pub(crate) fn target(&self, slot: Slot) -> Target {
        match self {
            Self::Direct => Target::Slot(slot.0),
            Self::Kept(kept) => Target::Descriptor(kept.descriptor(slot).0),
        }
    }
}

impl Kept {
    /// Takes the descriptor that an accept has made into a free slot.
    ///
    /// # Errors
    /// `ENFILE`: no slot is free; else what the kernel says. The connection is closed.
    pub(crate) fn take(&mut self, uring: &IoUring, accepted: RawFd) -> Result<Slot, Errno> {
        // SAFETY: the kernel has made it for this accept, and nobody else knows of it.
        let socket = unsafe { OwnedFd::from_raw_fd(accepted) };
        let slot = self.free.pop().ok_or(Errno(libc::ENFILE))?;
        match uring.submitter().register_files_update(slot, &[accepted]) {
            Ok(_) => {
                self.sockets[slot as usize] = Some(socket);
                Ok(Slot(slot))
            }
            Err(error) => {
                self.free.push(slot);
                Err(Errno(error.raw_os_error().unwrap_or(libc::EIO)))
            }
        }
    }

    /// Closes the slot's socket and frees the slot; `EBADF`, positive, if it has none.
    pub(crate) fn close(&mut self, uring: &IoUring, slot: Slot) -> Result<(), Errno> {
        let kept = self.sockets.get_mut(slot.0 as usize).and_then(Option::take);
        let socket = kept.ok_or(Errno(libc::EBADF))?;
        // The table may hold the socket a second longer. ENOTCONN: the peer was first.
        let _ = SockRef::from(&socket).shutdown(Shutdown::Both);
        drop(socket);
        // It can only fail for a slot that the table does not have.
        let emptied = uring.submitter().register_files_update(slot.0, &[-1]);
        self.free.push(slot.0);
        emptied.map(drop).map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))
    }

    /// Ends whatever waits for a socket.
    pub(crate) fn shut_down_all(&self) {
        for socket in self.sockets.iter().flatten() {
            let _ = SockRef::from(socket).shutdown(Shutdown::Both);
        }
    }
}
