//! A whole shard on the null ring, with as many connections as a case wants: no socket bounds them.
//!
//! Knows: how a connection comes, speaks and is served. Must not know: what is published, or what is
//! measured.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use uringcast::{
    clock::{self, Now},
    mail::Mail,
    settings::Settings,
    shard::{DATA_LISTENER, PUBLISH_LISTENER, Parts, Shard},
    shared::Shared,
};
use uringcast_mesh::{Node, capacity_for, grid};
use uringcast_protocol::client_handshake::{Ask, write_request};
use uringcast_ring::{
    Completion, ListenerId, Slot, Token,
    pool::{Pool, PoolOptions},
};

use crate::null_ring::NullRing;

/// One shard and everything it speaks to.
#[derive(Debug)]
pub struct NullServer {
    shard: Shard<NullRing>,
    /// The control thread's end of the mesh, read so that it does not fill up.
    control: Node<Mail>,
    /// Time stands still unless it is told to [`Self::pass`]: nobody is pinged, nothing is late, and what
    /// is sent does not depend on how long it took.
    now: Now,
    /// Slots are given out in order and never again.
    slot_next: u32,
}

impl NullServer {
    /// Without connections, with room for so many.
    pub fn new(connections_max: u32) -> Self {
        let mut nodes = grid(2, capacity_for::<Mail>(2));
        let control = nodes.pop().expect("two nodes");
        let node = nodes.pop().expect("two nodes");
        let parts = Parts {
            io: NullRing::default(),
            pool: Pool::new(PoolOptions { bytes_max: 1 << 30, ..PoolOptions::default() }),
            node,
            settings: Arc::new(Settings { connections_max, ..Settings::default() }),
            shared: Arc::new(Shared::new(1, 7)),
            journal: None,
        };
        let now = clock::now();
        Self { shard: Shard::new(parts, now), control, now, slot_next: 0 }
    }

    /// A subscriber connects to the data port. Returns its slot.
    pub fn subscribe(&mut self, path: &str) -> u32 {
        self.connect(DATA_LISTENER, path);
        self.slot_next - 1
    }

    /// A publisher connects to the publish port. Returns whom [`Self::receive`] is to name.
    pub fn publisher(&mut self, path: &str) -> Token {
        self.connect(PUBLISH_LISTENER, path)
    }

    /// A client connects to the data port. Returns whom [`Self::receive`] is to name.
    pub fn client(&mut self, path: &str) -> Token {
        self.connect(DATA_LISTENER, path)
    }

    fn connect(&mut self, listener: ListenerId, path: &str) -> Token {
        let slot = Slot(self.slot_next);
        self.slot_next += 1;
        let peer = (Ipv4Addr::LOCALHOST, 40_000).into();
        let now = self.now;
        self.shard.complete(Completion::Accepted { listener, slot, peer }, now);
        let token = self.shard.io_mut().received.take().expect("a receive is asked for");
        let mut data = Vec::new();
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        write_request(&mut data, &Ask { path, host: "localhost", key, ..Ask::default() });
        self.shard.complete(Completion::Received { token, data, armed: false }, now);
        self.settle();
        token
    }

    /// A publisher's bytes have come.
    pub fn receive(&mut self, token: Token, data: Vec<u8>) {
        self.shard.complete(Completion::Received { token, data, armed: true }, self.now);
    }

    /// Time goes on; what is due is done in the next tick.
    pub fn pass(&mut self, by: Duration) {
        self.now.ns += by.as_nanos() as u64;
        self.now.utc_us += by.as_micros() as u64;
    }

    /// What the reactor does between two waits: at most one slice of sends.
    pub fn tick(&mut self) {
        self.shard.tick(self.now).expect("a null ring does not fail");
        self.control.receive(usize::MAX, |_, _| {});
    }

    /// As the reactor does, until the shard would sleep.
    pub fn settle(&mut self) {
        while self.shard.timeout() == Some(Duration::ZERO) {
            self.shard.tick(self.now).expect("a null ring does not fail");
        }
        self.tick();
    }

    /// What left the shard.
    pub fn ring(&mut self) -> &mut NullRing {
        self.shard.io_mut()
    }
}
