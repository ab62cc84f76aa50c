//! Model clients that break a rule, each one, and the answer each is due.
//!
//! Knows: offences and the close code or status that answers them. Must not know: how the server
//! finds out.

use uringcast_protocol::{Opcode, writer};

use crate::{
    net::{End, Net},
    wire::Wire,
};

/// A client that breaks a rule.
#[derive(Debug)]
pub(crate) struct Vandal {
    pub(crate) name: &'static str,
    /// Its offence, once it is connected; those in the head are said at once.
    bytes: Vec<u8>,
    /// The close code it is due.
    pub(crate) code: Option<u16>,
    /// Or the status.
    pub(crate) status: Option<u16>,
    pub(crate) said: bool,
}

const MASK: Option<[u8; 4]> = Some([0x55, 0xaa, 0, 0xff]);

impl Vandal {
    pub(crate) fn new(net: &mut Net, wire: &mut Wire, message_bytes_max: usize) -> Self {
        if net.dice.chance(350) {
            return Self::in_head(net, wire);
        }
        let path = *net.dice.pick(&["/ws", "/ws?topics=e.0,v.0", "/raw/%3E", "/raw/e.0"]);
        wire.ask(path, &[]);
        let raw = path.starts_with("/raw");
        let frame = |opcode, fin, payload: &[u8], mask| {
            let mut bytes = Vec::new();
            writer::write_frame(&mut bytes, opcode, fin, payload, mask);
            bytes
        };
        let (name, bytes, code) = match net.dice.below(12) {
            0 => ("unmasked", frame(Opcode::Text, true, b"{}", None), 1002),
            1 => ("reserved bit", vec![0xc1, 0x80, 0, 0, 0, 0], 1002),
            2 => ("reserved opcode", vec![0x83, 0x80, 0, 0, 0, 0], 1002),
            3 => ("bad UTF-8", frame(Opcode::Text, true, b"\"\xff\"", MASK), 1007),
            4 => {
                let payload = vec![b' '; message_bytes_max + 1];
                ("oversize", frame(Opcode::Binary, true, &payload, MASK), 1009)
            }
            5 => ("continuation", frame(Opcode::Continuation, true, b"", MASK), 1002),
            6 => ("fragmented ping", vec![0x09, 0x80, 0, 0, 0, 0], 1002),
            7 => ("short close", vec![0x88, 0x81, 0, 0, 0, 0, 7], 1002),
            8 => ("close 1005", vec![0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed], 1002),
            9 => ("close reason", vec![0x88, 0x83, 0, 0, 0, 0, 0x03, 0xe8, 0xff], 1007),
            10 => ("binary command", frame(Opcode::Binary, true, b"{}", MASK), 1003),
            _ => ("length", vec![0x81, 0xfe, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5], 1002),
        };
        let code = if raw && name == "binary command" { 1003 } else { code };
        Self { name, bytes, code: Some(code), status: None, said: false }
    }

    fn in_head(net: &mut Net, wire: &mut Wire) -> Self {
        let long = format!("GET /ws HTTP/1.1\r\nHost: a\r\nX: {}\r\n", "x".repeat(17 << 10));
        let many = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1_100);
        let (name, head, status) = match net.dice.below(9) {
            0 => ("not HTTP", "\x16\x03\x01 hello\r\n\r\n", 400),
            1 => ("not there", "", 404),
            2 => ("too long", &*long, 431),
            3 => ("a wrong method", "POST /ws HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            4 => ("health", "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            5 => ("a wrong topic", "", 400),
            6 => ("publishing", "", 404),
            // More than one connection is answered, and more than is kept unsent.
            7 => ("many requests", &*many, 200),
            _ => ("a foreign page", "", 403),
        };
        match name {
            "not there" => wire.ask("/nowhere", &[]),
            "a wrong topic" => wire.ask("/raw/a..b", &[]),
            "publishing" => wire.ask("/publish/e.0", &[]),
            "a foreign page" => wire.ask("/ws", &[("Origin", "https://evil.example")]),
            _ => wire.say_bytes(head.as_bytes()),
        }
        Self { name, bytes: Vec::new(), code: None, status: Some(status), said: true }
    }

    /// Commits its offence, once it is connected.
    pub(crate) fn strike(&mut self, wire: &mut Wire) {
        if !self.said {
            self.said = true;
            wire.say_bytes(&self.bytes);
            wire.polite = false;
        }
    }

    /// It got what it was due, unless something else ended it before.
    pub(crate) fn check(&self, who: usize, wire: &Wire) {
        assert!(wire.is_over(), "client {who} ({}) was never closed: {wire:?}", self.name);
        if let Some(status) = self.status {
            let late = |got| got == 408 && !wire.diligent;
            let fine = wire.status.is_none_or(|got| got == status || got == 503 || late(got));
            assert!(fine, "client {who} ({}) got {:?}, not {status}", self.name, wire.status);
            let refused = wire.end == End::Reset;
            assert!(
                wire.status.is_some() || refused || !wire.diligent,
                "client {who} got no answer"
            );
        }
        if let (Some(code), true) = (self.code, self.said) {
            let Some(got) = wire.closed else {
                assert!(
                    !wire.diligent,
                    "client {who} ({}) was told nothing, due was {code}",
                    self.name
                );
                return;
            };
            let fine = matches!(got, Some(1001 | 1013)) || got == Some(code);
            assert!(fine, "client {who} ({}) got {got:?}, not {code}", self.name);
        }
    }
}
