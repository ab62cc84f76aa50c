//! Whether a lane waits for others: `fairness`, the whole shard on the null ring.
//!
//! Knows: which cases, and how to show them. Must not know: how they are counted.
//!
//! A ring's table of sockets bounds what a machine can try for real (`scripts/compare_fairness.py`);
//! here a lane has as many subscribers as one likes, and a send costs nothing. Sends are counted, and
//! are the same on every machine; times are of the shard's own work for a slice, without the kernel's.

#![forbid(unsafe_code)]

use clap::Parser;
use uringcast_benches::{
    fairness::{Among, Arrival, Beside, Served, append_ns},
    table::Table,
};

/// Counts what lanes of few subscribers and of many wait for each other, and times a publication that
/// goes to thousands of lanes.
#[derive(Debug, Parser)]
struct Flags {
    /// Subscribers of the large lane.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    large: u32,
    /// Subscribers of the small lane beside it.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    small: u32,
    /// Publications to the small lane, in each case.
    #[arg(long, default_value_t = 10_000)]
    publications: u64,
    /// Lanes of one subscriber.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=90_000))]
    ones: u32,
    /// Subscribers of the lane beside them.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    many: u32,
    /// Slices in which they wait for each other.
    #[arg(long, default_value_t = 2_000)]
    slices: u64,
}

fn main() {
    let flags = Flags::parse();
    beside(&flags);
    among(&flags);
    let lanes = flags.ones;
    let took_ns = append_ns(lanes, APPENDS);
    let (median, spread) = (micros(took_ns.median), spread(took_ns.low, took_ns.high));
    println!(
        "one publication to {lanes} lanes of one, appended in one step: CPU µs {median} ({spread})"
    );
}

fn beside(flags: &Flags) {
    let title = format!(
        "a lane of {} beside one of {} that always has something to send: sends to others between a publication and its delivery",
        flags.small, flags.large
    );
    let head =
        ["", "deliveries", "median", "p99", "max", "KiB, max", "slice: CPU µs", "spread", "idle"];
    let mut table = Table::new(title, head);
    let cases = [
        ("published just after its slice", Arrival::Close, 128),
        ("at any time", Arrival::Chance(8), 128),
        ("just after its slice, 60,000 B to the large lane", Arrival::Close, 60_000),
    ];
    for (name, arrival, payload_bytes) in cases {
        let &Flags { large, small, publications, .. } = flags;
        let waits = Beside { large, small, publications, payload_bytes, arrival }.run();
        let kib = waits.bytes.last().map_or(0, |bytes| bytes >> 10);
        table.row([
            name.to_owned(),
            waits.sends.len().to_string(),
            rank(&waits.sends, 50),
            rank(&waits.sends, 99),
            rank(&waits.sends, 100),
            kib.to_string(),
            micros(waits.slice_ns.median),
            spread(waits.slice_ns.low, waits.slice_ns.high),
            waits.idle_ticks.to_string(),
        ]);
    }
    println!("{table}");
}

fn among(flags: &Flags) {
    let &Flags { ones, many, slices, .. } = flags;
    let shares = Among { ones, many, slices }.run();
    let sends = shares.ones.sends + shares.many.sends;
    let title = format!(
        "{ones} lanes of one and one of {many}, all with something to send: {sends} sends in {slices} slices, {} idle",
        shares.idle_ticks
    );
    let head = [
        "",
        "sends",
        "share",
        "longest wait",
        "rotation: median",
        "max",
        "visits, least",
        "slice: CPU µs",
        "spread",
    ];
    let mut table = Table::new(title, head);
    for (name, served) in [("the lanes of one", &shares.ones), ("the lane of many", &shares.many)] {
        table.row(row(name, served, sends));
    }
    println!("{table}");
}

fn row(name: &str, served: &Served, sends: u64) -> [String; 9] {
    [
        name.to_owned(),
        served.sends.to_string(),
        format!("{:.2} %", 100.0 * served.sends as f64 / sends as f64),
        served.wait_max.to_string(),
        rank(&served.rotations, 50),
        served.rotation_max.to_string(),
        served.visits_min.to_string(),
        micros(served.slice_ns.median),
        spread(served.slice_ns.low, served.slice_ns.high),
    ]
}

fn micros(ns: f64) -> String {
    format!("{:.1}", ns / 1e3)
}

fn spread(low_ns: f64, high_ns: f64) -> String {
    format!("{}–{}", micros(low_ns), micros(high_ns))
}

/// The value below which so many of a hundred are.
fn rank(rising: &[u64], percent: usize) -> String {
    let last = rising.len().saturating_sub(1);
    rising.get(last * percent / 100).map_or_else(|| "–".to_owned(), u64::to_string)
}

/// Publications to all lanes of one, each timed.
const APPENDS: u64 = 50;
