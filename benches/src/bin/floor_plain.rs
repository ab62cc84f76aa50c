//! The plain floor, as a server: one pre-made frame per send to each subscriber.
//!
//! A client that asks for a path beginning with `/pub` publishes to all the others.

#![forbid(unsafe_code)]

use std::error::Error;

use clap::Parser;
use uringcast_benches::{
    floor::{Flags, serve},
    plain::Plain,
};

/// The plain floor: one pre-made frame per send to each subscriber.
#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    flags: Flags,
}

fn main() -> Result<(), Box<dyn Error>> {
    serve(&Command::parse().flags, Plain::new())
}
