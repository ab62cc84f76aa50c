//! The front that both floors share.
//!
//! Knows: connections, the upgrade, who publishes and who subscribes. Must not know: how a
//! publication gets to the subscribers ([`Fanout`]), topics, and most of what a peer may do wrong:
//! who breaks the rules is closed.
//!
//! A request for a path that begins with `/pub` makes a publisher, any other a subscriber.

mod connection;
mod flags;
mod inflow;

use std::{error::Error, mem, time::Duration};

use uringcast_protocol::{
    Opcode,
    handshake::{Switching, parse, write_switching},
};
use uringcast_ring::{
    AcceptFailure, Buffer, Completion, Io, ListenerId, Operation, ReceiveEnd, Ring, Send,
    SendTrouble, Slot, Token, listen, pin,
};

use crate::floor::{
    connection::{Armed, Connection, Role},
    inflow::{Flow, Inflow},
};

pub use crate::floor::{flags::Flags, inflow::Masked};

/// How a publication gets to the subscribers.
pub trait Fanout {
    /// A subscriber joins; it gets what is published from now on.
    fn add(&mut self, slot: Slot);
    /// A subscriber has left; nothing may be sent to it any more.
    fn remove(&mut self, slot: Slot);
    /// A subscriber that was reported as blocked can be sent to again.
    fn writable(&mut self, slot: Slot);
    /// A frame came: its header as it is to be sent, and its payload.
    fn publish(&mut self, header: &[u8], payload: Masked<'_>);
    /// Sends one batch.
    ///
    /// # Errors
    /// What the ring cannot go on after.
    fn visit(&mut self, io: &mut Ring, outcome: &mut Outcome) -> Result<(), Box<dyn Error>>;
    /// There is something to send to somebody who is not blocked.
    fn is_behind(&self) -> bool;
    /// Publishers have to wait.
    fn is_full(&self) -> bool;
}

/// What a batch of sends found out.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Where the kernel puts the batch's troubles.
    pub troubles: Vec<SendTrouble>,
    /// Their sockets are full.
    pub blocked: Vec<Slot>,
    /// They are gone, or too far behind.
    pub dead: Vec<Slot>,
}

/// Serves until the ring fails.
///
/// # Errors
/// Whatever keeps it from starting or going on.
pub fn serve(flags: &Flags, fanout: impl Fanout) -> Result<(), Box<dyn Error>> {
    pin::raise_nofile_limit()?;
    if let Some(cpu) = flags.cpu {
        pin::pin_current_thread(cpu)?;
    }
    let mut io = Ring::new(flags.ring())?;
    let socket = listen::listen(flags.address(), &flags.listener())?;
    let address = socket.local_addr()?;
    io.add_listener(socket)?;
    println!("{}", io.describe());
    println!("listening on {address}");
    let mut floor = Floor {
        io,
        fanout,
        connections: Vec::new(),
        publishers: Vec::new(),
        publishers_held: false,
        accepts_held: None,
        outcome: Outcome::default(),
        answer: Vec::new(),
    };
    let mut completions = Vec::new();
    loop {
        let timeout = floor.fanout.is_behind().then_some(Duration::ZERO);
        floor.io.wait(timeout, &mut completions)?;
        for completion in completions.drain(..) {
            floor.complete(completion)?;
        }
        floor.visit()?;
    }
}

struct Floor<F> {
    io: Ring,
    fanout: F,
    /// By slot.
    connections: Vec<Connection>,
    publishers: Vec<Slot>,
    publishers_held: bool,
    /// Waits for a slot to be free again.
    accepts_held: Option<ListenerId>,
    outcome: Outcome,
    answer: Vec<u8>,
}

impl<F: Fanout> Floor<F> {
    fn visit(&mut self) -> Result<(), Box<dyn Error>> {
        self.fanout.visit(&mut self.io, &mut self.outcome)?;
        for slot in mem::take(&mut self.outcome.blocked) {
            let token = self.connections[index(slot)].arm(Armed::Writable, slot);
            self.io.poll_writable(slot, token);
        }
        for slot in mem::take(&mut self.outcome.dead) {
            self.close(slot);
        }
        if self.fanout.is_full() != self.publishers_held {
            self.publishers_held = !self.publishers_held;
            for at in 0..self.publishers.len() {
                let slot = self.publishers[at];
                if self.publishers_held {
                    let connection = &self.connections[index(slot)];
                    self.io.cancel(Operation::Receive, connection.token(slot));
                } else {
                    self.receive(slot);
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self, completion: Completion<Buffer>) -> Result<(), Box<dyn Error>> {
        match completion {
            Completion::Accepted { slot, .. } => self.accepted(slot),
            Completion::AcceptFailed { listener, failure } => match failure {
                AcceptFailure::Peer(_) | AcceptFailure::Stopped => {}
                AcceptFailure::TableFull => self.accepts_held = Some(listener),
                AcceptFailure::System(errno) => return Err(format!("accept: {errno}").into()),
            },
            Completion::Readable { token, .. } => {
                let slot = self.ended(Armed::Readable, token);
                if matches!(self.connections[index(slot)].role, Role::Head(_) | Role::Subscriber) {
                    // Behind the receive: before it, it would see the same bytes again.
                    self.receive(slot);
                    self.poll(slot);
                }
            }
            Completion::PollEnded { token } => {
                self.ended(Armed::Readable, token);
            }
            Completion::Received { token, data, armed } => {
                let slot = Slot(token.index);
                if !armed {
                    self.ended(Armed::Receive, token);
                }
                self.received(slot, &data)?;
                let more = data.len() == self.io.receive_buffer_bytes();
                // The buffer goes back before another is asked for.
                drop(data);
                if more || matches!(self.connections[index(slot)].role, Role::Publisher(_)) {
                    self.receive(slot);
                }
            }
            Completion::ReceiveEnded { token, end } => {
                let slot = self.ended(Armed::Receive, token);
                let publishes = matches!(self.connections[index(slot)].role, Role::Publisher(_));
                match end {
                    ReceiveEnd::Eof | ReceiveEnd::Dead(_) => self.close(slot),
                    ReceiveEnd::NoBuffers => self.receive(slot),
                    ReceiveEnd::Again | ReceiveEnd::Cancelled if publishes => self.receive(slot),
                    ReceiveEnd::Again | ReceiveEnd::Cancelled => {}
                }
            }
            Completion::Writable { token, cancelled } => {
                let slot = self.ended(Armed::Writable, token);
                if !cancelled && matches!(self.connections[index(slot)].role, Role::Subscriber) {
                    self.fanout.writable(slot);
                }
            }
            Completion::Closed { token } => {
                self.connections[token.index as usize].free();
                if let Some(listener) = self.accepts_held.take() {
                    self.io.resume_accepts(listener);
                }
            }
            Completion::Woken => {}
        }
        Ok(())
    }

    fn accepted(&mut self, slot: Slot) {
        if self.connections.len() <= index(slot) {
            self.connections.resize_with(index(slot) + 1, Connection::default);
        }
        self.connections[index(slot)].role = Role::Head(Vec::new());
        self.poll(slot);
    }

    fn received(&mut self, slot: Slot, data: &[u8]) -> Result<(), Box<dyn Error>> {
        match &mut self.connections[index(slot)].role {
            Role::Head(head) => {
                head.extend_from_slice(data);
                let head = mem::take(head);
                self.upgrade(slot, head)
            }
            Role::Subscriber => {
                // Its frames are short and come alone: Close is told by the first byte.
                if data[0] & 0x0F == Opcode::Close.bits() {
                    self.send(slot, CLOSE_FRAME)?;
                    self.close(slot);
                }
                Ok(())
            }
            Role::Publisher(_) => self.publish(slot, data),
            Role::Free | Role::Closing => Ok(()),
        }
    }

    fn upgrade(&mut self, slot: Slot, head: Vec<u8>) -> Result<(), Box<dyn Error>> {
        self.answer.clear();
        let upgraded = match parse(&head) {
            Ok(None) => {
                self.connections[index(slot)].role = Role::Head(head);
                return Ok(());
            }
            Ok(Some(request)) => request.upgrade().map(|upgrade| {
                write_switching(&mut self.answer, &Switching::new(upgrade.key));
                (request.path.starts_with("/pub"), request.head_bytes)
            }),
            Err(refusal) => Err(refusal),
        };
        let (publishes, head_bytes) = match upgraded {
            Ok(upgraded) => upgraded,
            Err(refusal) => {
                refusal.respond(&mut self.answer);
                self.send_answer(slot)?;
                self.close(slot);
                return Ok(());
            }
        };
        self.send_answer(slot)?;
        let connection = &mut self.connections[index(slot)];
        if matches!(connection.role, Role::Closing) {
            return Ok(());
        }
        if !publishes {
            connection.role = Role::Subscriber;
            self.fanout.add(slot);
            return Ok(());
        }
        connection.role = Role::Publisher(Inflow::default());
        // Its receive stays armed and tells the same.
        self.io.cancel(Operation::PollReadable, connection.token(slot));
        self.publishers.push(slot);
        self.receive(slot);
        self.publish(slot, &head[head_bytes..])
    }

    fn publish(&mut self, slot: Slot, data: &[u8]) -> Result<(), Box<dyn Error>> {
        let Role::Publisher(inflow) = &mut self.connections[index(slot)].role else {
            return Ok(());
        };
        let flow = inflow.take(data, |header, payload| self.fanout.publish(header, payload));
        match flow {
            Ok(Flow::Open) => {}
            Ok(Flow::Closed) => {
                self.send(slot, CLOSE_FRAME)?;
                self.close(slot);
            }
            Err(offence) => {
                eprintln!("publisher closed: {offence}");
                self.close(slot);
            }
        }
        Ok(())
    }

    /// Sends something short and rare; who does not take it is closed.
    fn send(&mut self, slot: Slot, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        self.io.send(&[Send { slot, bytes }], &mut self.outcome.troubles)?;
        if !self.outcome.troubles.is_empty() {
            self.close(slot);
        }
        Ok(())
    }

    fn send_answer(&mut self, slot: Slot) -> Result<(), Box<dyn Error>> {
        let answer = mem::take(&mut self.answer);
        let sent = self.send(slot, &answer);
        self.answer = answer;
        sent
    }

    fn poll(&mut self, slot: Slot) {
        let token = self.connections[index(slot)].arm(Armed::Readable, slot);
        self.io.poll_readable(slot, token);
    }

    /// Arms a receive as the connection's role wants it, unless one is armed or it has to wait.
    fn receive(&mut self, slot: Slot) {
        let connection = &mut self.connections[index(slot)];
        if connection.is_armed(Armed::Receive) {
            return;
        }
        match connection.role {
            Role::Publisher(_) if self.publishers_held => {}
            Role::Publisher(_) => {
                let token = connection.arm(Armed::Receive, slot);
                self.io.receive_multishot(slot, token);
            }
            Role::Head(_) | Role::Subscriber => {
                let token = connection.arm(Armed::Receive, slot);
                self.io.receive(slot, token);
            }
            Role::Free | Role::Closing => {}
        }
    }

    /// An operation has ended; the last one of a connection that is closing lets its slot go.
    fn ended(&mut self, armed: Armed, token: Token) -> Slot {
        let slot = Slot(token.index);
        let connection = &mut self.connections[index(slot)];
        connection.disarm(armed);
        if matches!(connection.role, Role::Closing) && connection.is_quiet() {
            self.io.close(slot, token);
        }
        slot
    }

    fn close(&mut self, slot: Slot) {
        let connection = &mut self.connections[index(slot)];
        match mem::replace(&mut connection.role, Role::Closing) {
            Role::Free | Role::Closing => return,
            Role::Head(_) => {}
            Role::Subscriber => self.fanout.remove(slot),
            Role::Publisher(_) => self.publishers.retain(|&publisher| publisher != slot),
        }
        let token = connection.token(slot);
        if connection.is_quiet() {
            self.io.close(slot, token);
            return;
        }
        for (armed, operation) in [
            (Armed::Readable, Operation::PollReadable),
            (Armed::Writable, Operation::PollWritable),
            (Armed::Receive, Operation::Receive),
        ] {
            if connection.is_armed(armed) {
                self.io.cancel(operation, token);
            }
        }
    }
}

/// Slots are given out from 0, so they serve as indices.
const fn index(slot: Slot) -> usize {
    slot.0 as usize
}

/// Close with 1000.
const CLOSE_FRAME: &[u8] = &[0x88, 2, 0x03, 0xE8];
