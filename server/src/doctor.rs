//! What this machine allows: for whoever asks why the server does not run, or not for more.
//!
//! Knows: in which order it is told, and which finding keeps the server from running. Must not know:
//! where the kernel says it (`facts`), what follows from it (`files`, `network`, `process`, `uring`),
//! or how it looks (`table`).

mod check;
mod facts;
mod files;
mod network;
mod process;
mod table;
mod uring;
mod wanted;

use serde::Serialize;

pub use self::check::{Check, Fix, Verdict};
use self::{facts::Facts, wanted::Wanted};
use crate::{
    flags::LowArgs,
    plan::{Machine, Mistakes, Plan},
};

/// Everything found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `serve` with the same flags would start.
    pub can_serve: bool,
    /// How many reactors it would have.
    pub reactors: usize,
    /// Connections that the limit of open files leaves to all of them, or as many as were asked for.
    pub connections_max: u64,
    /// One by one.
    pub checks: Vec<Check>,
}

/// Looks at the machine with the eyes of `serve` with these flags.
///
/// # Errors
/// The flags are wrong, and would be on any machine.
pub fn examine(low: &LowArgs) -> Result<Report, Mistakes> {
    let machine = Machine::read();
    let (plan, files_short) = plan(low, &machine)?;
    let wanted = Wanted::of(&plan, &machine, files_short);
    Ok(judge(&Facts::read(&plan), &wanted))
}

/// What `serve` would do; too few open files, which it refuses as wrong use, are a finding here.
fn plan(low: &LowArgs, machine: &Machine) -> Result<(Plan, bool), Mistakes> {
    Plan::load(low, machine).map(|plan| (plan, false)).or_else(|mistakes| {
        let ample = Machine { open_files_max: u64::MAX, ..machine.clone() };
        let mut plan = Plan::load(low, &ample).map_err(|_| mistakes)?;
        if !plan.connections_max_given {
            let most = machine.open_files_max_per_reactor(plan.reactors(), plan.tier);
            let most = most.saturating_sub(2 * u64::from(plan.accepts_in_flight));
            plan.settings.connections_max = u32::try_from(most).unwrap_or(u32::MAX).max(1);
        }
        Ok((plan, true))
    })
}

fn judge(facts: &Facts, wanted: &Wanted) -> Report {
    let checks: Vec<Check> = [
        Some(uring::kernel(facts)),
        Some(uring::allowed(facts)),
        uring::seccomp(facts),
        uring::features(facts, wanted),
        Some(uring::locked_memory(facts, wanted)),
        Some(process::reactors(wanted)),
        Some(files::open_files(facts, wanted)),
        files::open_files_most(facts),
        files::files_of_all(facts, wanted),
        process::memory(facts, wanted),
        process::threads(facts, wanted),
        network::backlog(facts, wanted),
        network::half_open(facts, wanted),
        network::socket_memory(facts, wanted),
        network::tracked(facts, wanted),
        network::local_ports(facts, wanted),
    ]
    .into_iter()
    .flatten()
    .collect();
    Report {
        can_serve: !checks.iter().any(|check| check.stops),
        reactors: wanted.reactors,
        connections_max: wanted.connections(),
        checks,
    }
}

#[cfg(test)]
mod tests {
    use uringcast_ring::RingError;

    use super::{
        facts::{Limits, tests::well},
        *,
    };

    /// Two reactors of 10,000 connections that nobody asked for.
    pub(super) fn wanted() -> Wanted {
        Wanted {
            cpus: vec![0, 1],
            cpu_quota: None,
            reactors: 2,
            connections_max: 10_000,
            asked: false,
            files_short: false,
            accepts: 128,
            base_asked: false,
            direct: true,
            backlog: 4_096,
            rings_bytes: 700_000,
            stored_bytes_max: 2 << 30,
            send_buffer_bytes: Some(512 << 10),
        }
    }

    #[test]
    fn a_machine_with_nothing_wrong_is_well() {
        let report = judge(&well(), &wanted());
        assert!(report.can_serve);
        let bad: Vec<_> = report.checks.iter().filter(|c| c.verdict != Verdict::Ok).collect();
        assert!(bad.is_empty(), "{bad:?}");
        assert_eq!(report.checks.iter().map(|check| check.fixes.len()).sum::<usize>(), 0);
    }

    #[test]
    fn a_refusal_ends_it_and_limits_do_not() {
        let refused = judge(&Facts { ring: Err(RingError::RefusedBySeccomp), ..well() }, &wanted());
        assert!(!refused.can_serve);
        let nofile = Limits { soft: Some(64), hard: Some(64) };
        let limited = Facts { nofile, somaxconn: Some(1), ..well() };
        assert!(judge(&limited, &wanted()).can_serve);
    }

    #[test]
    fn too_few_open_files_are_a_finding_and_other_mistakes_are_not() {
        let machine = |open_files_max| Machine {
            cpus: vec![0],
            cpu_quota: None,
            open_files_max,
            direct_descriptors: true,
        };
        let usual = |open_files_max| {
            let planned = plan(&LowArgs::default(), &machine(open_files_max));
            let (plan, files_short) = planned.expect("a finding");
            (plan.settings.connections_max, files_short)
        };
        // Beside 64 accepts, each twice, and 32 others.
        assert_eq!(usual(200), (40, false));
        assert_eq!(usual(100), (1, true));
        let machine = machine(150);
        let given = |name, value: &str| {
            let given = crate::flags::Given {
                name,
                value: value.to_owned(),
                place: format!("--{name}"),
                keys: None,
            };
            LowArgs { given: vec![given], ..LowArgs::default() }
        };
        let (asked, _) = plan(&given("connections-max", "5000"), &machine).expect("a finding");
        assert_eq!((asked.settings.connections_max, asked.connections_max_given), (5_000, true));
        assert!(plan(&given("reactors", "0"), &machine).is_err());
    }

    #[test]
    fn the_real_machine_is_judged() {
        let report = examine(&LowArgs::default()).expect("no flags, no mistakes");
        assert!(report.checks.iter().any(|check| check.name == "kernel"));
        assert!(report.text(false).contains("RLIMIT_NOFILE"));
    }
}
