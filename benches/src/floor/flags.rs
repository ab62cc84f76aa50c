//! What a floor can be told, with the server's own defaults.
//!
//! Knows: flags. Must not know: what is done with them.

use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;
use uringcast_ring::{RingOptions, listen::ListenOptions};

/// Flags of both floors.
#[derive(Clone, Debug, Args)]
pub struct Flags {
    /// The port on 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 9101)]
    pub port: u16,
    /// Keeps the thread on this CPU.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Connections at most.
    #[arg(long, default_value_t = 16_384)]
    pub connections_max: u32,
    /// Sends without waiting for more (TCP_NODELAY).
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub nodelay: bool,
    /// SO_SNDBUF of each connection, bytes; 0 leaves it to the kernel.
    #[arg(long, default_value_t = 256 << 10)]
    pub send_buffer: u32,
    /// TCP_NOTSENT_LOWAT of each connection, bytes; 0 leaves it to the kernel.
    #[arg(long, default_value_t = 16 << 10)]
    pub notsent_lowat: u32,
}

impl Flags {
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn listener(&self) -> ListenOptions {
        let unless_zero = |bytes| (bytes != 0).then_some(bytes);
        ListenOptions {
            nodelay: self.nodelay,
            send_buffer_bytes: unless_zero(self.send_buffer),
            notsent_lowat_bytes: unless_zero(self.notsent_lowat),
            ..ListenOptions::default()
        }
    }

    pub(crate) fn ring(&self) -> RingOptions {
        RingOptions { slots: self.connections_max, ..RingOptions::default() }
    }
}
