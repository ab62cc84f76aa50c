//! Listeners and their accepts in flight.
//!
//! Knows: one-shot accepts into slots the kernel chooses, or of descriptors that get a slot, each with
//! memory for the peer's address (multishot accept has none to give, and rights need it). Must not
//! know: what becomes of a connection.

use std::{
    cell::UnsafeCell,
    mem,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use io_uring::{opcode, types};
use socket2::{SockAddr, SockAddrStorage};

use crate::{
    error::Errno,
    io::{AcceptFailure, Completion, ListenerId, Slot},
    queue::Queues,
    sockets::Sockets,
    tag::{Kind, Tag},
};

/// One listening socket.
pub(crate) struct Listener {
    id: ListenerId,
    /// Closed when the last accept has ended after a stop.
    socket: Option<OwnedFd>,
    state: State,
    accepts: Box<[Accept]>,
    /// Accepts the kernel has; their addresses are its to write.
    armed: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Accepting,
    /// Something is out; accepts that end are not armed again.
    Paused,
    Stopping,
    Stopped,
}

/// Memory of one accept.
struct Accept {
    armed: bool,
    address: Box<Address>,
}

struct Address {
    storage: UnsafeCell<SockAddrStorage>,
    bytes: UnsafeCell<libc::socklen_t>,
}

impl Listener {
    pub(crate) fn new(id: ListenerId, socket: OwnedFd, accepts: u16) -> Self {
        let accept = || Accept {
            armed: false,
            address: Box::new(Address {
                storage: UnsafeCell::new(SockAddrStorage::zeroed()),
                bytes: UnsafeCell::new(0),
            }),
        };
        let accepts = (0..accepts).map(|_| accept()).collect();
        Self { id, socket: Some(socket), state: State::Accepting, accepts, armed: 0 }
    }

    pub(crate) fn armed(&self) -> usize {
        self.armed
    }

    /// Arms each accept that is not.
    pub(crate) fn resume(&mut self, queues: &mut Queues, sockets: &Sockets) {
        if !matches!(self.state, State::Accepting | State::Paused) {
            return;
        }
        self.state = State::Accepting;
        for index in 0..self.accepts.len() {
            self.arm(index, queues, sockets);
        }
    }

    /// Cancels all, for good.
    pub(crate) fn stop(&mut self, queues: &mut Queues) -> Option<AcceptFailure> {
        if matches!(self.state, State::Stopping | State::Stopped) {
            return None;
        }
        self.state = State::Stopping;
        self.cancel(queues);
        self.stopped()
    }

    /// What became of accept `index`.
    pub(crate) fn complete<B>(
        &mut self,
        index: usize,
        result: i32,
        queues: &mut Queues,
        sockets: &mut Sockets,
        out: &mut Vec<Completion<B>>,
    ) {
        let listener = self.id;
        let Some(accept) = self.accepts.get_mut(index).filter(|accept| accept.armed) else {
            return;
        };
        accept.armed = false;
        self.armed -= 1;
        let accepted = match (u32::try_from(result), &mut *sockets) {
            (Ok(slot), Sockets::Direct) => Ok(Slot(slot)),
            (Ok(_), Sockets::Kept(kept)) => kept.take(&queues.uring, result),
            (Err(_), _) => Err(Errno(-result)),
        };
        match accepted {
            Ok(slot) => {
                let peer = accept.address.peer();
                out.push(Completion::Accepted { listener, slot, peer });
            }
            Err(errno) => {
                if let Some(failure) = self.failure(errno) {
                    queues.counters.accepts_failed += 1;
                    out.push(Completion::AcceptFailed { listener, failure });
                    if failure.pauses() && self.state == State::Accepting {
                        self.state = State::Paused;
                        // The others would take connections from the backlog only to lose them. They
                        // are cancelled now: where task work does not wait for the next enter they
                        // would go on until then. What it can't take now goes with the next.
                        self.cancel(queues);
                        let _ = queues.enter(0, false, None);
                    }
                }
            }
        }
        if self.state == State::Accepting {
            self.arm(index, queues, sockets);
        }
        if let Some(failure) = self.stopped() {
            out.push(Completion::AcceptFailed { listener, failure });
        }
    }

    fn failure(&self, errno: Errno) -> Option<AcceptFailure> {
        match errno.0 {
            // Our own cancelling, told once when all have ended; 5.10 says EINTR.
            libc::ECANCELED | libc::EINTR => None,
            // accept(2): "treat them like EAGAIN by retrying"; EPERM is a firewall's.
            libc::ECONNABORTED
            | libc::ECONNRESET
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::ENONET
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::EPERM
            | libc::EPROTO
            | libc::ETIMEDOUT
            | libc::EAGAIN => Some(AcceptFailure::Peer(errno)),
            libc::ENFILE => Some(AcceptFailure::TableFull),
            // EMFILE, ENOBUFS, ENOMEM; and what a socket that does not listen gives.
            _ => Some(AcceptFailure::System(errno)),
        }
    }

    fn stopped(&mut self) -> Option<AcceptFailure> {
        if self.state != State::Stopping || self.armed > 0 {
            return None;
        }
        self.state = State::Stopped;
        // Now, so that the kernel gives what is in the backlog a reset and not a wait.
        self.socket = None;
        Some(AcceptFailure::Stopped)
    }

    fn cancel(&self, queues: &mut Queues) {
        for (index, _) in self.accepts.iter().enumerate().filter(|(_, accept)| accept.armed) {
            let entry = opcode::AsyncCancel::new(self.tag(index).bits())
                .build()
                .flags(queues.quiet())
                .user_data(Tag::index(Kind::Ignored, 0).bits());
            // SAFETY: points to nothing.
            unsafe { queues.push(entry) };
        }
    }

    fn arm(&mut self, index: usize, queues: &mut Queues, sockets: &Sockets) {
        let tag = self.tag(index);
        let (Some(socket), accept) = (&self.socket, &mut self.accepts[index]) else { return };
        if accept.armed {
            return;
        }
        accept.armed = true;
        self.armed += 1;
        let (address, bytes) = accept.address.lend();
        let accept = opcode::Accept::new(types::Fd(socket.as_raw_fd()), address, bytes);
        let accept = match sockets {
            Sockets::Direct => accept.file_index(Some(types::DestinationSlot::auto_target())),
            Sockets::Kept(_) => accept.flags(libc::SOCK_CLOEXEC),
        };
        let entry = accept.build().user_data(tag.bits());
        // SAFETY: the address is boxed, and who drops the ring waits for each armed accept to end or
        // leaks its listener; until then nobody else touches it.
        unsafe { queues.push(entry) };
    }

    fn tag(&self, index: usize) -> Tag {
        Tag::index(Kind::Accept, u32::from(self.id.0) << 16 | index as u32)
    }
}

impl Address {
    /// For the kernel, which writes there until the accept completes.
    fn lend(&self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        // SAFETY: not lent now, so nobody else looks.
        unsafe { self.bytes.get().write(size_of::<SockAddrStorage>() as libc::socklen_t) };
        (self.storage.get().cast(), self.bytes.get())
    }

    /// What the kernel wrote. Unspecified if it is no address of IP.
    fn peer(&mut self) -> SocketAddr {
        let storage = mem::replace(self.storage.get_mut(), SockAddrStorage::zeroed());
        let bytes = *self.bytes.get_mut();
        // SAFETY: zeroed, then written by the kernel, which says how far.
        let address = unsafe { SockAddr::new(storage, bytes) };
        address.as_socket().unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into())
    }
}

impl AcceptFailure {
    /// Whether the ring waits for `resume_accepts` after it.
    fn pauses(self) -> bool {
        matches!(self, Self::TableFull | Self::System(_))
    }
}
