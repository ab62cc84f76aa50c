//! The examples that RFC 6455 prints, byte for byte.

use uringcast_protocol::handshake::{Switching, accept_key, parse, write_switching};
use uringcast_protocol::header::Header;
use uringcast_protocol::writer::{write_frame, write_message};
use uringcast_protocol::{Event, MessageKind, Opcode, Role, Session};

/// Section 5.7: what each example is.
#[test]
fn examples_of_frames() {
    let messages: [(&[u8], Role, &[u8]); 3] = [
        (&[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], Role::Client, b"Hello"),
        (
            &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58],
            Role::Server,
            b"Hello",
        ),
        (&[0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f], Role::Client, b"Hello"),
    ];
    for (bytes, role, payload) in messages {
        let mut session = Session::new(role, 100);
        let mut sink = Vec::new();
        let mut input = bytes;
        let event = session.receive(&mut input, &mut sink);
        assert_eq!(event, Ok(Some(Event::Message(MessageKind::Text))), "{bytes:02x?}");
        assert_eq!(sink, payload);
        assert!(input.is_empty() && session.is_idle());
    }
}

#[test]
fn examples_of_control_frames() {
    let receive = |role, mut bytes: &[u8]| {
        Session::new(role, 0).receive(&mut bytes, &mut Vec::new()).expect("legal").expect("whole")
    };
    let ping = receive(Role::Client, &[0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    assert!(matches!(ping, Event::Ping(payload) if *payload == *b"Hello"));
    let bytes = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let pong = receive(Role::Server, &bytes);
    assert!(matches!(pong, Event::Pong(payload) if *payload == *b"Hello"));
}

#[test]
fn examples_written() {
    let mut out = Vec::new();
    write_frame(&mut out, Opcode::Text, true, b"Hello", None);
    assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    out.clear();
    write_frame(&mut out, Opcode::Text, true, b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]));
    assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    out.clear();
    write_frame(&mut out, Opcode::Text, false, b"Hel", None);
    write_frame(&mut out, Opcode::Continuation, true, b"lo", None);
    assert_eq!(out, [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f]);
    out.clear();
    write_message(&mut out, Opcode::Binary, &[0; 256], None);
    assert_eq!(out[..4], [0x82, 0x7E, 0x01, 0x00]);
    // 64 KiB in one frame: we would cut it, but read it.
    let (header, bytes) =
        Header::decode(&[0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]).expect("legal").expect("whole");
    assert_eq!((header.payload_bytes, bytes), (65_536, 10));
}

/// Sections 1.2 and 1.3.
#[test]
fn example_of_a_handshake() {
    let request = b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    let parsed = parse(request).expect("legal").expect("whole");
    assert_eq!(parsed.origin, Some("http://example.com"));
    let upgrade = parsed.upgrade().expect("an upgrade");
    assert_eq!(upgrade.protocols, ["chat", "superchat"]);
    assert_eq!(&accept_key(upgrade.key), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let mut answer = Vec::new();
    let switching = Switching { protocol: Some("chat"), ..Switching::new(upgrade.key) };
    write_switching(&mut answer, &switching);
    assert_eq!(
        String::from_utf8(answer).expect("ASCII"),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    );
}
