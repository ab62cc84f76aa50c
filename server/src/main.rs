//! The binary `uringcast`: what was asked for, in order.
//!
//! Knows: subcommands and exit codes. Must not know: how anything is done.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimalloc::MiMalloc;
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
        Invocation::Doctor => {
            let machine = Machine::read();
            match Plan::load(&LowArgs::default(), &machine) {
                Ok(plan) => {
                    print!("{}", doctor::report(&machine, &plan));
                    ExitCode::SUCCESS
                }
                Err(mistakes) => wrong_use(&mistakes),
            }
        }
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
