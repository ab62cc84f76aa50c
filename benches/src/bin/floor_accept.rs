//! The floor of accepting, as a server: whoever sends a key is answered and held, whatever the path.

#![forbid(unsafe_code)]

use std::error::Error;

use clap::Parser;
use uringcast_benches::{accept::serve, floor::Flags};

/// The floor of accepting: finds the request's key, answers 101, and holds the connection.
#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    flags: Flags,
    /// Polls each new connection before it receives: what that costs beside receiving at once.
    #[arg(long)]
    poll_first: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Command { flags, poll_first } = Command::parse();
    serve(&flags, poll_first)
}
