//! Ways to receive: a poll and then a receive, a receive that stays armed, one that fills several buffers.
//!
//! Knows: what each takes for the same bytes. Must not know: what is in them.
//!
//! The clients write first, untimed; then the ring is asked until all has come. So nothing sleeps, and a
//! cost is that of what was there already.

use std::{error::Error, time::Duration};

use uringcast_benches::clock::thread_cpu_ns;
use uringcast_ring::{
    Buffer, Completion, Io as _, Operation, ReceiveEnd, Ring, RingOptions, Slot,
    experiments::Experiments,
};

use crate::{
    sockets::{Sockets, disarm, token},
    turns::{Report, Sample, Turns},
};

pub(crate) fn run(report: &mut Report, sockets: &Sockets) -> Result<(), Box<dyn Error>> {
    let many = sockets.count().min(CONNECTIONS);
    for (connections, messages) in [(many, 1), (16, 16), (16, 64), (1, 256)] {
        let name = format!(
            "receive: {messages} messages of {MESSAGE_BYTES} B from each of {connections}, per message"
        );
        if !report.wants(&name) {
            continue;
        }
        let mut turns = Turns::new(name, &["ns"]);
        for (label, way, experiments) in ways() {
            let options =
                RingOptions { experiments, receive_buffers: BUFFERS, ..Default::default() };
            let ring = sockets.ring(connections, options)?;
            let mut receiver = Receiver { ring, way, out: Vec::new() };
            // Until all buffers have memory: the kernel finds that as it first writes to them.
            for _ in 0..WARM_UP {
                receiver.sample(sockets, connections, messages)?;
            }
            turns = turns.case(label, move || receiver.sample(sockets, connections, messages));
        }
        report.run(turns)?;
    }
    Ok(())
}

fn ways() -> [(&'static str, Way, Experiments); 4] {
    let plain = Experiments::default();
    [
        ("poll, then receive", Way::PollThenReceive, plain.clone()),
        ("multishot receive", Way::Multishot, plain.clone()),
        ("multishot, bundles", Way::Multishot, Experiments { bundles: true, ..plain.clone() }),
        ("multishot, huge pages", Way::Multishot, Experiments { huge_pages: true, ..plain }),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    PollThenReceive,
    Multishot,
}

impl Way {
    /// What stays armed.
    pub(crate) fn operation(self) -> Operation {
        match self {
            Self::PollThenReceive => Operation::PollReadable,
            Self::Multishot => Operation::Receive,
        }
    }
}

/// One ring and how it receives.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) ring: Ring,
    pub(crate) way: Way,
    pub(crate) out: Vec<Completion<Buffer>>,
}

impl Receiver {
    /// Arms the first `connections`.
    pub(crate) fn arm(&mut self, connections: usize) -> Result<(), Box<dyn Error>> {
        for index in 0..connections {
            self.arm_one(index);
        }
        self.ring.wait(Some(Duration::ZERO), &mut self.out)?;
        match self.out.is_empty() {
            true => Ok(()),
            false => Err(format!("nobody has written yet: {:?}", self.out).into()),
        }
    }

    fn arm_one(&mut self, index: usize) {
        match self.way {
            Way::PollThenReceive => self.ring.poll_readable(Slot(index as u32), token(index)),
            Way::Multishot => self.ring.receive_multishot(Slot(index as u32), token(index)),
        }
    }

    fn sample(&mut self, sockets: &Sockets, connections: usize, messages: usize) -> Sample {
        self.arm(connections)?;
        let message = [b'x'; MESSAGE_BYTES];
        let passes = MESSAGES.div_ceil(connections * messages);
        let mut spent_ns = 0;
        for _ in 0..passes {
            for _ in 0..messages {
                for client in 0..connections {
                    sockets.write(client, &message)?;
                }
            }
            let start_ns = thread_cpu_ns();
            self.receive(connections * messages * MESSAGE_BYTES)?;
            spent_ns += thread_cpu_ns() - start_ns;
        }
        disarm(&mut self.ring, connections, self.way.operation())?;
        Ok(vec![spent_ns as f64 / (passes * connections * messages) as f64])
    }

    /// Until so many bytes have come.
    pub(crate) fn receive(&mut self, bytes: usize) -> Result<(), Box<dyn Error>> {
        let (mut left, mut out) = (bytes, std::mem::take(&mut self.out));
        while left > 0 {
            self.ring.wait(None, &mut out)?;
            for completion in out.drain(..) {
                match completion {
                    Completion::Readable { token, hung_up: false } => {
                        // As the server does: the next poll comes behind the receive, and sees what
                        // that has left.
                        self.ring.receive(Slot(token.index), token);
                        self.arm_one(token.index as usize);
                    }
                    Completion::Received { token, data, armed } => {
                        left = left.checked_sub(data.len()).ok_or("more came than was written")?;
                        if !armed && self.way == Way::Multishot {
                            self.arm_one(token.index as usize);
                        }
                    }
                    Completion::ReceiveEnded { end: ReceiveEnd::Again, .. }
                        if self.way == Way::PollThenReceive => {}
                    Completion::ReceiveEnded { token, end: ReceiveEnd::NoBuffers } => {
                        match self.way {
                            Way::PollThenReceive => self.ring.receive(Slot(token.index), token),
                            Way::Multishot => self.arm_one(token.index as usize),
                        }
                    }
                    other => return Err(format!("{other:?}").into()),
                }
            }
        }
        self.out = out;
        Ok(())
    }
}

const CONNECTIONS: usize = 2_000;
/// One for each of them, and more.
const BUFFERS: u16 = 4_096;
/// A masked message of 128 B.
const MESSAGE_BYTES: usize = 136;
/// Received in a sample, at least.
const MESSAGES: usize = 4_000;
/// Samples in which each buffer is filled once at least.
const WARM_UP: usize = 16;
