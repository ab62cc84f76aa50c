//! Listening sockets with the options that what they accept inherits.
//!
//! Knows: socket options and why each. Must not know: rings.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Options of a listener.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Several sockets listen on one address, one per reactor (`SO_REUSEPORT`). Default `true`.
    pub reuse_port: bool,
    /// Connections waiting to be accepted, at most (and `net.core.somaxconn`). Default 4,096.
    pub backlog: u32,
    /// Send at once, however little (`TCP_NODELAY`). Default `true`.
    pub nodelay: bool,
    /// Bytes the kernel keeps for a connection that does not take them (`SO_SNDBUF`; the kernel
    /// doubles it for its own bookkeeping). `None`: grows to 4 MiB, stale for minutes. Default
    /// 256 KiB.
    pub send_buffer_bytes: Option<u32>,
    /// Bytes not yet sent above which a socket is not writable (`TCP_NOTSENT_LOWAT`): what waits
    /// there can't be replaced by something newer. Default 16 KiB.
    pub notsent_lowat_bytes: Option<u32>,
    /// A peer that acknowledges nothing for so long is gone (`TCP_USER_TIMEOUT`). Default 30 s.
    pub user_timeout_ms: Option<u32>,
    /// Idle time before the kernel asks whether the peer is there (`SO_KEEPALIVE`). Our own pings are
    /// finer. Default `None`.
    pub keepalive_s: Option<u32>,
}

/// Binds and listens. Port 0: the system's choice.
///
/// # Errors
/// What the system says.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last life's TIME_WAIT.
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` takes both kinds, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    // Before listen(2): the window's scale is settled by the handshake.
    inherit(SockRef::from(&socket), options)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn inherit(socket: SockRef<'_>, options: &ListenOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(options.nodelay)?;
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.notsent_lowat_bytes {
        socket.set_tcp_notsent_lowat(bytes)?;
    }
    if let Some(ms) = options.user_timeout_ms {
        socket.set_tcp_user_timeout(Some(Duration::from_millis(ms.into())))?;
    }
    if let Some(seconds) = options.keepalive_s {
        let idle = Duration::from_secs(seconds.into());
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    Ok(())
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            reuse_port: true,
            backlog: 4096,
            nodelay: true,
            send_buffer_bytes: Some(256 << 10),
            notsent_lowat_bytes: Some(16 << 10),
            user_timeout_ms: Some(30_000),
            keepalive_s: None,
        }
    }
}
