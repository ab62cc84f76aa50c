//! Made-up messages, the same ones at every call.
//!
//! Knows: what an exchange's messages look like. Must not know: who asks.

use std::fmt::Write as _;

use crate::groups::Message;

/// Trades, best bids and offers, and changes of the book.
pub(crate) fn exchange() -> impl Iterator<Item = Message> {
    let mut dice = Dice(1);
    (0..30_000_u64).map(move |number| {
        let price = 6_180_000 + dice.below(20_000);
        let (whole, cents) = (price / 100, price % 100);
        let size = dice.below(10_000_000);
        let (kind, payload) = match dice.below(10) {
            0..=5 => ("bookTicker", format!(
                r#"{{"u":{},"s":"BTCUSDT","b":"{whole}.{cents:02}000000","B":"0.{size:08}","a":"{whole}.{cents:02}000000","A":"0.{:08}"}}"#,
                50_093_239_212 + number, dice.below(10_000_000))),
            6..=8 => ("trade", format!(
                r#"{{"e":"trade","E":{0},"s":"BTCUSDT","t":{1},"p":"{whole}.{cents:02}000000","q":"0.{size:08}","T":{0},"m":true,"M":true}}"#,
                1_723_161_255_343 + number, 3_735_683_259 + number)),
            _ => ("depth", depth(&mut dice, number)),
        };
        Message { kind: kind.to_owned(), topic: format!("md.BTCUSDT.{kind}"), payload }
    })
}

fn depth(dice: &mut Dice, number: u64) -> String {
    let first = 50_093_239_189 + 20 * number;
    let mut out = format!(
        r#"{{"e":"depthUpdate","E":{},"s":"BTCUSDT","U":{first},"u":{}"#,
        1_723_161_255_208 + 100 * number,
        first + 19
    );
    for side in ["b", "a"] {
        let _ = write!(out, r#","{side}":["#);
        for level in 0..=dice.below(60) {
            let comma = if level == 0 { "" } else { "," };
            let (price, size) = (6_180_000 + dice.below(20_000), dice.below(1_000_000));
            let size = if dice.below(3) == 0 { 0 } else { size };
            let _ = write!(
                out,
                r#"{comma}["{}.{:02}000000","0.{size:06}00"]"#,
                price / 100,
                price % 100
            );
        }
        out.push(']');
    }
    out.push('}');
    out
}

/// Ticks of 20 to 130 bytes: one to eight short fields.
pub(crate) fn small() -> impl Iterator<Item = Message> {
    const FIELDS: [&str; 8] = ["s", "p", "q", "bid", "ask", "last", "time", "side"];
    let mut dice = Dice(2);
    (0..8_000).map(move |_| {
        let mut payload = r#"{"s":"BTCUSDT""#.to_owned();
        for field in FIELDS.iter().skip(1).take(1 + dice.below(7) as usize) {
            let (whole, cents) = (60_000 + dice.below(3_000), dice.below(100));
            let _ = write!(payload, r#","{field}":{whole}.{cents:02}"#);
        }
        payload.push('}');
        Message { kind: "small".to_owned(), topic: "md.BTCUSDT.tick".to_owned(), payload }
    })
}

/// A multiplicative generator (Lehmer, 2^31 − 1): good enough for digits.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = (self.0 * 48_271) % 0x7FFF_FFFF;
        // The lower bits of a prime modulus are as good as the upper ones.
        self.0 % end
    }
}
