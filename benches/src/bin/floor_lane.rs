//! The bare lane, as a server: one log, a cursor per subscriber, one send of all it has not got.
//!
//! A client that asks for a path beginning with `/pub` publishes to all the others.

#![forbid(unsafe_code)]

use std::error::Error;

use clap::Parser;
use uringcast_benches::{
    floor::{Flags, serve},
    lane::Lane,
};

/// The bare lane: one log, a cursor per subscriber, one send of all it has not got.
#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    flags: Flags,
}

fn main() -> Result<(), Box<dyn Error>> {
    serve(&Command::parse().flags, Lane::new())
}
