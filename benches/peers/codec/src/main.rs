//! Our WebSocket codec beside those of other crates, on the same inputs.
//!
//! Each crate through its public API, in the cheapest way that a server could use it, over a stream
//! in memory. Ratios are to the first line of each table, from the same rounds; times are of this
//! thread on its processor. After the tables: what each does with frames that RFC 6455 forbids.

#![forbid(unsafe_code)]

// How to measure is the same as in the benches beside this crate, which this crate must not depend
// on: they would bring the server with them.
#[allow(dead_code, reason = "only one of the clocks is read here")]
#[path = "../../../src/clock.rs"]
mod clock;
mod conform;
mod handshake;
mod inputs;
mod offences;
mod receive;
mod report;
#[path = "../../../src/requests.rs"]
mod requests;
mod send;
mod stream;
#[allow(dead_code, reason = "results are printed by this crate's report")]
#[path = "../../../src/suite.rs"]
mod suite;
#[path = "../../../src/table.rs"]
mod table;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::{report::Report, suite::Suite};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Flags {
    /// Only groups whose name contains this.
    #[arg(default_value = "")]
    filter: String,
    /// How many rounds; each runs every case of a group once.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// How long one case runs in a round, microseconds.
    #[arg(long, default_value_t = 2_000)]
    sample_us: u64,
    /// Write OUT.txt and OUT.json as well.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let suite = Suite::new(flags.rounds, flags.sample_us.saturating_mul(1_000), flags.filter);
    let mut report = Report::default();
    receive::run(&suite, &mut report);
    send::run(&suite, &mut report);
    handshake::run(&suite, &mut report);
    if suite.wants("conformance") {
        report.conformance(conform::table());
    }
    if let Some(out) = flags.out
        && let Err(error) = report.write(&out)
    {
        eprintln!("{}: {error}", out.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
