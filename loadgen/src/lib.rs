//! `loadgen`, all of it but the process: a load generator for WebSocket push servers that checks what it receives.
//!
//! Knows: the order of things. Must not know: details; see each module's first lines. What is
//! planned (`plan`), sent (`source`, `stamp`), received (`worker`, `client`,
//! `frames`, `inflate`), checked (`judge`, `verify`, `books`), measured (`record`, `spread`) and
//! told (`report`) are rooms of their own; only `driver` knows io_uring and only `clock`
//! clocks. From outside there is [`main`], and what [`mod@bench`] measures.

mod acks;
mod agenda;
mod answers;
mod audience;
pub mod bench;
mod books;
mod burst;
mod client;
mod clock;
mod compare;
mod conduct;
mod connect;
mod crew;
mod dial;
mod driver;
mod escapes;
mod failure;
mod fanout;
mod find_max;
mod flags;
mod frames;
mod help;
mod inflate;
mod interest;
mod judge;
mod layers;
mod machine;
mod marker;
mod metrics;
mod page;
mod payload;
mod plan;
mod post;
mod publish;
mod rate;
mod ready;
mod recognizer;
mod record;
mod recorded;
mod replay;
mod replies;
mod report;
mod run;
mod scenario;
mod schema;
mod selftest;
mod server_process;
mod shared;
mod source;
mod spread;
mod stamp;
mod steps;
mod synth;
mod targets;
mod template;
mod ticks;
mod timeline;
mod tls;
mod usage;
mod verify;
mod view;
mod watch;
mod watchlists;
mod worker;

use std::io::Write as _;
use std::process::ExitCode;

use crate::failure::Failure;
use crate::flags::{Command, ScenarioFlags};
use crate::help::Settings;

/// Does what the command line says; the exit code is 0 if nothing was lost, 1 if something was or
/// failed, 2 on wrong use.
pub fn main() -> ExitCode {
    let (flags, settings) = help::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let ended = match &flags.command {
        Command::Run(scenario) => play(scenario),
        command => run(command, settings, None),
    };
    ExitCode::from(match ended {
        Ok(ended) => u8::from(!ended.clean),
        Err(failure) => {
            eprintln!("loadgen: {failure}");
            failure.exit_code()
        }
    })
}

/// How a run ended, if it did not fail.
#[derive(Clone, Copy, Debug)]
struct Ended {
    clean: bool,
    /// By a signal: what was to follow does not.
    interrupted: bool,
}

/// One command; `line` is what to report as the command line.
fn run(command: &Command, settings: Settings, line: Option<&[String]>) -> Result<Ended, Failure> {
    let (result, run) = match command {
        Command::Compare(flags) => {
            return Ok(Ended { clean: compare::compare(flags)?, interrupted: false });
        }
        Command::Schema => {
            schema::print();
            return Ok(Ended { clean: true, interrupted: false });
        }
        Command::Connect(flags) => (connect::connect(flags), &flags.run),
        Command::Fanout(flags) => (fanout::fanout(flags), &flags.run),
        Command::Publish(flags) => (publish::publish(flags), &flags.run),
        Command::Replay(flags) => (replay::replay(flags), &flags.run),
        Command::Synth(flags) => (synth::synth(flags), &flags.run),
        Command::Watchlists(flags) => (watchlists::watchlists(flags), &flags.run),
        Command::Selftest(flags) => {
            return Ok(Ended { clean: selftest::selftest(flags)?, interrupted: false });
        }
        // A scenario's command is never `run` (see `scenario`).
        Command::Run(flags) => return play(flags),
    };
    let mut report = result?;
    report.settings = settings;
    if let Some(line) = line {
        line.clone_into(&mut report.machine.command);
    }
    report::publish(&report, run)?;
    Ok(Ended { clean: report.clean, interrupted: report.conduct.interrupted })
}

/// One step of a scenario after another; the worst end counts.
fn play(flags: &ScenarioFlags) -> Result<Ended, Failure> {
    let lines = scenario::lines(flags, &help::command(false))?;
    let mut steps = Vec::with_capacity(lines.len());
    // All are read before the first is run.
    for line in &lines {
        let arguments = line.arguments.iter().map(Into::into);
        steps.push(help::parse(arguments).unwrap_or_else(|error| {
            eprintln!("{}: {}", flags.file.display(), line.title);
            error.exit()
        }));
    }
    let mut all = Ended { clean: true, interrupted: false };
    for (line, (step, settings)) in lines.iter().zip(steps) {
        let quiet = line.arguments.iter().any(|argument| argument == "--quiet");
        if !line.title.is_empty() && !quiet {
            let _ = writeln!(std::io::stdout(), "\n== {}", line.title);
        }
        let ended = run(&step.command, settings, Some(&line.arguments))?;
        all = Ended { clean: all.clean && ended.clean, interrupted: ended.interrupted };
        if all.interrupted {
            break;
        }
    }
    Ok(all)
}
