//! Upgrade requests: good ones of many shapes, and each refusal.

use proptest::prelude::*;
use uringcast_protocol::Refusal;
use uringcast_protocol::forwarded::{Client, ProxyHeader};
use uringcast_protocol::handshake::{Request, choose_protocol, parse};

const GOOD: &str = "GET /ws?topics=a,b.*&hello=1 HTTP/1.1\r\nHost: localhost:9001\r\n\
    Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

fn whole(head: &str) -> Request<'_> {
    parse(head.as_bytes()).unwrap_or_else(|error| panic!("{head}: {error}")).expect("whole")
}

/// Of the whole judgement: the head's parse, then the upgrade's.
fn refusal(head: &str) -> Option<Refusal> {
    match parse(head.as_bytes()) {
        Ok(Some(request)) => request.upgrade().err(),
        Ok(None) => panic!("not whole: {head}"),
        Err(refusal) => Some(refusal),
    }
}

#[test]
fn every_prefix_wants_more_and_early_bytes_are_left() {
    for cut in 0..GOOD.len() {
        assert!(matches!(parse(&GOOD.as_bytes()[..cut]), Ok(None)), "{cut}");
    }
    let with_frame = [GOOD.as_bytes(), b"\x81\x80\0\0\0\0"].concat();
    let request = parse(&with_frame).expect("legal").expect("whole");
    assert_eq!(request.head_bytes, GOOD.len());
}

/// Found by fuzzing: the refusal of a broken line changed with what was behind the break.
#[test]
fn a_broken_request_line_is_refused_alike_however_much_of_it_is_there() {
    for (line, refused) in [
        ("GET /a b HTTP/1.1\r\n", Refusal::HeadInvalid),
        ("GET /healthz HTTP HTTP/1.1\r\n", Refusal::HeadInvalid),
        ("GET / HTTP/2.0\r\n", Refusal::HttpVersion),
        ("GET / HTTP/1.2 HTTP/1.1\r\n", Refusal::HttpVersion),
    ] {
        let mut verdict = None;
        for length in 0..=line.len() {
            let early = parse(&line.as_bytes()[..length]).err();
            assert!(verdict.is_none() || verdict == early, "{line} {length}");
            verdict = early;
        }
        assert_eq!(verdict, Some(refused), "{line}");
    }
}

#[test]
fn what_is_in_a_request() {
    let head = GOOD.replace(
        "\r\n\r\n",
        "\r\nOrigin: https://x.example\r\nSec-WebSocket-Protocol: a, b\r\n\
         sec-websocket-protocol:c,,\r\nSec-WebSocket-Extensions: permessage-deflate; \
         client_max_window_bits, x\r\n\r\n",
    );
    let request = whole(&head);
    assert_eq!((request.method, &*request.path), ("GET", "/ws"));
    assert_eq!(request.host, Some("localhost:9001"));
    assert_eq!(request.origin, Some("https://x.example"));
    assert!(request.wants_upgrade && request.keep_alive && !request.forwarded);
    assert!(request.content_length == 0 && !request.chunked);
    let upgrade = request.upgrade().expect("an upgrade");
    assert_eq!(upgrade.protocols, ["a", "b", "c"]);
    assert_eq!(upgrade.extensions, ["permessage-deflate; client_max_window_bits", "x"]);
}

#[test]
fn a_quoted_string_in_an_extension_may_hold_commas() {
    for (field, offers) in [
        ("a; b=\"c, d\", e", &["a; b=\"c, d\"", "e"][..]),
        ("a; b=\"\\\", c\" , d,,", &["a; b=\"\\\", c\"", "d"]),
        ("a; b=\", c", &["a; b=\", c"]),
        (", ,", &[]),
    ] {
        let end = format!("\r\nSec-WebSocket-Extensions: {field}\r\n\r\n");
        let head = GOOD.replace("\r\n\r\n", &end);
        assert_eq!(whole(&head).extensions, offers, "{field}");
    }
}

#[test]
fn targets() {
    let target = |target: &str| GOOD.replace("/ws?topics=a,b.*&hello=1", target);
    let head = target("/raw/md.%2A.x%3e?a=1+2&b=%C3%A9&c&=d&&e=f=g");
    let request = whole(&head);
    assert_eq!(request.path, "/raw/md.*.x>");
    let pairs: Vec<_> = request.query().collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(pairs, [("a", "1 2"), ("b", "é"), ("c", ""), ("", "d"), ("e", "f=g")]);

    // The absolute form: its authority replaces Host (RFC 9112 section 3.2.2).
    let head = target("http://other:80/ws?x=1");
    let request = whole(&head);
    assert_eq!((&*request.path, request.host), ("/ws", Some("other:80")));
    assert_eq!(request.query().count(), 1);
    assert_eq!(whole(&target("ws://other")).path, "/");
    assert_eq!(whole(&target("/a+b#c")).path, "/a+b");

    for wrong in ["/%", "/%4", "/%zz", "/%ff", "/?a=%", "/?a=%ff", "*", "ftp://x/", "http:///"] {
        assert_eq!(refusal(&target(wrong)), Some(Refusal::TargetInvalid), "{wrong}");
    }
}

#[test]
fn fields_are_read_as_http_says() {
    for (from, to) in [
        ("Upgrade: websocket", "UPGRADE: h2c, WebSocket"),
        ("Connection: Upgrade", "connection: keep-alive, uPgRaDe"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
        ("Version: 13", "Version:  13  "),
        // Unused bits of the last digit set, as some clients do.
        ("jZQ==", "jZR=="),
        ("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"),
    ] {
        assert_eq!(refusal(&GOOD.replacen(from, to, 1)), None, "{to}");
    }
    for name in ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"] {
        let head = GOOD.replace("\r\n\r\n", &format!("\r\n{}: x\r\n\r\n", name.to_lowercase()));
        assert!(whole(&head).forwarded, "{name}");
    }
}

#[test]
fn each_refusal() {
    let end = "\r\n\r\n";
    let host = "Host: localhost:9001\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let key_twice = key.repeat(2);
    let many = format!("\r\n{}\r\n", "a: b\r\n".repeat(60));
    for (from, to, refused) in [
        ("GET", "POST", Refusal::MethodNotAllowed),
        ("HTTP/1.1", "HTTP/1.0", Refusal::Http10Upgrade),
        ("HTTP/1.1", "HTTP/2.0", Refusal::HttpVersion),
        ("HTTP/1.1", "SMTP", Refusal::HeadInvalid),
        (host, "", Refusal::HostMissing),
        (host, "Host: a\r\nHost: a\r\n", Refusal::HostRepeated),
        (host, "Host : a\r\n", Refusal::HeadInvalid),
        (host, "Host: \u{80}\r\nUpgrade: \u{80}\r\n folded\r\n", Refusal::HeadInvalid),
        ("Upgrade: websocket\r\n", "", Refusal::UpgradeRequired),
        ("Upgrade: websocket", "Upgrade: h2c", Refusal::UpgradeRequired),
        ("Connection: Upgrade", "Connection: close", Refusal::ConnectionHeader),
        (key, "", Refusal::KeyMissing),
        (key, &key_twice, Refusal::KeyRepeated),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", Refusal::KeyInvalid),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ!=", Refusal::KeyInvalid),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQQQ", Refusal::KeyInvalid),
        ("Sec-WebSocket-Version: 13\r\n", "", Refusal::VersionUnsupported),
        ("Version: 13", "Version: 8", Refusal::VersionUnsupported),
        ("Version: 13", "Version: 13, 8", Refusal::VersionUnsupported),
        (end, "\r\nSec-WebSocket-Version: 13\r\n\r\n", Refusal::VersionUnsupported),
        (end, "\r\nContent-Length: 5\r\n\r\n", Refusal::BodyUnexpected),
        (end, "\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::BodyUnexpected),
        (end, "\r\nContent-Length: x\r\n\r\n", Refusal::ContentLengthInvalid),
        (end, "\r\nContent-Length: +5\r\n\r\n", Refusal::ContentLengthInvalid),
        (end, "\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Refusal::ContentLengthInvalid),
        (end, "\r\nOrigin: a\r\nOrigin: b\r\n\r\n", Refusal::OriginRepeated),
        (end, &many, Refusal::HeadersTooMany),
    ] {
        assert_eq!(refusal(&GOOD.replacen(from, to, 1)), Some(refused), "{to}");
    }
}

#[test]
fn a_plain_get_is_a_request_and_no_upgrade() {
    let request = whole("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(request.keep_alive && !request.wants_upgrade);
    assert_eq!(request.upgrade().err(), Some(Refusal::UpgradeRequired));
    let request = whole("GET /healthz HTTP/1.0\r\n\r\n");
    assert!(!request.keep_alive);
    assert!(!whole("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").keep_alive);
}

#[test]
fn what_means_to_be_an_upgrade_and_what_has_a_body() {
    let plain = "GET / HTTP/1.1\r\nHost: x\r\n";
    let with = |field: &str| format!("{plain}{field}\r\n\r\n");
    for field in ["Upgrade: websocket", "Connection: close, upgrade", "Sec-WebSocket-Key: x"] {
        assert!(whole(&with(field)).means_upgrade(), "{field}");
    }
    for field in ["Upgrade: h2c", "Connection: keep-alive", "Sec-WebSocket-Version: 13"] {
        assert!(!whole(&with(field)).means_upgrade(), "{field}");
    }
    for field in ["Content-Length: 1", "Transfer-Encoding: chunked", "transfer-encoding: x"] {
        assert!(whole(&with(field)).has_body(), "{field}");
    }
    assert!(!whole(&with("Content-Length: 0")).has_body());
}

#[test]
fn the_servers_preference_decides_on_the_subprotocol() {
    let preferred = ["v2.json", "v1.json"];
    assert_eq!(choose_protocol(&preferred, &["v1.json", "x", "v2.json"]), Some("v2.json"));
    assert_eq!(choose_protocol(&preferred, &["v1.json"]), Some("v1.json"));
    assert_eq!(choose_protocol(&preferred, &["V1.JSON", "v1.json2"]), None);
    assert_eq!(choose_protocol(&preferred, &[]), None);
}

#[test]
fn only_the_field_that_the_proxies_write_names_the_client() {
    let head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.9, 192.0.2.1\r\n\
        forwarded: for=192.0.2.2\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n";
    let request = parse(head).expect("legal").expect("whole");
    let named = |header| request.client(header, |ip| ip.to_string().starts_with("10."));
    let from = |text: &str| Client::Address(text.parse().expect("an address"));
    assert_eq!(named(ProxyHeader::XForwardedFor), from("192.0.2.1:0"));
    assert_eq!(named(ProxyHeader::Forwarded), from("192.0.2.2:0"));
    let head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: \xff\r\nVia: x\r\n\r\n";
    let request = parse(head).expect("legal").expect("whole");
    assert_eq!(request.client(ProxyHeader::XForwardedFor, |_| true), Client::Hidden(None));
    assert_eq!(request.client(ProxyHeader::Forwarded, |_| true), Client::Unnamed);
    assert!(request.forwarded);
}

#[test]
fn a_head_is_at_most_16_kib() {
    let fill = |bytes: usize| {
        let start = GOOD.replace("\r\n\r\n", "\r\nX: ");
        let room = bytes - start.len() - 4;
        format!("{start}{}\r\n\r\n", "y".repeat(room))
    };
    assert_eq!(refusal(&fill(16 * 1024)), None);
    let long = fill(16 * 1024 + 1);
    assert_eq!(refusal(&long), Some(Refusal::HeadTooLarge));
    // Not before it is known: one byte less may still end in time.
    assert!(matches!(parse(&long.as_bytes()[..16 * 1024 - 1]), Ok(None)));
}

proptest! {
    #[test]
    fn no_input_panics(mut head in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = parse(&head);
        head.splice(0..0, *b"GET /");
        head.extend_from_slice(b" HTTP/1.1\r\nHost: x\r\n\r\n");
        if let Ok(Some(request)) = parse(&head) {
            let _ = request.upgrade();
            prop_assert!(request.query().count() <= head.len());
        }
    }

    #[test]
    fn a_changed_byte_never_panics(at in 0..GOOD.len(), byte in any::<u8>()) {
        let mut head = GOOD.as_bytes().to_vec();
        head[at] = byte;
        if let Ok(Some(request)) = parse(&head) {
            let _ = request.upgrade();
        }
    }
}
