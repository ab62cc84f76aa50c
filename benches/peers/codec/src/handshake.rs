//! The upgrade at a server: the request read and checked, the answer written.
//!
//! Knows: how each crate is asked. Must not know: frames.

use std::{convert::Infallible, sync::Arc};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio_websockets::ServerBuilder;
use tungstenite::handshake::{machine::TryParse as _, server};
use uringcast_protocol::handshake::{Switching, parse, write_switching};

use crate::{
    report::Report,
    stream::{Wire, ready},
    suite::{Group, Suite},
};

pub(crate) fn run(suite: &Suite, report: &mut Report) {
    for (name, head) in [("handshake, library", LIBRARY), ("handshake, browser", BROWSER)] {
        let head: Arc<[u8]> = head.as_bytes().into();
        let wire = || Wire::once(Arc::clone(&head));
        let (mut out, mut their_out) = (Vec::new(), Vec::new());
        let group = Group::new(name)
            .case("uringcast-protocol", || ours(&mut wire(), &mut out))
            .case("tungstenite", || tungstenite(&mut wire(), &mut their_out))
            .case("fastwebsockets, hyper", || fastwebsockets(wire()))
            .case("tokio-websockets", || {
                let accepted = ready(ServerBuilder::new().accept(wire()));
                accepted.expect("the wire has all of it").expect("a legal request")
            });
        report.measured(suite.measure(group));
    }
}

fn ours(wire: &mut Wire, out: &mut Vec<u8>) {
    let mut received = [0; HEAD_BYTES_MAX];
    let bytes = wire.take(&mut received).expect("the wire has all of it");
    let request = parse(&received[..bytes]).expect("a legal request").expect("all of it");
    let upgrade = request.upgrade().expect("a legal request");
    out.clear();
    write_switching(out, &Switching::new(upgrade.key));
    wire.give_all(out);
}

fn tungstenite(wire: &mut Wire, out: &mut Vec<u8>) {
    let mut received = [0; HEAD_BYTES_MAX];
    let bytes = wire.take(&mut received).expect("the wire has all of it");
    let request = server::Request::try_parse(&received[..bytes]).expect("a legal request");
    let (_, request) = request.expect("all of it");
    let response = server::create_response(&request).expect("a legal request");
    out.clear();
    server::write_response(&mut *out, &response).expect("a vector takes all");
    wire.give_all(out);
}

/// It has no reader of requests: hyper's is the usual one.
fn fastwebsockets(wire: Wire) {
    let service = service_fn(async |request: Request<Incoming>| {
        let (response, _) = fastwebsockets::upgrade::upgrade(request).expect("a legal request");
        Ok::<_, Infallible>(response)
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(wire), service);
    ready(connection.with_upgrades()).expect("the wire has all of it").expect("a legal request");
}

const HEAD_BYTES_MAX: usize = 2 << 10;

const LIBRARY: &str = "GET /raw/md.BTCUSDT.trade HTTP/1.1\r\n\
    Host: 127.0.0.1:9001\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

const BROWSER: &str = "GET /ws?topics=md.BTCUSDT.trade,md.*.bookTicker&hello=1 HTTP/1.1\r\n\
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
