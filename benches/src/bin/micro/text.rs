//! Checking UTF-8, beside the standard library's check.

use std::{hint::black_box, str};

use uringcast_benches::suite::{Group, Suite};
use uringcast_protocol::utf8::Utf8Checker;

pub(crate) fn run(suite: &Suite) {
    for (kind, unit) in [("JSON", r#"{"p":"61234.50","q":"0.010"}"#), ("Greek", "τιμή αγοράς ")]
    {
        for bytes in [128, 1 << 10, 64 << 10] {
            let name = format!("utf-8: {kind}, {bytes} B");
            if !suite.wants(&name) {
                continue;
            }
            let text = unit.repeat(bytes / unit.len() + 1);
            let text = &text.as_bytes()[..floor_boundary(&text, bytes)];
            // Cut anywhere, often inside a character.
            let (first, second) = text.split_at(text.len() / 2 + 1);
            suite.run(
                Group::new(name)
                    .bytes(text.len() as u64)
                    .case("the standard library", || str::from_utf8(black_box(text)).is_ok())
                    .case("whole", || check(&[black_box(text)]))
                    .case("in two pieces", || check(&[black_box(first), black_box(second)])),
            );
        }
    }
}

fn check(pieces: &[&[u8]]) -> bool {
    let mut checker = Utf8Checker::new();
    pieces.iter().all(|piece| checker.check(piece).is_ok()) && checker.finish().is_ok()
}

/// The largest character boundary that is not after `bytes`.
fn floor_boundary(text: &str, bytes: usize) -> usize {
    (0..=bytes.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}
