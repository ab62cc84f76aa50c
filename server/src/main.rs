//! The binary `uringcast`: what was asked for, in order.
//!
//! Knows: subcommands and exit codes. Must not know: how anything is done.

#![forbid(unsafe_code)]

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use mimalloc::MiMalloc;
use rustix::thread::disable_transparent_huge_pages;
use uringcast::{
    doctor,
    flags::{self, Invocation, LowArgs},
    logging,
    plan::{Machine, Plan},
    serve,
};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Failed while running.
const FAILED: u8 = 1;
/// Wrong use.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    // Before anything is allocated. What grows with connections is small and grows slowly: in huge
    // pages, which the allocator asks for, each connection takes twice as much and a server without any
    // 20 MB more, while a delivery takes no less time. Where it is refused, memory is all it costs.
    let _ = disable_transparent_huge_pages(true);
    let invocation = match flags::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => error.exit(),
    };
    match invocation {
        Invocation::CheckConfig(path) => {
            let low = LowArgs { config: Some(path.clone()), ..LowArgs::default() };
            match Plan::load(&low, &Machine::read()) {
                Ok(_) => {
                    println!("{}: no mistakes", path.display());
                    ExitCode::SUCCESS
                }
                Err(mistakes) => wrong_use(&mistakes),
            }
        }
        Invocation::Doctor { low, json } => match doctor::examine(&low) {
            Ok(report) => {
                // As https://no-color.org wants it.
                let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                let coloured = !plain && io::stdout().is_terminal();
                let text = if json { report.json() } else { report.text(coloured) };
                // Whoever reads may have seen enough; the exit code says the same.
                let _ = io::stdout().write_all(text.as_bytes());
                ExitCode::from(if report.can_serve { 0 } else { FAILED })
            }
            Err(mistakes) => wrong_use(&mistakes),
        },
        Invocation::Serve(low) => match Plan::load(&low, &Machine::read()) {
            Ok(plan) => run(plan),
            Err(mistakes) => wrong_use(&mistakes),
        },
    }
}

fn run(plan: Plan) -> ExitCode {
    let logging = match logging::start(plan.log_format, &plan.log_filter) {
        Ok(logging) => logging,
        Err(error) => {
            eprintln!("uringcast: {error}");
            return ExitCode::from(FAILED);
        }
    };
    match serve::serve(plan, &logging) {
        Ok(code) => code,
        Err(error) => {
            // Not by the log: it may be filtered out, and this is why there is no server.
            eprintln!("uringcast: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn wrong_use(mistakes: &uringcast::plan::Mistakes) -> ExitCode {
    eprintln!("{mistakes}");
    ExitCode::from(WRONG_USE)
}
