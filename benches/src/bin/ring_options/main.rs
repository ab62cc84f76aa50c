//! What options of io_uring come to at the shapes of our hot paths: `ring_options [FILTER]`.
//!
//! Knows: which groups there are. Must not know: how any is measured.
//!
//! The real ring, on loopback sockets; the cases of a group take turns on one set of sockets, and a ratio
//! is of two figures of the same round. Costs are processor time of the thread that has the ring. What
//! came of it stands in ARCHITECTURE.md, "Options measured".

#![forbid(unsafe_code)]

mod batch;
mod enter;
mod gather;
mod idle;
mod min_wait;
mod napi;
mod pages;
mod receive;
mod sockets;
mod turns;

use std::{error::Error, fs, path::PathBuf};

use clap::Parser;
use uringcast_ring::pin::{pin_current_thread, raise_nofile_limit};

use crate::{sockets::Sockets, turns::Report};

/// Measures options of the ring: sends per enter, sends of several pieces, ways to receive, batched waits,
/// queues without an array, huge pages, busy polling.
#[derive(Debug, Parser)]
struct Flags {
    /// Only groups whose name contains this.
    #[arg(default_value = "")]
    filter: String,
    /// How many rounds; each runs every case of a group once.
    #[arg(long, default_value_t = 61, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Connections; one process needs two descriptors for each.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Keeps the thread that has the ring on this CPU.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Keeps the thread of the publishers, where there is one, on this CPU.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Writes the figures of every round here.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    pin_current_thread(flags.cpu)?;
    raise_nofile_limit()?;
    let mut report = Report::new(&flags.filter, flags.rounds);
    let sockets = Sockets::open(flags.connections)?;
    batch::run(&mut report, &sockets)?;
    enter::run(&mut report)?;
    gather::run(&mut report, &sockets)?;
    pages::run(&mut report, &sockets)?;
    receive::run(&mut report, &sockets)?;
    idle::run(&mut report, &sockets)?;
    napi::run(&mut report, &sockets)?;
    min_wait::run(&mut report, &sockets, flags.cpu, flags.client_cpu)?;
    if let Some(path) = &flags.json {
        fs::write(path, report.json())?;
    }
    Ok(())
}
