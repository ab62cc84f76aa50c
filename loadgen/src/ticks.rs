//! Made-up market data: plausible, and the same for the same seed.
//!
//! Knows: random walks, popularity, bursts, the shape of exchange messages. Must not know: real
//! time, sockets.
//!
//! Popularity of the instruments falls as 1/rank (Zipf); prices walk at random; ticks come at
//! exponential distances whose mean changes between calm and burst; of a hundred ticks about 70
//! are bookTickers, 20 trades and 10 depth updates, as in a recorded hour of an exchange. Times in
//! messages are those of the made-up exchange, which opens at [`OPEN_MS`].

use std::io::Write as _;

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;

use crate::stamp::{DIGITS, MARKER};

/// Kinds of ticks, in the order of their topics.
pub(crate) const KINDS: [&str; 3] = ["trade", "bookTicker", "depth"];

/// The market.
pub(crate) struct Market {
    random: Pcg64,
    instruments: Vec<Instrument>,
    /// Sums of the popularities up to each instrument.
    popularity: Vec<f64>,
    ticks_per_s: f64,
    /// Time since the opening, ns.
    at_ns: f64,
    /// When the present calm or burst ends.
    mood_until_ns: f64,
    burst: bool,
}

struct Instrument {
    symbol: String,
    /// In ticks of 0.01.
    price: i64,
    trade_id: u64,
    update_id: u64,
}

/// What has happened, in the buffer given to [`Market::tick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick {
    /// Since the opening, ns.
    pub(crate) at_ns: u64,
    /// Index of the topic: instrument times 3 plus kind.
    pub(crate) topic: u16,
}

impl Market {
    pub(crate) fn new(symbols: u16, ticks_per_s: f64, seed: u64) -> Self {
        let mut random = Pcg64::seed_from_u64(seed);
        let instruments = (0..symbols)
            .map(|number| Instrument {
                symbol: format!("S{number:04}"),
                price: random.random_range(500..5_000_000),
                trade_id: random.random_range(1_000_000..1_000_000_000),
                update_id: random.random_range(1_000_000_000..100_000_000_000),
            })
            .collect();
        let popularity = (1..=u32::from(symbols))
            .scan(0.0, |sum, rank| {
                *sum += 1.0 / f64::from(rank);
                Some(*sum)
            })
            .collect();
        Self {
            random,
            instruments,
            popularity,
            ticks_per_s,
            at_ns: 0.0,
            mood_until_ns: 0.0,
            burst: true,
        }
    }

    /// Names of all topics, in order.
    pub(crate) fn topics(&self) -> Vec<String> {
        let of =
            |instrument: &Instrument| KINDS.map(|kind| format!("md.{}.{kind}", instrument.symbol));
        self.instruments.iter().flat_map(of).collect()
    }

    /// The next tick; appends its JSON to `out`, with zeros where a stamp's digits go, at
    /// [`stamp_offset`] from its beginning.
    pub(crate) fn tick(&mut self, out: &mut Vec<u8>) -> Tick {
        self.advance();
        let total = self.popularity.last().copied().unwrap_or(1.0);
        let drawn = self.random.random::<f64>() * total;
        let index = self.popularity.partition_point(|&sum| sum < drawn);
        let index = index.min(self.instruments.len() - 1);
        let kind = match self.random.random_range(0..100) {
            0..20 => 0,
            20..90 => 1,
            _ => 2,
        };
        let now_ms = OPEN_MS + self.at_ns as u64 / 1_000_000;
        let instrument = &mut self.instruments[index];
        let step = self.random.random_range(-3..=3);
        instrument.price = (instrument.price + step).max(100);
        out.push(b'{');
        out.extend_from_slice(MARKER);
        out.resize(out.len() + DIGITS, b'.');
        match kind {
            0 => instrument.trade(now_ms, &mut self.random, out),
            1 => instrument.book_ticker(&mut self.random, out),
            _ => instrument.depth(now_ms, &mut self.random, out),
        }
        Tick { at_ns: self.at_ns as u64, topic: (index * KINDS.len() + kind) as u16 }
    }

    /// Time goes on to the next tick.
    fn advance(&mut self) {
        if self.at_ns >= self.mood_until_ns {
            self.burst = !self.burst;
            let mean_ns = if self.burst { BURST_NS } else { CALM_NS };
            self.mood_until_ns = self.at_ns + self.exponential() * mean_ns;
        }
        let factor = if self.burst { BURST_FACTOR } else { CALM_FACTOR };
        self.at_ns += self.exponential() * 1e9 / (self.ticks_per_s * factor);
    }

    /// Exponentially distributed, mean 1.
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.random.random::<f64>()).ln()
    }
}

impl Instrument {
    fn trade(&mut self, now_ms: u64, random: &mut Pcg64, out: &mut Vec<u8>) {
        self.trade_id += 1;
        let Self { symbol, trade_id, .. } = self;
        let (price, quantity, maker) =
            (Price(self.price), quantity(random), random.random_bool(0.5));
        // Writing to a vector can't fail; the same below.
        let _ = write!(
            out,
            r#"","e":"trade","E":{now_ms},"T":{now_ms},"s":"{symbol}","t":{trade_id},"p":"{price}","q":"{quantity}","m":{maker}}}"#
        );
    }

    fn book_ticker(&mut self, random: &mut Pcg64, out: &mut Vec<u8>) {
        self.update_id += random.random_range(1..20);
        let Self { symbol, update_id, .. } = self;
        let (bid, ask) = (Price(self.price), Price(self.price + random.random_range(1..5)));
        let (bid_size, ask_size) = (quantity(random), quantity(random));
        let _ = write!(
            out,
            r#"","u":{update_id},"s":"{symbol}","b":"{bid}","B":"{bid_size}","a":"{ask}","A":"{ask_size}"}}"#
        );
    }

    fn depth(&mut self, now_ms: u64, random: &mut Pcg64, out: &mut Vec<u8>) {
        let first = self.update_id + 1;
        self.update_id += random.random_range(1..40);
        let Self { symbol, update_id, .. } = self;
        let _ = write!(
            out,
            r#"","e":"depthUpdate","E":{now_ms},"s":"{symbol}","U":{first},"u":{update_id},"b":["#
        );
        self.levels(-1, random, out);
        out.extend_from_slice(b"],\"a\":[");
        self.levels(1, random, out);
        out.extend_from_slice(b"]}");
    }

    /// Levels of the book away from the price; a size of 0 removes one.
    fn levels(&self, side: i64, random: &mut Pcg64, out: &mut Vec<u8>) {
        // A few, sometimes many.
        let count = 1 + (8.0 * -(1.0 - random.random::<f64>()).ln()) as usize;
        let mut price = self.price;
        for level in 0..count.min(LEVELS_MAX) {
            price = (price + side * random.random_range(1..10)).max(1);
            let size = if random.random_bool(0.3) { Quantity(0) } else { quantity(random) };
            let comma = if level == 0 { "" } else { "," };
            let _ = write!(out, r#"{comma}["{}","{size}"]"#, Price(price));
        }
    }
}

/// Where a stamp's digits go in a tick.
pub(crate) const fn stamp_offset() -> usize {
    1 + MARKER.len()
}

fn quantity(random: &mut Pcg64) -> Quantity {
    Quantity((-(1.0 - random.random::<f64>()).ln() * 50_000.0) as u64 + 1)
}

/// Hundredths, as a decimal.
struct Price(i64);

impl std::fmt::Display for Price {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// Hundred-thousandths, as a decimal.
struct Quantity(u64);

impl std::fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{:05}", self.0 / 100_000, self.0 % 100_000)
    }
}

/// 2024-08-08 00:00 UTC, ms since 1970.
const OPEN_MS: u64 = 1_723_075_200_000;
/// Bursts last 100 ms on average, calms 900 ms; the factors make the mean rate come out as asked:
/// (100 × 4 + 900 × 0.667) / 1000 = 1.
const BURST_NS: f64 = 100e6;
const CALM_NS: f64 = 900e6;
const BURST_FACTOR: f64 = 4.0;
const CALM_FACTOR: f64 = 2.0 / 3.0;
const LEVELS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64, ticks: usize) -> (Vec<Tick>, Vec<u8>) {
        let mut market = Market::new(10, 1000.0, seed);
        let mut out = Vec::new();
        let ticks = (0..ticks)
            .map(|_| {
                let tick = market.tick(&mut out);
                out.push(b'\n');
                tick
            })
            .collect();
        (ticks, out)
    }

    #[test]
    fn the_same_seed_gives_the_same_ticks() {
        assert_eq!(first(7, 500), first(7, 500));
        assert_ne!(first(7, 500).1, first(8, 500).1);
    }

    #[test]
    fn ticks_are_json_in_order_at_about_the_rate_and_the_first_instrument_leads() {
        let (ticks, text) = first(1, 60_000);
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).take(3000) {
            serde_json::from_slice::<serde_json::Value>(line).expect("JSON");
        }
        assert!(ticks.is_sorted_by_key(|tick| tick.at_ns));
        let seconds = ticks.last().map_or(0.0, |tick| tick.at_ns as f64 / 1e9);
        assert!((50.0..72.0).contains(&seconds), "{seconds} s for 60 s of ticks");
        let of = |instrument| ticks.iter().filter(|tick| tick.topic / 3 == instrument).count();
        assert!(of(0) > 2 * of(3) && of(9) > 0, "{} {} {}", of(0), of(3), of(9));
        assert_eq!(Market::new(10, 1.0, 1).topics()[4], "md.S0001.bookTicker");
    }
}
