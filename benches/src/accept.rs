//! The least that taking a WebSocket connection can cost: accept, find the key, answer, hold.
//!
//! Knows: the key of a request, pings and Close. Must not know: paths, limits, timeouts, or what a
//! request may not say: who sends no key is closed, and everything else is believed.
//!
//! The answers of a tick go out as one batch. A connection that is open has an armed poll and nothing
//! else, as the server's idle ones have; [`Held`] has what else could be.

mod turns;

use std::{collections::HashMap, error::Error, mem, ops::Range, time::Duration};

use clap::ValueEnum;
use uringcast_protocol::{
    Header, Opcode,
    handshake::{Switching, write_switching},
    mask::mask_in_place,
    writer::{write_frame, write_ping},
};
use uringcast_ring::{
    AcceptFailure, Buffer, Completion, Io, ListenerId, Operation, ReceiveEnd, Ring, Send,
    SendTrouble, Slot, Token, listen, pin,
};

use self::turns::Turns;
use crate::floor::Flags;

/// How a request is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum First {
    /// A receive that waits, as the server has it.
    Wait,
    /// A poll, and a receive when it has ended.
    Poll,
    /// A receive at once, and a poll where the request is not there yet.
    Look,
}

/// How an open connection waits for what its client may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Held {
    /// A poll, and a receive when it has ended, as the server has it.
    Poll,
    /// A receive that waits.
    Wait,
    /// A receive that stays armed.
    Multishot,
}

/// Serves until the ring fails. Each connection is sent a Ping once in `ping_interval`, if there is one.
///
/// # Errors
/// Whatever keeps it from starting or going on.
pub fn serve(
    flags: &Flags,
    first: First,
    held: Held,
    ping_interval: Option<Duration>,
) -> Result<(), Box<dyn Error>> {
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
    let mut front = Front {
        io,
        first,
        held,
        connections: Vec::new(),
        heads: HashMap::new(),
        answers: Vec::new(),
        whose: Vec::new(),
        troubles: Vec::new(),
        accepts_held: None,
    };
    let mut turns = ping_interval.map(Turns::new);
    let mut completions = Vec::new();
    loop {
        front.io.wait(turns.as_ref().map(Turns::until_next), &mut completions)?;
        for completion in completions.drain(..) {
            front.complete(completion)?;
        }
        front.send_answers()?;
        if let Some(turns) = &mut turns {
            front.ping(turns)?;
        }
    }
}

struct Front {
    io: Ring,
    first: First,
    held: Held,
    /// By slot.
    connections: Vec<Connection>,
    /// By slot: heads that came in pieces.
    heads: HashMap<u32, Vec<u8>>,
    /// What is to be sent at the end of the tick, and to whom.
    answers: Vec<u8>,
    whose: Vec<(Slot, Range<usize>)>,
    troubles: Vec<SendTrouble>,
    accepts_held: Option<ListenerId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    phase: Phase,
    /// Rises when the slot is freed.
    generation: u32,
    polled: bool,
    receiving: bool,
    /// An answer of this tick waits to be sent.
    owed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nobody's slot.
    #[default]
    Free,
    Head,
    Open,
    /// Waits for its operations to end.
    Closing,
}

impl Front {
    fn complete(&mut self, completion: Completion<Buffer>) -> Result<(), Box<dyn Error>> {
        match completion {
            Completion::Accepted { slot, .. } => self.accepted(slot),
            Completion::AcceptFailed { listener, failure } => match failure {
                AcceptFailure::Peer(_) | AcceptFailure::Stopped => {}
                AcceptFailure::TableFull => self.accepts_held = Some(listener),
                AcceptFailure::System(errno) => return Err(format!("accept: {errno}").into()),
            },
            Completion::Readable { token, .. } => {
                self.of(token).polled = false;
                // It is polled again behind what the receive brings.
                self.receive(Slot(token.index));
                if !self.of(token).receiving {
                    self.go_on(token, false);
                }
            }
            Completion::PollEnded { token } => {
                self.of(token).polled = false;
                self.go_on(token, false);
            }
            Completion::Received { token, data, armed } => {
                self.received(Slot(token.index), &data);
                self.of(token).receiving = armed;
                // A full buffer may have left more.
                self.go_on(token, data.len() == self.io.receive_buffer_bytes());
            }
            Completion::ReceiveEnded { token, end } => {
                if matches!(end, ReceiveEnd::Eof | ReceiveEnd::Dead(_)) {
                    self.close(Slot(token.index));
                }
                self.of(token).receiving = false;
                self.go_on(token, end == ReceiveEnd::NoBuffers);
            }
            Completion::Closed { token } => {
                let generation = (token.generation + 1) & GENERATION_MASK;
                *self.of(token) = Connection { generation, ..Connection::default() };
                if let Some(listener) = self.accepts_held.take() {
                    self.io.resume_accepts(listener);
                }
            }
            Completion::Writable { .. } | Completion::Woken => {}
        }
        Ok(())
    }

    fn accepted(&mut self, slot: Slot) {
        let index = slot.0 as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, Connection::default);
        }
        self.connections[index].phase = Phase::Head;
        match self.first {
            First::Poll => self.poll(slot),
            First::Look => self.receive(slot),
            First::Wait => {
                let connection = &mut self.connections[index];
                connection.receiving = true;
                let token = Token { index: slot.0, generation: connection.generation };
                self.io.receive_when_readable(slot, token);
            }
        }
    }

    fn received(&mut self, slot: Slot, data: &[u8]) {
        match self.connections[slot.0 as usize].phase {
            Phase::Head => match self.heads.remove(&slot.0) {
                None => self.head(slot, data),
                Some(mut head) => {
                    head.extend_from_slice(data);
                    self.head(slot, &head);
                }
            },
            Phase::Open => self.frames(slot, data),
            Phase::Free | Phase::Closing => {}
        }
    }

    fn head(&mut self, slot: Slot, head: &[u8]) {
        if !head.ends_with(b"\r\n\r\n") {
            self.heads.insert(slot.0, head.to_vec());
            return;
        }
        let Some(key) = key_of(head) else { return self.close(slot) };
        let begun = self.answers.len();
        write_switching(&mut self.answers, &Switching::new(key));
        self.whose.push((slot, begun..self.answers.len()));
        self.connections[slot.0 as usize].phase = Phase::Open;
    }

    /// Clients' frames are short and come whole.
    fn frames(&mut self, slot: Slot, mut data: &[u8]) {
        while let Ok(Some((header, header_bytes))) = Header::decode(data) {
            let end = data.len().min(header_bytes + header.payload_bytes as usize);
            let (frame, rest) = data.split_at(end);
            data = rest;
            let answer = match header.opcode {
                Opcode::Ping => Opcode::Pong,
                Opcode::Close => Opcode::Close,
                _ => continue,
            };
            let mut payload = frame[header_bytes..].to_vec();
            mask_in_place(&mut payload, header.mask.unwrap_or_default(), 0);
            // A batch has one send for each.
            if mem::replace(&mut self.connections[slot.0 as usize].owed, true) {
                self.send_whatever();
            }
            let begun = self.answers.len();
            write_frame(&mut self.answers, answer, true, &payload, None);
            self.whose.push((slot, begun..self.answers.len()));
            if answer == Opcode::Close {
                // Its last words before the slot goes.
                self.send_whatever();
                return self.close(slot);
            }
        }
    }

    fn send_answers(&mut self) -> Result<(), Box<dyn Error>> {
        let (answers, whose) = (mem::take(&mut self.answers), mem::take(&mut self.whose));
        let mut sends = [Send { slot: Slot(0), bytes: &[] }; BATCH];
        for batch in whose.chunks(BATCH) {
            for (send, (slot, range)) in sends.iter_mut().zip(batch) {
                *send = Send { slot: *slot, bytes: &answers[range.clone()] };
            }
            self.io.send(&sends[..batch.len()], &mut self.troubles)?;
            for (slot, _) in batch {
                self.connections[slot.0 as usize].owed = false;
            }
            for trouble in mem::take(&mut self.troubles) {
                self.close(batch[trouble.index as usize].0);
            }
        }
        (self.answers, self.whose) = (answers, whose);
        self.answers.clear();
        self.whose.clear();
        Ok(())
    }

    fn send_whatever(&mut self) {
        // What fails here fails again in the next tick, where it is told.
        let _ = self.send_answers();
    }

    /// The server's Ping, to those whose turn it is.
    fn ping(&mut self, turns: &mut Turns) -> Result<(), Box<dyn Error>> {
        for index in turns.due(self.connections.len()) {
            if self.connections[index].phase == Phase::Open {
                let begun = self.answers.len();
                write_ping(&mut self.answers, b"", None);
                self.whose.push((Slot(index as u32), begun..self.answers.len()));
            }
        }
        self.send_answers()
    }

    fn poll(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot.0 as usize];
        if matches!(connection.phase, Phase::Head | Phase::Open) && !connection.polled {
            connection.polled = true;
            let token = Token { index: slot.0, generation: connection.generation };
            self.io.poll_readable(slot, token);
        }
    }

    fn receive(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot.0 as usize];
        if matches!(connection.phase, Phase::Head | Phase::Open) && !connection.receiving {
            connection.receiving = true;
            let token = Token { index: slot.0, generation: connection.generation };
            self.io.receive(slot, token);
        }
    }

    /// Behind an operation that has ended: the next one, or the end of the connection.
    fn go_on(&mut self, token: Token, receives: bool) {
        let slot = Slot(token.index);
        let connection = *self.of(token);
        match connection.phase {
            Phase::Closing if !connection.polled && !connection.receiving => {
                self.io.close(slot, token);
            }
            _ => {
                if receives {
                    self.receive(slot);
                }
                self.hold(token);
            }
        }
    }

    /// Waits for what comes next.
    fn hold(&mut self, token: Token) {
        let (slot, held) = (Slot(token.index), self.held);
        let connection = self.of(token);
        if connection.phase == Phase::Head || held == Held::Poll {
            return self.poll(slot);
        }
        if connection.phase == Phase::Open && !connection.receiving {
            connection.receiving = true;
            let token = Token { index: slot.0, generation: connection.generation };
            match held {
                Held::Multishot => self.io.receive_multishot(slot, token),
                Held::Poll | Held::Wait => self.io.receive_when_readable(slot, token),
            }
        }
    }

    fn close(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot.0 as usize];
        if matches!(connection.phase, Phase::Free | Phase::Closing) {
            return;
        }
        connection.phase = Phase::Closing;
        self.heads.remove(&slot.0);
        let token = Token { index: slot.0, generation: connection.generation };
        let Connection { polled, receiving, .. } = *connection;
        if polled {
            self.io.cancel(Operation::PollReadable, token);
        }
        // One that does not wait ends by itself.
        if receiving && self.held != Held::Poll {
            self.io.cancel(Operation::Receive, token);
        }
        if !polled && !receiving {
            self.io.close(slot, token);
        }
    }

    fn of(&mut self, token: Token) -> &mut Connection {
        &mut self.connections[token.index as usize]
    }
}

/// What stands behind the name of the key's field.
fn key_of(head: &[u8]) -> Option<&str> {
    let at = head.windows(KEY_FIELD.len()).position(|at| at.eq_ignore_ascii_case(KEY_FIELD))?;
    let value = &head[at + KEY_FIELD.len()..];
    let end = value.iter().position(|&byte| byte == b'\r')?;
    str::from_utf8(&value[..end]).ok().map(str::trim)
}

const KEY_FIELD: &[u8] = b"\r\nSec-WebSocket-Key:";
/// Sends per enter.
const BATCH: usize = 256;
/// The ring carries so many bits.
const GENERATION_MASK: u32 = 0xFF_FFFF;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_wherever_it_stands() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\nsec-websocket-KEY: abc==\r\nUpgrade: x\r\n\r\n";
        assert_eq!(key_of(head), Some("abc=="));
        assert_eq!(key_of(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), None);
    }
}
