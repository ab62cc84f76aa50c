//! The upgrade: reading the request, checking it, writing the answer.

use std::hint::black_box;

use uringcast_benches::{
    requests::{BROWSER, LIBRARY},
    suite::{Group, Suite},
};
use uringcast_protocol::handshake::{Switching, accept_key, parse, write_switching};

pub(crate) fn run(suite: &Suite) {
    let mut out = Vec::with_capacity(256);
    suite.run(
        Group::new("handshake")
            .case("client library: parse", || parse(black_box(LIBRARY.as_bytes())).is_ok())
            .case("client library: parse, check, answer", || answer(LIBRARY, &mut out))
            .case("accept key alone", || accept_key(black_box(KEY))),
    );
    let mut out = Vec::with_capacity(256);
    suite.run(
        Group::new("handshake, browser")
            .case("parse", || parse(black_box(BROWSER.as_bytes())).is_ok())
            .case("parse, check, answer", || answer(BROWSER, &mut out)),
    );
}

/// Whether the request was answered with 101.
fn answer(head: &str, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Ok(Some(request)) = parse(black_box(head.as_bytes())) else { return false };
    let Ok(upgrade) = request.upgrade() else { return false };
    write_switching(out, &Switching::new(upgrade.key));
    true
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
