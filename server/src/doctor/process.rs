//! Whether the process may have the cores, the memory and the threads that it would use.
//!
//! Knows: what a connection takes when it is idle. Must not know: where facts are read.

use super::{
    check::{Check, DOCKER, SYSTEMD, bytes, count, several},
    facts::{Facts, Use},
    wanted::Wanted,
};

pub(super) fn reactors(wanted: &Wanted) -> Check {
    let mut cores = wanted.cpus.clone();
    cores.sort_unstable();
    cores.dedup();
    let quota = wanted.cpu_quota.map_or_else(|| "none".to_owned(), |cores| count(cores as u64));
    let found = format!("{} on cores {}; CPU quota {quota}", wanted.reactors, list(&cores));
    let check = Check::ok("reactors", found);
    let at_a_time = cores.len().min(wanted.cpu_quota.unwrap_or(usize::MAX));
    if wanted.reactors > at_a_time {
        check
            .note()
            .why(format!("at most {at_a_time} run at a time, so that they wait for each other"))
            .fix("on the command line", format!("--reactors {at_a_time}"))
    } else {
        check
    }
}

fn list(cpus: &[usize]) -> String {
    cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The machine's memory and the cgroups' bound, whichever leaves less.
pub(super) fn memory(facts: &Facts, wanted: &Wanted) -> Option<Check> {
    let memory = facts.memory;
    if memory.total == 0 {
        return None;
    }
    let machine = format!("{} of {} available", bytes(memory.available), bytes(memory.total));
    let (found, left) = match memory.group {
        Some(group) if group.left() < memory.available => {
            let of = format!("{} of the cgroup's {} left", bytes(group.left()), bytes(group.most));
            (format!("{of}; {machine}"), group.left())
        }
        _ => (machine, memory.available),
    };
    let connections = wanted.connections();
    let idle = connections * IDLE_BYTES;
    let check = Check::ok("memory", found).why(format!(
        "{} idle connections take {}, logs and history up to {} more",
        count(connections),
        bytes(idle),
        bytes(wanted.stored_bytes_max)
    ));
    Some(if idle > left {
        let fit = (left / IDLE_BYTES / wanted.reactors as u64).max(1);
        check
            .short_of(wanted.asked)
            .fix("on the command line", format!("--connections-max {fit}"))
            .fix(SYSTEMD, format!("MemoryMax={}M", (idle + wanted.stored_bytes_max) >> 20))
            .fix(DOCKER, format!("--memory {}m", (idle + wanted.stored_bytes_max) >> 20))
    } else {
        check
    })
}

/// A cgroup's bound on threads.
pub(super) fn threads(facts: &Facts, wanted: &Wanted) -> Option<Check> {
    let Use { most, used } = facts.pids?;
    let needed = wanted.reactors as u64 + THREADS_BESIDE;
    let check =
        Check::ok("pids.max", format!("{} ({} used)", count(most), count(used))).why(format!(
            "{} and what is beside them are {needed} threads",
            several(wanted.reactors as u64, "reactor")
        ));
    Some(if most.saturating_sub(used) < needed {
        check
            .stops()
            .fix(SYSTEMD, format!("TasksMax={}", used + 2 * needed))
            .fix(DOCKER, format!("--pids-limit {}", used + 2 * needed))
    } else {
        check
    })
}

/// An idle connection: the kernel's socket (3,750 B), its armed poll (256), its place in the ring's table
/// (16) and ours (200); measured on Linux 6.18.
const IDLE_BYTES: u64 = 4_300;
/// Beside the reactors': the control thread, the log's, the helper that compresses.
const THREADS_BESIDE: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        Verdict,
        facts::{Memory, tests::well},
        tests::wanted,
    };

    #[test]
    fn more_reactors_than_run_at_a_time_are_noted() {
        let check = reactors(&Wanted { cpus: vec![4, 6], ..wanted() });
        assert_eq!(check.found, "2 on cores 4,6; CPU quota none");
        assert_eq!(check.verdict, Verdict::Ok);
        let shared = reactors(&Wanted { cpus: vec![4, 4], ..wanted() });
        assert_eq!(shared.fixes[0].line, "--reactors 1");
        let bounded = reactors(&Wanted { cpu_quota: Some(1), ..wanted() });
        assert_eq!(bounded.verdict, Verdict::Note);
    }

    #[test]
    fn memory_is_measured_by_idle_connections() {
        let judged = |memory| memory_of(memory, 1_000_000);
        let machine = Memory { total: 64 << 30, available: 60 << 30, group: None };
        let check = judged(machine);
        assert_eq!(check.verdict, Verdict::Ok);
        assert!(check.why.starts_with("2,000,000 idle connections take 8.0 GiB"), "{}", check.why);
        let group = Some(Use { most: 1 << 30, used: 0 });
        let bounded = judged(Memory { group, ..machine });
        assert!(bounded.found.starts_with("1.0 GiB of the cgroup's 1.0 GiB left"));
        assert_eq!(bounded.fixes[0].line, "--connections-max 124853");
    }

    fn memory_of(memory: Memory, connections_max: u64) -> Check {
        let facts = Facts { memory, ..well() };
        super::memory(&facts, &Wanted { connections_max, ..wanted() }).expect("told")
    }

    #[test]
    fn too_few_threads_stop_the_server() {
        let judged = |most| {
            let pids = Some(Use { most, used: 10 });
            threads(&Facts { pids, ..well() }, &wanted()).expect("told")
        };
        assert!(!judged(15).stops && judged(14).stops);
        assert_eq!(judged(14).fixes[1].line, "--pids-limit 20");
        assert!(threads(&well(), &wanted()).is_none());
    }
}
