//! Two sessions, the links between them, and what may happen: messages in fragments, pings between
//! them, closes from either side, pieces of any size, noise.
//!
//! Knows: what was said, so what must be heard. Must not know: how frames are read.
//!
//! Input: a byte for the longest message, then operations, each a byte and what it needs.

use std::collections::{BTreeSet, VecDeque};

use uringcast_protocol::{
    CloseCode, Event, MessageKind, Opcode, PeerError, Role, Session, State,
    writer::{write_close, write_frame, write_message, write_ping, write_pong},
};

use crate::tape::Tape;

/// What is said is heard, in order, once; after a close nothing is; no message is too large.
pub fn check(data: &[u8]) {
    let mut tape = Tape::new(data);
    let message_bytes_max = MESSAGE_BYTES_MAX[usize::from(tape.byte() & 3)];
    let mut ends = [Role::Client, Role::Server].map(|role| End::new(role, message_bytes_max));
    while !tape.is_empty() {
        let operation = tape.byte();
        let [client, server] = &mut ends;
        let (one, other) = if operation & 0x80 == 0 { (client, server) } else { (server, client) };
        operate(operation & 0x7F, one, other, &mut tape);
    }
    // All that is still on the way, one side after the other until nothing moves.
    let [client, server] = &mut ends;
    for _ in 0..3 {
        server.hear(&mut client.line, usize::MAX);
        client.hear(&mut server.line, usize::MAX);
        server.answer(&mut tape);
        client.answer(&mut tape);
    }
    for (hearer, speaker) in [(&*server, &*client), (&*client, &*server)] {
        if !speaker.line.noisy && hearer.session.state().reads() {
            assert!(speaker.line.said.is_empty(), "{:?}", speaker.line.said);
        }
    }
}

fn operate(operation: u8, one: &mut End, other: &mut End, tape: &mut Tape<'_>) {
    match operation % 10 {
        0 => one.begin(Opcode::Text, tape),
        1 => one.begin(Opcode::Binary, tape),
        2 | 3 => one.fragment(tape),
        4 | 5 => {
            let opcode = if operation % 10 == 4 { Opcode::Ping } else { Opcode::Pong };
            let length = usize::from(tape.byte());
            one.control(opcode, tape.take(length), tape);
        }
        6 => one.close(tape),
        7 => {
            let bytes = usize::from(tape.byte()) + 1;
            other.hear(&mut one.line, bytes);
        }
        8 => {
            other.hear(&mut one.line, usize::MAX);
            other.answer(tape);
            other.renew();
        }
        _ => one.line.disturb(tape),
    }
}

/// What one end says, and the other hears.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<CloseCode>, String),
    /// The message, or the part of it that was sent, is over the other's limit.
    TooBig,
}

/// The way from one end to the other.
#[derive(Default)]
struct Line {
    /// Sent and not received.
    bytes: VecDeque<u8>,
    sent: usize,
    /// Said and not heard.
    said: VecDeque<Said>,
    /// How much was sent when the sender stood between messages.
    boundaries: BTreeSet<usize>,
    /// Its bytes were changed on the way: nobody knows what is heard.
    noisy: bool,
    /// What was sent is over the other's limit: nothing after it is heard.
    broken: bool,
}

impl Line {
    fn send(&mut self, bytes: &[u8], between_messages: bool) {
        self.sent += bytes.len();
        self.bytes.extend(bytes);
        if between_messages {
            self.boundaries.insert(self.sent);
        }
    }

    fn disturb(&mut self, tape: &mut Tape<'_>) {
        let (at, change) = (usize::from(tape.byte()), tape.byte());
        if let Some(byte) = self.bytes.get_mut(at)
            && change != 0
        {
            *byte ^= change;
            self.noisy = true;
        }
    }
}

/// One end: its session, and what it is saying.
struct End {
    role: Role,
    session: Session,
    message_bytes_max: usize,
    sink: Vec<u8>,
    received: usize,
    /// A close was heard, or something wrong.
    ended: bool,
    /// A close was said.
    closed: bool,
    owed_pongs: VecDeque<Vec<u8>>,
    saying: Option<Saying>,
    line: Line,
}

/// A message being sent in fragments.
struct Saying {
    opcode: Opcode,
    payload: Vec<u8>,
    /// Bytes sent.
    gone: usize,
    /// Fragments sent.
    fragments: usize,
}

impl End {
    fn new(role: Role, message_bytes_max: usize) -> Self {
        Self {
            role,
            session: Session::new(role, message_bytes_max as u64),
            message_bytes_max,
            sink: Vec::new(),
            received: 0,
            ended: false,
            closed: false,
            owed_pongs: VecDeque::new(),
            saying: None,
            line: Line { boundaries: BTreeSet::from([0]), ..Line::default() },
        }
    }

    fn may_say(&self) -> bool {
        !self.closed && !self.line.broken
    }

    fn mask(&self, tape: &mut Tape<'_>) -> Option<[u8; 4]> {
        let key = [0; 4].map(|_| tape.byte());
        (self.role == Role::Client).then_some(key)
    }

    /// A message: whole as the writer cuts it, or its first fragment.
    fn begin(&mut self, opcode: Opcode, tape: &mut Tape<'_>) {
        if self.saying.is_some() || !self.may_say() {
            return;
        }
        let (length, flags) = (tape.number(), tape.byte());
        // Large ones only where that is asked for: they take their time.
        let (whole, large) = (flags & 1 != 0, flags & 0xF0 == 0xF0);
        let length = if large { length } else { length % 2_000 };
        let seed = tape.take(8);
        let mut payload: Vec<u8> = seed.iter().copied().cycle().take(length).collect();
        if opcode == Opcode::Text {
            payload = String::from_utf8_lossy(&payload).into_owned().into_bytes();
        }
        if whole {
            let mut frames = Vec::new();
            write_message(&mut frames, opcode, &payload, self.mask(tape));
            self.line.send(&frames, true);
            self.said(opcode, payload);
        } else {
            self.saying = Some(Saying { opcode, payload, gone: 0, fragments: 0 });
            self.fragment(tape);
        }
    }

    /// The next fragment of the message being said.
    fn fragment(&mut self, tape: &mut Tape<'_>) {
        if !self.may_say() {
            return;
        }
        let Some(mut saying) = self.saying.take() else { return };
        let left = saying.payload.len() - saying.gone;
        let piece = saying.gone..saying.gone + tape.number().min(left);
        let fin = piece.end == saying.payload.len() && tape.byte() & 1 != 0;
        let opcode = if saying.fragments == 0 { saying.opcode } else { Opcode::Continuation };
        let mut frame = Vec::new();
        write_frame(&mut frame, opcode, fin, &saying.payload[piece.clone()], self.mask(tape));
        self.line.send(&frame, fin);
        if fin || piece.end > self.message_bytes_max {
            self.said(saying.opcode, saying.payload);
        } else {
            saying.gone = piece.end;
            saying.fragments += 1;
            self.saying = Some(saying);
        }
    }

    fn said(&mut self, opcode: Opcode, payload: Vec<u8>) {
        self.line.said.push_back(if payload.len() > self.message_bytes_max {
            self.line.broken = true;
            Said::TooBig
        } else if opcode == Opcode::Text {
            Said::Message(MessageKind::Text, payload)
        } else {
            Said::Message(MessageKind::Binary, payload)
        });
    }

    fn control(&mut self, opcode: Opcode, payload: &[u8], tape: &mut Tape<'_>) {
        if !self.may_say() {
            return;
        }
        let mask = self.mask(tape);
        let mut frame = Vec::new();
        // The writer cuts what is too long for a control frame.
        let kept = payload[..payload.len().min(125)].to_vec();
        self.line.said.push_back(if opcode == Opcode::Ping {
            write_ping(&mut frame, payload, mask);
            Said::Ping(kept)
        } else {
            write_pong(&mut frame, payload, mask);
            Said::Pong(kept)
        });
        self.line.send(&frame, self.saying.is_none());
    }

    fn close(&mut self, tape: &mut Tape<'_>) {
        if !self.may_say() {
            return;
        }
        let code = (tape.byte() & 1 != 0).then(|| CloseCode(tape.number() as u16));
        let length = usize::from(tape.byte());
        let mut reason = String::from_utf8_lossy(tape.take(length)).into_owned();
        let mut frame = Vec::new();
        write_close(&mut frame, code, &reason, self.mask(tape));
        self.line.send(&frame, false);
        // The writer leaves out a code that must not be sent, and cuts the reason.
        let code = code.filter(|code| code.is_legal_on_wire());
        while code.is_none() && !reason.is_empty() || reason.len() > 123 {
            reason.pop();
        }
        self.line.said.push_back(Said::Close(code, reason));
        self.closed = true;
        self.session.close_sent();
        // A second one changes nothing.
        self.session.close_sent();
        self.check_state();
    }

    /// Takes so many bytes from the line.
    fn hear(&mut self, line: &mut Line, bytes: usize) {
        let piece: Vec<u8> = line.bytes.drain(..bytes.min(line.bytes.len())).collect();
        self.received += piece.len();
        let mut input = &piece[..];
        loop {
            let outcome = self.session.receive(&mut input, &mut self.sink);
            assert!(self.sink.len() <= self.message_bytes_max);
            let heard = match outcome {
                Ok(None) => break,
                Ok(Some(event)) => self.heard(event),
                Err(error) => self.wrong(error, line.noisy),
            };
            if !line.noisy {
                assert_eq!(Some(&heard), line.said.pop_front().as_ref());
            }
            self.check_state();
        }
        assert!(input.is_empty(), "nothing more to say, so all is taken");
        let idle = self.session.is_idle();
        if self.ended || self.closed {
            assert!(!idle);
        } else if !line.noisy {
            assert_eq!(idle, line.boundaries.contains(&self.received));
        }
    }

    fn heard(&mut self, event: Event) -> Said {
        assert!(!self.ended, "{event:?} after the end");
        match event {
            Event::Message(kind) => Said::Message(kind, std::mem::take(&mut self.sink)),
            Event::Deflated(_) => panic!("nobody agreed on that"),
            Event::Ping(payload) => {
                self.owed_pongs.push_back(payload.to_vec());
                Said::Ping(payload.to_vec())
            }
            Event::Pong(payload) => Said::Pong(payload.to_vec()),
            Event::Close(code, reason) => {
                self.ended = true;
                Said::Close(code, String::from_utf8(reason.to_vec()).expect("checked"))
            }
        }
    }

    fn wrong(&mut self, error: PeerError, noisy: bool) -> Said {
        assert!(!self.ended, "{error:?} after the end");
        assert!(error.close_code().is_legal_on_wire());
        assert!(noisy || error == PeerError::MessageTooBig, "{error:?}");
        self.ended = true;
        Said::TooBig
    }

    /// Says what is owed: pongs, and a close for a close.
    fn answer(&mut self, tape: &mut Tape<'_>) {
        while let Some(payload) = self.owed_pongs.pop_front() {
            self.control(Opcode::Pong, &payload, tape);
        }
        if self.ended {
            self.close(tape);
        }
    }

    /// As the server does between messages: idle sessions are not kept.
    fn renew(&mut self) {
        if self.session.is_idle() {
            assert!(self.sink.is_empty());
            self.session = Session::new(self.role, self.message_bytes_max as u64);
        }
    }

    fn check_state(&self) {
        let state = match (self.closed, self.ended) {
            (false, false) => State::Open,
            (true, false) => State::CloseSent,
            (false, true) => State::CloseReceived,
            (true, true) => State::Closed,
        };
        assert_eq!(self.session.state(), state);
        assert_eq!((state.sends(), state.reads()), (!self.closed, !self.ended));
    }
}

const MESSAGE_BYTES_MAX: [usize; 4] = [1_000, 125, 200_000, 7];
