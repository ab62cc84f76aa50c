//! Making client sockets: addresses, options, and the process's limit on descriptors.
//!
//! Knows: socket calls. Must not know: rings, connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::ring::bind_address_no_port;

/// Which address connections come from.
#[derive(Clone, Debug)]
pub(crate) enum Sources {
    /// Whatever the kernel chooses.
    Any,
    /// These in turn.
    Given(Vec<IpAddr>),
    /// Loopback: a new address of 127.0.0.0/8 for each [`PER_SOURCE`] connections, so that a pair
    /// of addresses never runs out of its 28,000 ports.
    Loopback,
}

impl Sources {
    /// The source of the connection with this number.
    pub(crate) fn of(&self, number: u32) -> Option<IpAddr> {
        match self {
            Self::Any => None,
            Self::Given(addresses) => {
                addresses.get(number as usize % addresses.len().max(1)).copied()
            }
            Self::Loopback => {
                let group = number / PER_SOURCE;
                let [_, b, c, d] = group.to_be_bytes();
                // From 127.1.0.0 on, apart from what other programs bind near 127.0.0.1.
                Some(IpAddr::V4(Ipv4Addr::new(127, b.wrapping_add(1), c, d)))
            }
        }
    }
}

/// Why a socket could not be opened.
#[derive(Debug, Error)]
pub(crate) enum SocketError {
    /// The source address is not ours.
    #[error("binding to the source address {source_ip}: {error}")]
    Bind { source_ip: IpAddr, error: io::Error },
    /// Refused, or unreachable.
    #[error("connecting to {target}: {error}")]
    Connect { target: SocketAddr, error: io::Error },
    /// No socket.
    #[error("opening a socket: {0}")]
    Open(io::Error),
}

/// Opens a socket and begins to connect it to `target`; it need not be connected yet.
///
/// # Errors
/// See [`SocketError`]; a refusal of a remote peer shows at the first send instead.
pub(crate) fn open(
    target: SocketAddr,
    source: Option<IpAddr>,
    receive_buffer_bytes: Option<usize>,
    segment_bytes: Option<u32>,
) -> Result<OwnedFd, SocketError> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))
        .map_err(SocketError::Open)?;
    socket.set_tcp_nodelay(true).map_err(SocketError::Open)?;
    if let Some(bytes) = receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes).map_err(SocketError::Open)?;
    }
    if let Some(bytes) = segment_bytes {
        socket.set_tcp_mss(bytes).map_err(SocketError::Open)?;
    }
    if let Some(source_ip) = source {
        let bind = |error| SocketError::Bind { source_ip, error };
        bind_address_no_port(socket.as_fd()).map_err(bind)?;
        socket.bind(&SocketAddr::new(source_ip, 0).into()).map_err(bind)?;
    }
    match socket.connect(&target.into()) {
        Ok(()) => Ok(socket.into()),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket.into()),
        Err(error) => Err(SocketError::Connect { target, error }),
    }
}

/// Waits until a socket from [`open`] is connected, at most [`CONNECT_TIME_MAX`].
///
/// # Errors
/// Why it is not.
pub(crate) fn wait_connected(socket: &OwnedFd) -> io::Result<()> {
    let timeout = Timespec { tv_sec: CONNECT_TIME_MAX.as_secs() as i64, tv_nsec: 0 };
    let mut polled = [PollFd::new(socket, PollFlags::OUT)];
    if poll(&mut polled, Some(&timeout))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    socket2::SockRef::from(socket).take_error()?.map_or(Ok(()), Err)
}

/// What the kernel keeps of received data at most, bytes (it doubles what is asked for, see
/// socket(7)); 0 if it will not say.
pub(crate) fn receive_buffer_bytes(socket: &OwnedFd) -> u64 {
    socket2::SockRef::from(socket).recv_buffer_size().map_or(0, |bytes| bytes as u64)
}

/// Fixes what the kernel keeps of data to be sent at most, bytes (it doubles that).
///
/// # Errors
/// What setsockopt says.
pub(crate) fn set_send_buffer(socket: &OwnedFd, bytes: usize) -> Result<(), SocketError> {
    socket2::SockRef::from(socket).set_send_buffer_size(bytes).map_err(SocketError::Open)
}

/// Raises the soft limit on descriptors to the hard one; a ring's table of files may not be larger
/// than it. Returns the limit.
pub(crate) fn file_limit_raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.unwrap_or(FILES_MAX)
}

/// As for the answer to an upgrade.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections per source address.
pub(crate) const PER_SOURCE: u32 = 1000;
/// A ring's table of files is never larger (io_uring's own bound is 2^20).
const FILES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_spread_over_loopback_without_repeating_early() {
        let first = Sources::Loopback.of(0);
        assert_eq!(first, Sources::Loopback.of(PER_SOURCE - 1));
        let groups: std::collections::HashSet<_> =
            (0..1000).map(|group| Sources::Loopback.of(group * PER_SOURCE)).collect();
        assert_eq!(groups.len(), 1000);
        assert!(groups.iter().all(|ip| ip.is_some_and(|ip| ip.is_loopback())));
    }
}
