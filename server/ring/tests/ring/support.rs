//! A ring and its clients on loopback.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use uringcast_ring::{
    Buffer, Io, ListenerId, Operation, Ring, RingOptions, Send, SendOutcome, SendTrouble, Slot,
    Token,
    listen::{ListenOptions, listen},
};

pub(crate) use uringcast_ring::Completion as Told;

/// A ring that listens on a loopback port.
pub(crate) struct Server {
    pub(crate) ring: Ring,
    pub(crate) listener: ListenerId,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn new(options: RingOptions) -> Self {
        // Small enough that a client that does not read is full after some 100 KiB.
        let small = ListenOptions { send_buffer_bytes: Some(16 << 10), ..Default::default() };
        let mut ring = Ring::new(options).expect("the machine that tests has io_uring");
        let socket = listen("127.0.0.1:0".parse().unwrap(), &small).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = ring.add_listener(socket).unwrap();
        Self { ring, listener, address }
    }

    /// A connection from both sides.
    pub(crate) fn connect(&mut self) -> (Slot, TcpStream) {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // A window that does not grow while a test thinks the connection is full.
        client.set_recv_buffer_size(32 << 10).unwrap();
        client.connect(&self.address.into()).unwrap();
        let client = TcpStream::from(client);
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        match self.one() {
            Told::Accepted { slot, .. } => (slot, client),
            other => panic!("not accepted but {other:?}"),
        }
    }

    /// The next completions, at least `count`.
    pub(crate) fn told(&mut self, count: usize) -> Vec<Told<Buffer>> {
        let mut out = Vec::new();
        for _ in 0..100 {
            self.ring.wait(Some(Duration::from_millis(50)), &mut out).unwrap();
            if out.len() >= count {
                return out;
            }
        }
        panic!("{count} completions expected within 5 s, got {out:?}");
    }

    /// The next completion, which must come alone.
    pub(crate) fn one(&mut self) -> Told<Buffer> {
        let mut out = self.told(1);
        let last = out.pop().unwrap();
        assert!(out.is_empty(), "{out:?} before {last:?}");
        last
    }

    /// Sends what `bytes` begins with until the connection takes no more and says that it is not
    /// writable; how much it took.
    pub(crate) fn fill(&mut self, slot: Slot, bytes: &[u8]) -> usize {
        let (mut taken, mut troubles) = (0, Vec::new());
        for _ in 0..100 {
            self.ring.send(&[Send { slot, bytes: &bytes[taken..] }], &mut troubles).unwrap();
            match troubles[..] {
                [SendTrouble { index: 0, outcome: SendOutcome::Short(more) }] => {
                    assert!(more > 0 && (more as usize) < bytes.len() - taken);
                    taken += more as usize;
                }
                [SendTrouble { index: 0, outcome: SendOutcome::Full }] => {
                    // The peer's kernel may still acknowledge.
                    self.ring.poll_writable(slot, token(0xffff));
                    let mut out = Vec::new();
                    self.ring.wait(Some(Duration::from_millis(300)), &mut out).unwrap();
                    self.ring.cancel(Operation::PollWritable, token(0xffff));
                    while out.is_empty() {
                        self.ring.wait(Some(Duration::from_secs(5)), &mut out).unwrap();
                    }
                    assert_eq!(out.len(), 1, "{out:?}");
                    if matches!(out[..], [Told::Writable { cancelled: true, .. }]) {
                        return taken;
                    }
                }
                ref other => panic!("{other:?}"),
            }
        }
        panic!("it takes and takes: {taken} bytes");
    }

    /// Whether the ring uses that feature.
    pub(crate) fn has(&self, feature: &str) -> bool {
        has(&self.ring, feature)
    }

    /// The poll for input sees some, and is armed again.
    pub(crate) fn readable(&mut self, slot: Slot, token: Token) {
        match self.one() {
            Told::Readable { token: seen, .. } => {
                assert_eq!(seen, token);
                self.ring.poll_readable(slot, token);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Nothing happens for a while.
    pub(crate) fn silent(&mut self) {
        let mut out = Vec::new();
        for _ in 0..3 {
            self.ring.wait(Some(Duration::from_millis(20)), &mut out).unwrap();
        }
        assert!(out.is_empty(), "{out:?}");
    }
}

pub(crate) fn token(index: u32) -> Token {
    Token { index, generation: index + 1000 }
}

/// Closes with RST instead of FIN.
pub(crate) fn reset(client: TcpStream) {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Whether a ring uses that feature.
pub(crate) fn has(ring: &Ring, feature: &str) -> bool {
    let mut features = ring.describe().capabilities.features();
    features.find(|one| one.name == feature).expect("a feature of that name").there
}

/// With the tier that is tested.
pub(crate) fn options() -> RingOptions {
    RingOptions { tier: crate::TIER, ..RingOptions::default() }
}
