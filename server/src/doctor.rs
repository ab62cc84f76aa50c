//! What this machine offers and allows, for whoever asks why it does not run, or not fast.
//!
//! Knows: where the kernel says it, and the line that changes it. Must not know: rings, flags.

use std::{fmt::Write as _, fs};

use rustix::{
    process::{Resource, getrlimit},
    system::uname,
};

use crate::plan::{Machine, Plan};

/// A line per fact, for a terminal. `plan` is what `serve` without flags would do here.
pub fn report(machine: &Machine, plan: &Plan) -> String {
    let mut lines = Lines(String::new());
    let system = uname();
    let (name, release) = (system.sysname().to_string_lossy(), system.release().to_string_lossy());
    lines.fact("kernel", &format!("{name} {release} {}", system.machine().to_string_lossy()));
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    lines.fact("io_uring", io_uring(disabled.as_deref().map(str::trim).ok()));
    lines.fact("RLIMIT_NOFILE", &limit(Resource::Nofile, ""));
    lines.fact("RLIMIT_MEMLOCK", &limit(Resource::Memlock, " bytes"));
    lines.fact("cores allowed", &list(&machine.cpus));
    let quota = machine.cpu_quota.map_or_else(|| "none".to_owned(), |n| format!("{n} cores"));
    lines.fact("CPU quota", &quota);
    lines.fact("reactors", &format!("{} on cores {}", plan.reactors(), list(&plan.cpus)));
    lines.fact("connections", &format!("{} per reactor", plan.settings.connections_max));
    lines.0
}

struct Lines(String);

impl Lines {
    fn fact(&mut self, name: &str, value: &str) {
        writeln!(self.0, "{name:<15} {value}").expect("writing into a string");
    }
}

fn io_uring(disabled: Option<&str>) -> &'static str {
    match disabled {
        // The sysctl came with Linux 6.6.
        None | Some("0") => "allowed for all",
        Some("1") => {
            "only for CAP_SYS_ADMIN and kernel.io_uring_group; `sysctl kernel.io_uring_disabled=0`"
        }
        Some(_) => "disabled; `sysctl kernel.io_uring_disabled=0` allows it",
    }
}

fn limit(resource: Resource, unit: &str) -> String {
    let shown = |limit: Option<u64>| limit.map_or_else(|| "none".to_owned(), |n| n.to_string());
    let both = getrlimit(resource);
    format!("{} (hard {}){unit}", shown(both.current), shown(both.maximum))
}

fn list(cpus: &[usize]) -> String {
    cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::LowArgs;

    #[test]
    fn the_report_has_a_line_per_fact() {
        let machine = Machine {
            cpus: vec![4, 6],
            cpu_quota: Some(1),
            open_files_max: 20_000,
            direct_descriptors: true,
        };
        let plan = Plan::load(&LowArgs::default(), &machine).expect("the defaults are right");
        let report = report(&machine, &plan);
        assert!(report.contains("reactors        1 on cores 4\n"), "{report}");
        assert!(report.contains("CPU quota       1 cores\n"), "{report}");
        assert!(report.starts_with("kernel          Linux "), "{report}");
    }

    #[test]
    fn a_disabled_io_uring_comes_with_the_line_that_enables_it() {
        assert!(io_uring(Some("2")).contains("sysctl kernel.io_uring_disabled=0"));
        assert_eq!(io_uring(None), "allowed for all");
    }
}
