//! `loadgen selftest`: what this load generator itself can take on this machine, so that a figure
//! near it is not mistaken for a server's.
//!
//! Knows: lanes to try, and the table of what came of them. Must not know: rings, sockets.
//!
//! The receiving side is the very one that `fanout` uses: connections, frames, ledger, histograms.

mod blaster;

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use clap::Parser as _;
use serde::Serialize;

use self::blaster::Blaster;
use crate::crew::Crew;
use crate::failure::Failure;
use crate::flags::{PublishFlags, RunFlags, SelftestFlags};
use crate::interest::Interest;
use crate::judge::Identify;
use crate::machine::Machine;
use crate::plan::{ClientPlan, Role};
use crate::publish::publish;
use crate::report::{Percentiles, Report, duration};
use crate::run::{DRAIN_MAX, Timing};
use crate::spread::Spread;
use crate::stamp::Finder;
use crate::verify::{StreamKind, Streams};

/// The result; its JSON form is the `--json` file.
#[derive(Debug, Serialize)]
struct Selftest {
    /// 1.
    schema: u32,
    machine: Machine,
    /// What receiving came to.
    receiving: Vec<Received>,
    /// How late an idle schedule of [`TIMER_PER_S`] publications per second runs.
    timer: Option<Percentiles>,
}

/// One measurement of receiving.
#[derive(Debug, Serialize)]
struct Received {
    /// Receiving threads.
    threads: u16,
    /// Payload, bytes.
    payload_bytes: usize,
    /// Many messages come with one receive.
    coalesced: bool,
    messages_per_receive: f64,
    /// Messages per second, all threads together.
    per_s: f64,
    /// The receiving threads were the limit; else the sender was, and they can take more.
    own_limit: bool,
    busy_share: f64,
    /// Processor time of receiving threads for each message, ns.
    cpu_ns_per_message: f64,
    /// What one thread with a processor to itself would take, by that.
    per_s_per_processor: f64,
    /// Anything lost, doubled, reordered or damaged: a fault of this program.
    faults: u64,
}

/// Runs all of it; prints and writes what came of it. Whether it was without a fault.
///
/// # Errors
/// [`Failure`].
pub(crate) fn selftest(flags: &SelftestFlags) -> Result<bool, Failure> {
    let mut receiving = Vec::new();
    let mut threads = vec![1];
    threads.extend((flags.threads > 1).then_some(flags.threads));
    for threads in threads {
        for (payload_bytes, coalesced) in LANES {
            receiving.push(receive(flags, threads, payload_bytes, coalesced)?);
        }
    }
    let found = Selftest { schema: 1, machine: Machine::read(), receiving, timer: timer(flags)? };
    if !flags.quiet {
        // A closed standard output is the reader's wish, no failure of the run.
        let _ = std::io::stdout().write_all(found.text().as_bytes());
    }
    if let Some(path) = &flags.json {
        let failure = |error| Failure::Write { path: path.clone(), error };
        let mut text = serde_json::to_vec_pretty(&found)
            .map_err(|error| failure(std::io::Error::other(error)))?;
        text.push(b'\n');
        std::fs::write(path, text).map_err(failure)?;
    }
    Ok(found.receiving.iter().all(|received| received.faults == 0))
}

fn receive(
    flags: &SelftestFlags,
    threads: u16,
    payload_bytes: usize,
    coalesced: bool,
) -> Result<Received, Failure> {
    let run = run_flags(threads);
    let connections = CONNECTIONS_PER_THREAD * u32::from(threads);
    let blaster = Blaster::listen(payload_bytes, coalesced).map_err(Failure::Setup)?;
    let subscriber = ClientPlan { role: Role::Subscriber { churns: false }, group: 0 };
    let timing = Timing {
        warmup: flags.duration / 4,
        duration: Some(flags.duration),
        grace: Duration::ZERO,
        drain_max: DRAIN_MAX,
    };
    let crew = Crew {
        groups: vec![blaster.target().group(Some(0))],
        clients: vec![subscriber; connections as usize],
        interests: vec![Interest::new(1, |_| true)],
        streams: Streams { names: vec!["blaster".to_owned()], kinds: vec![StreamKind::Event] },
        payload_bytes: Some(payload_bytes),
        spread: Spread::new(u64::MAX / 2),
        ..Crew::plain(&run, timing)
    };
    let start = |shared: &std::sync::Arc<_>| {
        blaster.start(connections, threads, shared);
        Vec::new()
    };
    let report = crew.run(start, || Identify::Stamp(Finder::default()))?;
    Ok(Received::new(threads, payload_bytes, coalesced, &report))
}

/// Publishes to somebody who only reads.
fn timer(flags: &SelftestFlags) -> Result<Option<Percentiles>, Failure> {
    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        flags: PublishFlags,
    }
    let blaster = Blaster::listen(0, true).map_err(Failure::Setup)?;
    let sink = blaster.target();
    let Only { flags: given } = Only::parse_from(["selftest"]);
    let publishing = PublishFlags {
        url: sink,
        rate: crate::rate::Rate::constant(TIMER_PER_S),
        duration: Some(flags.duration),
        run: run_flags(1),
        ..given
    };
    blaster.swallow();
    let report = publish(&publishing)?;
    Ok(report.conduct.sending.and_then(|sending| sending.lateness))
}

/// The defaults, quiet.
fn run_flags(threads: u16) -> RunFlags {
    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        flags: RunFlags,
    }
    let Only { flags } = Only::parse_from(["selftest", "--quiet", "--connect-rate", "0"]);
    RunFlags { threads, ..flags }
}

impl Received {
    fn new(threads: u16, payload_bytes: usize, coalesced: bool, report: &Report) -> Self {
        let messages = report.deliveries.window_messages as f64;
        let cpu_ns: u64 = report.threads.iter().map(|usage| usage.cpu_ns).sum();
        // By their own clocks: a thread with much to do looks at the window's ends late.
        let wall_ns: u64 = report.threads.iter().map(|usage| usage.wall_ns).sum();
        let wall_s = wall_ns as f64 / 1e9 / report.threads.len().max(1) as f64;
        let busy: f64 = report.threads.iter().map(|usage| usage.busy_share).sum();
        let cpu_ns_per_message = cpu_ns as f64 / messages.max(1.0);
        let faults = &report.faults;
        Self {
            threads,
            payload_bytes,
            coalesced,
            messages_per_receive: report.deliveries.counts.messages as f64
                / report.conduct.receives.max(1) as f64,
            per_s: messages / wall_s.max(1e-9),
            own_limit: report.threads.iter().all(|usage| usage.limit),
            busy_share: busy / report.threads.len().max(1) as f64,
            cpu_ns_per_message,
            per_s_per_processor: 1e9 / cpu_ns_per_message.max(1e-3),
            faults: faults.lost + faults.duplicated + faults.reordered + faults.damaged,
        }
    }
}

impl Selftest {
    /// The table. Writing to a string can't fail, hence the `let _`.
    fn text(&self) -> String {
        let mut out = String::new();
        let machine = &self.machine;
        let _ = writeln!(
            out,
            "loadgen {} ({} build), Linux {}, {}, {} processors\n\n\
             receiving                   messages/s   per receive    busy   processor time   a processor of its own",
            machine.version, machine.build, machine.kernel, machine.cpu, machine.cpus
        );
        for received in &self.receiving {
            let how = if received.coalesced { "coalesced" } else { "one by one" };
            let least = if received.own_limit { ' ' } else { '>' };
            let _ = writeln!(
                out,
                "{:>2} thread{} {:>6} B {how:<10} {least}{:>11.0} {:>12.1} {:>6.0} % {:>12.0} ns {:>18.0}/s",
                received.threads,
                if received.threads == 1 { " " } else { "s" },
                received.payload_bytes,
                received.per_s,
                received.messages_per_receive,
                received.busy_share * 100.0,
                received.cpu_ns_per_message,
                received.per_s_per_processor
            );
        }
        out.push_str(
            "> the sender was the limit, or there were too few processors: receiving takes more\n",
        );
        if let Some(timer) = &self.timer {
            let _ = writeln!(
                out,
                "\nschedule      of {TIMER_PER_S}/s, idle: late p50 {} p99 {} p99.9 {} max {}",
                duration(timer.p50_ns),
                duration(timer.p99_ns),
                duration(timer.p99_9_ns),
                duration(timer.max_ns)
            );
        }
        let faults: u64 = self.receiving.iter().map(|received| received.faults).sum();
        if faults > 0 {
            let _ = writeln!(out, "!             {faults} faults found where none are");
        }
        out
    }
}

/// Payload, bytes, and whether coalesced.
const LANES: [(usize, bool); 4] = [(128, true), (1024, true), (16_384, true), (128, false)];
const CONNECTIONS_PER_THREAD: u32 = 64;
const TIMER_PER_S: f64 = 1000.0;
