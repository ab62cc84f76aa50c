//! What the parts cost, one by one: `micro [FILTER]`.
//!
//! Ratios are to the first line of each table, from the same rounds; times are of this thread on
//! its processor.

#![forbid(unsafe_code)]

mod fanout;
mod frames;
mod handshake;
mod messages;
mod subscriber;
mod text;
mod topics;
mod unmask;

use clap::Parser;
use uringcast_benches::suite::Suite;

/// Measures unmasking, framing, UTF-8, messages, the handshake, topic
/// matching, a whole shard without the kernel, and what the load generator does with a message.
#[derive(Debug, Parser)]
struct Flags {
    /// Only groups whose name contains this.
    #[arg(default_value = "")]
    filter: String,
    /// How many rounds; each runs every case of a group once.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// How long one case runs in a round, microseconds.
    #[arg(long, default_value_t = 2_000)]
    sample_us: u64,
}

fn main() {
    let flags = Flags::parse();
    let suite = Suite::new(flags.rounds, flags.sample_us.saturating_mul(1_000), flags.filter);
    unmask::run(&suite);
    frames::run(&suite);
    text::run(&suite);
    messages::run(&suite);
    handshake::run(&suite);
    topics::run(&suite);
    fanout::run(&suite);
    subscriber::run(&suite);
}
