//! The model client's end of a connection: handshake, frames, pace of reading.
//!
//! Knows: what every WebSocket client does whatever it is for, and that each byte of the server's
//! must be legal. Must not know: topics or commands.

use std::collections::VecDeque;

use flate2::{Decompress, FlushDecompress};
use uringcast_protocol::{
    Event, MessageKind, Opcode, Session,
    client_handshake::{Answer, Ask, ResponseError, encode_key, parse_answer, write_request},
    deflate::Offer,
    session::Role,
    writer,
};

use crate::net::{End, Net};

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// All there is.
    Eager,
    /// A few bytes at a time.
    Slow,
    /// Nothing.
    Stalled,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Head,
    Open,
    /// Refused, or a plain answer.
    Plain,
    Over,
}

/// What a client hears.
#[derive(Debug)]
pub(crate) enum Heard {
    Switched,
    Plain,
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Pong,
    Close,
    Over,
}

/// A connection as its client sees it.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) socket: usize,
    pub(crate) shard: usize,
    pub(crate) pace: Pace,
    pub(crate) stage: Stage,
    /// The server's Close, with its code.
    pub(crate) closed: Option<Option<u16>>,
    pub(crate) close_sent: bool,
    /// The code of the Close it said first.
    pub(crate) close_code: Option<Option<u16>>,
    /// The client ended it by itself: FIN, close or reset.
    pub(crate) left: bool,
    /// It has always read all there was, and broken no rule.
    pub(crate) diligent: bool,
    /// It answers pings and Close frames.
    pub(crate) polite: bool,
    pub(crate) pongs_owed: u32,
    /// The status of an answer that was no upgrade.
    pub(crate) status: Option<u16>,
    /// How the server ended it.
    pub(crate) end: End,
    out: VecDeque<u8>,
    shut_after: bool,
    key: String,
    /// permessage-deflate is offered so, if at all.
    pub(crate) offer: Option<Offer>,
    /// The window agreed on, bits.
    window_bits: Option<u8>,
    /// Messages that came compressed.
    pub(crate) inflated: u64,
    head: Vec<u8>,
    session: Session,
    message: Vec<u8>,
}

pub(crate) const PROTOCOL: &str = "uringcast.v1.json";

impl Wire {
    pub(crate) fn new(net: &mut Net, shard: usize, listener: usize, room: usize) -> Self {
        let socket = net.connect(shard, listener, room);
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&net.dice.word().to_le_bytes());
        Self {
            socket,
            shard,
            pace: Pace::Eager,
            stage: Stage::Head,
            closed: None,
            close_sent: false,
            close_code: None,
            left: false,
            diligent: true,
            polite: true,
            pongs_owed: 0,
            status: None,
            end: End::Open,
            out: VecDeque::new(),
            shut_after: false,
            key: encode_key(nonce),
            offer: None,
            window_bits: None,
            inflated: 0,
            head: Vec::new(),
            session: Session::new(Role::Client, u64::MAX >> 1),
            message: Vec::new(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Everything said has been taken by the network.
    pub(crate) fn is_said(&self) -> bool {
        self.out.is_empty()
    }

    pub(crate) fn ask(&mut self, path: &str, headers: &[(&str, &str)]) {
        let mut request = Vec::new();
        let offer = self.offer.map(|offer| offer.to_string()).unwrap_or_default();
        let mut headers = headers.to_vec();
        headers.extend(self.offer.map(|_| ("Sec-WebSocket-Extensions", offer.as_str())));
        let (key, headers) = (&self.key, &headers);
        let ask = Ask { path, host: "sim.example", key, protocols: &[PROTOCOL], headers };
        write_request(&mut request, &ask);
        self.out.extend(request);
    }

    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        if self.can_say() {
            self.out.extend(bytes);
        }
    }

    fn can_say(&self) -> bool {
        !self.left && !self.close_sent && !self.shut_after && self.stage != Stage::Over
    }

    /// Says a message, sometimes in fragments with pings between.
    pub(crate) fn say(&mut self, net: &mut Net, opcode: Opcode, payload: &[u8]) -> bool {
        if !self.can_say() {
            return false;
        }
        let mut bytes = Vec::new();
        let mask = |net: &mut Net| Some((net.dice.word() as u32).to_le_bytes());
        if net.dice.chance(800) {
            writer::write_frame(&mut bytes, opcode, true, payload, mask(net));
        } else {
            let (mut at, mut opcode) = (0, opcode);
            while at < payload.len() || opcode != Opcode::Continuation {
                let end = payload.len().min(at + net.dice.between(0, payload.len()));
                let fin = end == payload.len();
                writer::write_frame(&mut bytes, opcode, fin, &payload[at..end], mask(net));
                (at, opcode) = (end, Opcode::Continuation);
                if net.dice.chance(100) {
                    self.pongs_owed += 1;
                    writer::write_ping(&mut bytes, b"between", mask(net));
                }
                if fin {
                    break;
                }
            }
        }
        self.out.extend(bytes);
        true
    }

    pub(crate) fn ping(&mut self, net: &mut Net) {
        if self.can_say() {
            let mut bytes = Vec::new();
            let mask = Some((net.dice.word() as u32).to_le_bytes());
            writer::write_ping(&mut bytes, b"model", mask);
            self.pongs_owed += 1;
            self.out.extend(bytes);
        }
    }

    /// Says Close; nothing is said after it.
    pub(crate) fn say_close(&mut self, code: Option<u16>) {
        if self.can_say() {
            let mut bytes = Vec::new();
            let code = code.map(uringcast_protocol::CloseCode);
            writer::write_close(&mut bytes, code, "", Some([1, 2, 3, 4]));
            self.out.extend(bytes);
            self.close_sent = true;
            self.close_code = Some(code.map(|code| code.value()));
        }
    }

    /// FIN after all that was said.
    pub(crate) fn shut(&mut self) {
        self.shut_after = true;
    }

    /// Closes or resets its socket now.
    pub(crate) fn leave(&mut self, net: &mut Net, reset: bool) {
        if self.is_over() {
            return;
        }
        if reset {
            net.reset(self.socket);
        } else {
            net.close_client(self.socket);
        }
        self.left = true;
        self.stage = Stage::Over;
        self.out.clear();
    }

    /// Writes and reads as its pace wants. Whether anything moved.
    pub(crate) fn step(&mut self, net: &mut Net, heard: &mut Vec<Heard>) -> bool {
        if self.is_over() {
            return false;
        }
        let mut moved = self.write(net);
        let most = match self.pace {
            Pace::Eager => usize::MAX,
            Pace::Slow => net.dice.between(1, 600),
            Pace::Stalled => return moved,
        };
        let (bytes, end) = net.read(self.socket, most);
        moved |= !bytes.is_empty();
        self.hear(&bytes, heard);
        if self.polite && self.closed.is_some() && !self.close_sent {
            // Answered with the same code, then the server closes first.
            self.say_close(self.closed.flatten());
            moved = true;
        }
        match end {
            End::Open => {}
            End::Eof | End::Reset => {
                if self.diligent && !self.left && self.stage == Stage::Open && end == End::Eof {
                    assert!(self.closed.is_some(), "the server closed without a Close frame");
                }
                net.close_client(self.socket);
                self.stage = Stage::Over;
                self.end = end;
                heard.push(Heard::Over);
                moved = true;
            }
        }
        moved
    }

    /// Bytes that it still wants to write.
    pub(crate) fn unwritten(&self) -> usize {
        if self.left || self.is_over() { 0 } else { self.out.len() }
    }

    fn write(&mut self, net: &mut Net) -> bool {
        if self.left {
            return false;
        }
        if !self.out.is_empty() {
            let most = if net.dice.chance(600) { self.out.len() } else { net.dice.scale(1, 4_096) };
            let chunk = most.min(self.out.len());
            let bytes: Vec<u8> = self.out.iter().copied().take(chunk).collect();
            let taken = net.write(self.socket, &bytes);
            self.out.drain(..taken);
            return taken > 0;
        }
        if self.shut_after {
            self.left = true;
            net.shut(self.socket);
            return true;
        }
        false
    }

    fn hear(&mut self, bytes: &[u8], heard: &mut Vec<Heard>) {
        let mut input = bytes;
        if self.stage == Stage::Head && !bytes.is_empty() {
            self.head.extend_from_slice(bytes);
            match parse_answer(&self.head, &self.key, &[PROTOCOL], self.offer.as_ref()) {
                Ok(None) => return,
                Ok(Some(Answer { head_bytes, deflate })) => {
                    if let Some(agreement) = deflate {
                        assert!(agreement.server_no_context_takeover, "frames are shared");
                        self.session = Session::new(Role::Client, u64::MAX >> 1).with_deflate();
                        self.window_bits = Some(agreement.server_window_bits);
                    }
                    self.stage = Stage::Open;
                    heard.push(Heard::Switched);
                    let head = std::mem::take(&mut self.head);
                    return self.hear_frames(&head[head_bytes..], heard);
                }
                Err(ResponseError::Status(status)) => {
                    self.stage = Stage::Plain;
                    self.status = Some(status);
                    heard.push(Heard::Plain);
                    return;
                }
                Err(error) => panic!("a bad answer to the upgrade: {error}"),
            }
        }
        if self.stage == Stage::Open {
            self.hear_frames(std::mem::take(&mut input), heard);
        }
    }

    fn hear_frames(&mut self, mut input: &[u8], heard: &mut Vec<Heard>) {
        assert!(input.is_empty() || self.closed.is_none(), "bytes after the Close frame");
        loop {
            match self.session.receive(&mut input, &mut self.message) {
                Ok(None) => return,
                Ok(Some(Event::Message(kind))) => {
                    let message = std::mem::take(&mut self.message);
                    heard.push(match kind {
                        MessageKind::Text => Heard::Text(message),
                        MessageKind::Binary => Heard::Binary(message),
                    });
                }
                Ok(Some(Event::Deflated(kind))) => {
                    let window_bits = self.window_bits.expect("agreed to, or it were illegal");
                    let message = inflate(&std::mem::take(&mut self.message), window_bits);
                    self.inflated += 1;
                    heard.push(match kind {
                        MessageKind::Text => Heard::Text(message),
                        MessageKind::Binary => Heard::Binary(message),
                    });
                }
                Ok(Some(Event::Ping(payload))) => {
                    if self.polite && self.can_say() {
                        let mut bytes = Vec::new();
                        writer::write_pong(&mut bytes, payload.as_slice(), Some([9, 9, 9, 9]));
                        self.out.extend(bytes);
                    }
                }
                Ok(Some(Event::Pong(_))) => {
                    assert!(self.pongs_owed > 0, "a pong without a ping");
                    self.pongs_owed -= 1;
                    heard.push(Heard::Pong);
                }
                Ok(Some(Event::Close(code, _))) => {
                    self.closed = Some(code.map(uringcast_protocol::CloseCode::value));
                    heard.push(Heard::Close);
                    assert!(input.is_empty(), "bytes after the Close frame");
                }
                Err(error) => panic!("an illegal stream: {error}"),
            }
        }
    }
}

/// Decompresses one message with exactly this window: in steps shorter than any window, so that
/// references are served from it and not from the output.
fn inflate(compressed: &[u8], window_bits: u8) -> Vec<u8> {
    // The library has no window of 256 bytes.
    let mut stream = Decompress::new_with_window_bits(false, window_bits.max(9));
    let input = [compressed, &[0, 0, 0xFF, 0xFF]].concat();
    let (mut out, mut step) = (Vec::new(), [0; 256]);
    loop {
        let (taken, given) = (stream.total_in() as usize, stream.total_out() as usize);
        stream
            .decompress(&input[taken..], &mut step, FlushDecompress::Sync)
            .expect("it inflates with the window agreed on");
        let new = stream.total_out() as usize - given;
        out.extend_from_slice(&step[..new]);
        if new < step.len() {
            assert_eq!(stream.total_in() as usize, input.len(), "nothing behind its end");
            assert!(window_bits > 8 || out.len() <= 256, "references beyond the window");
            return out;
        }
    }
}
