//! The floor of accepting, as a server: whoever sends a key is answered and held, whatever the path.

#![forbid(unsafe_code)]

use std::error::Error;

use clap::Parser;
use uringcast_benches::{
    accept::{First, serve},
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
}

fn main() -> Result<(), Box<dyn Error>> {
    let Command { flags, first } = Command::parse();
    serve(&flags, first)
}
