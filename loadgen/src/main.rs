//! `loadgen`: a load generator for WebSocket push servers that checks what it receives.
//!
//! Knows: the order of things. Must not know: details; see each module's first lines. What is
//! planned ([`plan`], [`dial`]), sent ([`source`], [`stamp`], [`payload`]), received ([`worker`], [`client`],
//! [`frames`], [`inflate`]), checked ([`judge`], [`verify`], [`books`]), measured ([`record`], [`spread`]) and
//! told ([`report`]) are rooms of their own; only [`driver`] knows io_uring and only [`clock`]
//! clocks.

mod agenda;
mod answers;
mod audience;
mod books;
mod client;
mod clock;
mod connect;
mod crew;
mod dial;
mod driver;
mod escapes;
mod failure;
mod fanout;
mod flags;
mod frames;
mod inflate;
mod judge;
mod layers;
mod machine;
mod marker;
mod payload;
mod plan;
mod post;
mod ready;
mod recognizer;
mod record;
mod recorded;
mod replay;
mod replies;
mod report;
mod run;
mod server_process;
mod shared;
mod source;
mod spread;
mod stamp;
mod synth;
mod targets;
mod template;
mod ticks;
mod tls;
mod usage;
mod verify;
mod worker;

use std::process::ExitCode;

use clap::Parser as _;

use crate::flags::{Command, Flags};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let (result, run) = match &flags.command {
        Command::Connect(flags) => (connect::connect(flags), &flags.run),
        Command::Fanout(flags) => (fanout::fanout(flags), &flags.run),
        Command::Replay(flags) => (replay::replay(flags), &flags.run),
        Command::Synth(flags) => (synth::synth(flags), &flags.run),
    };
    match result.and_then(|report| report::publish(&report, run).map(|()| report)) {
        Ok(report) if report.clean => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("loadgen: {failure}");
            failure.exit_code()
        }
    }
}
