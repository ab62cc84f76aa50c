//! `loadgen`: a load generator for WebSocket push servers that checks what it receives.
//!
//! Knows: the order of things. Must not know: details; see each module's first lines. What is
//! planned ([`plan`]), sent ([`source`], [`stamp`]), received ([`worker`], [`client`],
//! [`frames`], [`inflate`]), checked ([`judge`], [`verify`], [`books`]), measured ([`record`], [`spread`]) and
//! told ([`report`]) are rooms of their own; only [`driver`] knows io_uring and only [`clock`]
//! clocks.

mod agenda;
mod audience;
mod books;
mod client;
mod clock;
mod compare;
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
mod metrics;
mod page;
mod plan;
mod recognizer;
mod record;
mod recorded;
mod replay;
mod report;
mod run;
mod schema;
mod server_process;
mod shared;
mod source;
mod spread;
mod stamp;
mod synth;
mod targets;
mod ticks;
mod timeline;
mod usage;
mod verify;
mod view;
mod watch;
mod worker;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use crate::flags::{Command, Flags};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let matches = Flags::command().get_matches();
    let flags = Flags::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let (result, run) = match &flags.command {
        Command::Compare(flags) => return ended(compare::compare(flags)),
        Command::Schema => {
            schema::print();
            return ExitCode::SUCCESS;
        }
        Command::Connect(flags) => (connect::connect(flags), &flags.run),
        Command::Fanout(flags) => (fanout::fanout(flags), &flags.run),
        Command::Replay(flags) => (replay::replay(flags), &flags.run),
        Command::Synth(flags) => (synth::synth(flags), &flags.run),
    };
    ended(result.and_then(|mut report| {
        report.settings = settings(&matches);
        report::publish(&report, run).map(|()| report.clean)
    }))
}

/// Whether all was well, as an exit code.
fn ended(result: Result<bool, failure::Failure>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("loadgen: {failure}");
            failure.exit_code()
        }
    }
}

/// Every flag of the command with its value, defaults too.
fn settings(matches: &ArgMatches) -> BTreeMap<String, String> {
    let Some((command, flags)) = matches.subcommand() else { return BTreeMap::new() };
    let known = Flags::command();
    let Some(known) = known.find_subcommand(command) else { return BTreeMap::new() };
    let mut settings = BTreeMap::from([("command".to_owned(), command.to_owned())]);
    for id in known.get_arguments().map(clap::Arg::get_id) {
        let Ok(Some(values)) = flags.try_get_raw(id.as_str()) else { continue };
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        settings.insert(id.as_str().to_owned(), values.join(","));
    }
    settings
}
