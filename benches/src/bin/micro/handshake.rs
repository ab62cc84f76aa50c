//! The upgrade: reading the request, checking it, writing the answer.

use std::hint::black_box;

use uringcast_benches::suite::{Group, Suite};
use uringcast_protocol::handshake::{Switching, accept_key, parse, write_switching};

pub(crate) fn run(suite: &Suite) {
    let mut out = Vec::with_capacity(256);
    suite.run(
        Group::new("handshake")
            .case("client library: parse", || parse(black_box(LIBRARY)).is_ok())
            .case("client library: parse, check, answer", || answer(LIBRARY, &mut out))
            .case("accept key alone", || accept_key(black_box(KEY))),
    );
    let mut out = Vec::with_capacity(256);
    suite.run(
        Group::new("handshake, browser")
            .case("parse", || parse(black_box(BROWSER)).is_ok())
            .case("parse, check, answer", || answer(BROWSER, &mut out)),
    );
}

/// Whether the request was answered with 101.
fn answer(head: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let Ok(Some(request)) = parse(black_box(head)) else { return false };
    let Ok(upgrade) = request.upgrade() else { return false };
    write_switching(out, &Switching::new(upgrade.key));
    true
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const LIBRARY: &[u8] = b"GET /raw/md.BTCUSDT.trade HTTP/1.1\r\n\
    Host: 127.0.0.1:9001\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

const BROWSER: &[u8] = b"GET /ws?topics=md.BTCUSDT.trade,md.*.bookTicker&hello=1 HTTP/1.1\r\n\
    Host: push.example.org:9001\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/140.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: https://push.example.org\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-US,en;q=0.9\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    Sec-WebSocket-Protocol: uringcast.v1.json\r\n\r\n";
