//! The floor of accepting, as a server: whoever sends a key is answered and held, whatever the path.

#![forbid(unsafe_code)]

use std::{error::Error, time::Duration};

use clap::Parser;
use uringcast_benches::{
    accept::{First, Held, serve},
    floor::Flags,
};

/// The floor of accepting: finds the request's key, answers 101, and holds the connection.
#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    flags: Flags,
    /// How a request is waited for.
    #[arg(long, value_enum, default_value = "wait")]
    first: First,
    /// How an open connection waits for what its client may say.
    #[arg(long, value_enum, default_value = "poll")]
    held: Held,
    /// Each connection is sent a Ping once in so many ms; 0: never.
    #[arg(long, default_value_t = 0)]
    ping_interval_ms: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Command { flags, first, held, ping_interval_ms } = Command::parse();
    let interval = (ping_interval_ms > 0).then(|| Duration::from_millis(ping_interval_ms));
    serve(&flags, first, held, interval)
}
