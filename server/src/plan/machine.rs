//! What the machine lets this process have.
//!
//! Knows: affinity masks, cgroups' CPU quotas, limits of open files and of whom they are. Must not know: what is done
//! with them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::{
    process::{Resource, getrlimit},
    thread::{CpuSet, sched_getaffinity},
};
use uringcast_ring::{Capabilities, TierChoice};

use crate::cgroup;

/// What the machine lets this process have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The cores of the affinity mask, rising; at least one.
    pub cpus: Vec<usize>,
    /// The CPU quota of the process's cgroups, v2 or v1, rounded up to whole cores.
    pub cpu_quota: Option<usize>,
    /// `RLIMIT_NOFILE`, the hard limit (to which the soft one is raised).
    pub open_files_max: u64,
    /// Connections are direct descriptors, which each reactor may have as many of; else they are
    /// descriptors of the process, of which all reactors together have so many.
    pub direct_descriptors: bool,
}

impl Machine {
    /// This machine.
    pub fn read() -> Self {
        Self {
            cpus: affinity(),
            cpu_quota: tightest(&cgroup::directories("cpu")),
            open_files_max: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            // Where there is no ring at all, the reactors will say why.
            direct_descriptors: Capabilities::decide(TierChoice::Auto)
                .is_ok_and(|capabilities| capabilities.has_direct_descriptors()),
        }
    }
}

impl Machine {
    /// So many descriptors there are for the connections of one of `reactors`.
    pub fn open_files_max_per_reactor(&self, reactors: usize, tier: TierChoice) -> u64 {
        match self.direct_descriptors && tier == TierChoice::Auto {
            true => self.open_files_max,
            false => self.open_files_max / reactors.max(1) as u64,
        }
    }
}

fn affinity() -> Vec<usize> {
    let Ok(mask) = sched_getaffinity(None) else {
        // A machine with more cores than the mask holds (1,024): all of the first ones.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        return (0..cores.min(CpuSet::MAX_CPU)).collect();
    };
    (0..CpuSet::MAX_CPU).filter(|&cpu| mask.is_set(cpu)).collect()
}

/// The tightest quota of the process's cgroup and those above it.
fn tightest(groups: &[PathBuf]) -> Option<usize> {
    groups.iter().filter_map(|group| quota_of(group)).min()
}

/// Quota over period, rounded up. v2: `cpu.max` is `max 100000` or `150000 100000`. v1: two files,
/// the quota −1 when there is none.
fn quota_of(group: &Path) -> Option<usize> {
    let text = |file: &str| fs::read_to_string(group.join(file)).ok();
    let (quota, period) = match text("cpu.max") {
        Some(both) => {
            let (quota, period) = both.split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (text("cpu.cfs_quota_us")?, text("cpu.cfs_period_us")?),
    };
    let quota: usize = quota.trim().parse().ok()?;
    let period: usize = period.trim().parse().ok()?;
    (period > 0 && quota > 0).then(|| quota.div_ceil(period))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu_quota(mount: &Path, groups: &str) -> Option<usize> {
        tightest(&cgroup::directories_in(mount, groups, "cpu"))
    }

    /// A cgroup tree of its own for one test, removed at its end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let root =
                std::env::temp_dir().join(format!("uringcast-{}-{name}", std::process::id()));
            fs::create_dir_all(&root).expect("a directory for the test");
            Self(root)
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("directory");
            fs::write(path, text).expect("file");
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            // What can't be removed stays in the system's temporary directory.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_tightest_v2_quota_holds_and_is_rounded_up() {
        let tree = Tree::new("v2");
        tree.file("cpu.max", "max 100000\n");
        tree.file("a/cpu.max", "150000 100000\n");
        tree.file("a/b/cpu.max", "400000 100000\n");
        assert_eq!(cpu_quota(&tree.0, "0::/a/b\n"), Some(2));
        assert_eq!(cpu_quota(&tree.0, "0::/a\n"), Some(2));
        assert_eq!(cpu_quota(&tree.0, "0::/\n"), None);
    }

    #[test]
    fn a_v1_quota_is_found_beside_other_controllers() {
        let tree = Tree::new("v1");
        tree.file("cpu,cpuacct/box/cpu.cfs_quota_us", "50000\n");
        tree.file("cpu,cpuacct/box/cpu.cfs_period_us", "100000\n");
        tree.file("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
        tree.file("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
        assert_eq!(cpu_quota(&tree.0, "9:memory:/box\n4:cpu,cpuacct:/box\n0::/\n"), Some(1));
        assert_eq!(cpu_quota(&tree.0, "4:cpu,cpuacct:/\n"), None);
    }

    #[test]
    fn a_path_of_the_host_falls_back_to_the_mount_and_rubbish_to_none() {
        let tree = Tree::new("odd");
        tree.file("cpu.max", "300000 100000\n");
        assert_eq!(cpu_quota(&tree.0, "0::/docker/not-here\n"), Some(3));
        assert_eq!(cpu_quota(&tree.0, "rubbish\n\n1:\n"), None);
        tree.file("cpu.max", "rubbish\n");
        assert_eq!(cpu_quota(&tree.0, "0::/\n"), None);
    }

    #[test]
    fn this_machine_has_a_core_and_files() {
        let machine = Machine::read();
        assert!(!machine.cpus.is_empty());
        assert!(machine.open_files_max > 2);
    }
}
