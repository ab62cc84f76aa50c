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
    /// Looks for the request as soon as the connection is there, before it polls.
    #[arg(long)]
    receive_first: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Command { flags, receive_first } = Command::parse();
    serve(&flags, receive_first)
}
