//! `loadgen`, all of it but the process: a load generator for WebSocket push servers that checks what it receives.
//!
//! Knows: the order of things. Must not know: details; see each module's first lines. What is
//! planned ([`plan`]), sent ([`source`], [`stamp`]), received ([`worker`], [`client`],
//! [`frames`], [`inflate`]), checked ([`judge`], [`verify`], [`books`]), measured ([`record`], [`spread`]) and
//! told ([`report`]) are rooms of their own; only [`driver`] knows io_uring and only [`clock`]
//! clocks. From outside there is [`main`], and what [`bench`] measures.

mod agenda;
mod audience;
pub mod bench;
mod books;
mod client;
mod clock;
mod connect;
mod crew;
mod driver;
mod failure;
mod fanout;
mod flags;
mod frames;
mod inflate;
mod judge;
mod machine;
mod plan;
mod recognizer;
mod record;
mod recorded;
mod replay;
mod report;
mod run;
mod server_process;
mod shared;
mod source;
mod spread;
mod stamp;
mod synth;
mod targets;
mod ticks;
mod usage;
mod verify;
mod worker;

use std::process::ExitCode;

use clap::Parser as _;

use crate::flags::{Command, Flags};

/// Does what the command line says; the exit code is 0 if nothing was lost, 1 if something was or
/// failed, 2 on wrong use.
pub fn main() -> ExitCode {
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
