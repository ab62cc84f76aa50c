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
    requests::{BROWSER, LIBRARY},
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
