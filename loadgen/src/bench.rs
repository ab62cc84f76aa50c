//! For benches: the receive path without the kernel, and the kernel without the receive path.
//!
//! Knows: both halves. Must not know: what is made of the figures.

use std::error::Error;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use uringcast_protocol::Opcode;
use uringcast_protocol::writer::write_message;

use crate::client::{Client, State};
use crate::clock::now_ns;
use crate::driver::{Discarded, Means, Ring, Sizes, SocketId};
use crate::inflate::Inflater;
use crate::interest::Interest;
use crate::judge::{Identify, Judge};
use crate::plan::Role;
use crate::spread::Spread;
use crate::stamp::{DIGITS_OFFSET, Finder, Stamp, template};
use crate::verify::{Ledger, StreamKind, Streams};
use crate::worker::{RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS, feed};

/// Frames of `count` stamped messages of `payload_bytes` each, numbered on from `first`, as a
/// server sends them; all were sent just now.
pub fn messages(first: u64, count: u64, payload_bytes: usize) -> Vec<u8> {
    let mut payload = template(payload_bytes);
    let mut frames = Vec::new();
    let sent_ns = now_ns();
    for number in first..first + count {
        let stamp = Stamp { stream: 0, number, intended_ns: sent_ns, sent_ns };
        stamp.write(&mut payload[DIGITS_OFFSET..]);
        write_message(&mut frames, Opcode::Text, &payload, None);
    }
    frames
}

/// One subscriber's receive path: frames, stamps, order, both histograms.
pub struct Subscriber {
    client: Client,
    judge: Judge,
    inflater: Inflater,
}

impl Subscriber {
    /// Expects messages of `payload_bytes`, about `count` of them, numbered on from 0.
    pub fn new(payload_bytes: usize, count: u64) -> Self {
        let streams = Streams { names: vec!["bench".to_owned()], kinds: vec![StreamKind::Event] };
        let interests: Arc<[Interest]> = Arc::from([Interest::new(1, |_| true)]);
        let ledger = Ledger::new(Arc::new(streams), interests, [Some(0)].into_iter());
        let identify = Identify::Stamp(Finder::default());
        let mut judge = Judge::new(ledger, identify, Some(payload_bytes), Spread::new(count));
        judge.ledger.expect_all(0);
        let mut client = Client::new(Role::Subscriber { churns: false }, 0);
        client.state = State::Open;
        Self { client, judge, inflater: Inflater::new() }
    }

    /// Takes bytes as they came out of a socket. Returns how many messages there have been.
    ///
    /// # Errors
    /// They are no legal frames.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<u64, Box<dyn Error>> {
        let Self { client, judge, inflater } = self;
        feed(client, judge, inflater, 0, bytes, now_ns())?;
        Ok(judge.counts.messages)
    }

    /// The next message is number 0 again.
    pub fn restart(&mut self) {
        self.judge.ledger.expect_all(0);
    }

    /// Nothing was wrong so far.
    pub fn is_clean(&self) -> bool {
        self.judge.ledger.faults.is_clean()
    }
}

/// Sockets whose bytes are received as the load generator does, and thrown away.
pub struct Sink {
    ring: Ring,
    sum: Discarded,
}

impl Sink {
    /// To be called on the thread that calls [`Self::run`].
    ///
    /// # Errors
    /// No ring with armed receives here.
    pub fn new(sockets: Vec<OwnedFd>) -> Result<Self, Box<dyn Error>> {
        let means = Means::probe()?;
        if !means.multishot {
            return Err("no multishot receive here".into());
        }
        let sizes = Sizes {
            entries: 4096,
            slots: sockets.len() as u32,
            buffers: RECEIVE_BUFFERS,
            buffer_bytes: RECEIVE_BUFFER_BYTES,
        };
        let mut ring = Ring::new(&sizes, means)?;
        for (slot, socket) in (0..).zip(sockets) {
            ring.install(slot, socket)?;
            ring.receive(SocketId { slot, generation: 1 })?;
        }
        Ok(Self { ring, sum: Discarded::default() })
    }

    /// Receives for so long. Returns the bytes that came, and in how many completions.
    ///
    /// # Errors
    /// The kernel refuses to go on.
    pub fn run(&mut self, time_ns: u64) -> Result<(u64, u64), Box<dyn Error>> {
        let (end_ns, before) = (now_ns() + time_ns, self.sum);
        loop {
            let left_ns = end_ns.saturating_sub(now_ns());
            if left_ns == 0 {
                break;
            }
            self.ring.wait(left_ns)?;
            self.ring.discard(&mut self.sum)?;
        }
        Ok((self.sum.bytes - before.bytes, self.sum.receives - before.receives))
    }

    /// Sockets whose peers have ended them.
    pub fn ended(&self) -> u64 {
        self.sum.ended
    }
}
