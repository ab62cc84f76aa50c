//! Everything that is read of the machine, in one place, so that what is made of it is tested without.
//!
//! Knows: where the kernel says what. Must not know: what is good or bad. What can't be read is
//! `None`: an older kernel, or a container that does not show it.

use std::{fs, path::Path, str::FromStr};

use rustix::{
    process::{Resource, getrlimit},
    system::uname,
};
use uringcast_ring::{Feature, Ring, RingError, RingOptions};

use crate::{cgroup, plan::Plan};

/// What the machine has.
#[derive(Debug)]
pub(super) struct Facts {
    /// `Linux 6.18.44 x86_64`
    pub(super) kernel: String,
    pub(super) ring: Result<RingFacts, RingError>,
    /// `kernel.io_uring_disabled`, from Linux 6.6.
    pub(super) io_uring_disabled: Option<u32>,
    /// `kernel.io_uring_group`; −1 is nobody.
    pub(super) io_uring_group: Option<i64>,
    /// Mode of the process's seccomp: 0 none, 2 a filter.
    pub(super) seccomp: Option<u32>,
    /// `CAP_IPC_LOCK`: nothing is charged to `RLIMIT_MEMLOCK`.
    pub(super) may_lock: bool,
    pub(super) memlock: Limits,
    pub(super) nofile: Limits,
    /// `fs.nr_open`
    pub(super) nr_open: Option<u64>,
    /// `fs.file-max`, and how many files are open.
    pub(super) file_max: Option<Use>,
    pub(super) memory: Memory,
    /// The tightest `pids.max` of the process's cgroups.
    pub(super) pids: Option<Use>,
    /// `net.core.somaxconn`
    pub(super) somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`
    pub(super) syn_backlog: Option<u64>,
    /// `net.ipv4.tcp_syncookies` is not 0.
    pub(super) syn_cookies: bool,
    /// `net.ipv4.tcp_mem`: low, pressure, most, pages.
    pub(super) tcp_mem: Option<[u64; 3]>,
    /// `net.ipv4.tcp_wmem`, the last: what a socket's send buffer may grow to, bytes.
    pub(super) tcp_wmem_max: Option<u64>,
    /// `net.netfilter.nf_conntrack_max` and `_count`; `None`: not loaded.
    pub(super) conntrack: Option<Use>,
    /// `net.ipv4.ip_local_port_range`
    pub(super) local_ports: Option<[u64; 2]>,
}

/// What io_uring is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RingFacts {
    pub(super) tier: String,
    pub(super) features: Vec<Feature>,
}

/// A resource limit; `None` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) soft: Option<u64>,
    pub(super) hard: Option<u64>,
}

/// Something of which there is so much, and of which so much is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) most: u64,
    pub(super) used: u64,
}

impl Use {
    pub(super) fn left(self) -> u64 {
        self.most.saturating_sub(self.used)
    }
}

/// Memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// The machine's.
    pub(super) total: u64,
    /// The machine's that is left.
    pub(super) available: u64,
    /// The cgroups' bound with the least left.
    pub(super) group: Option<Use>,
}

impl Facts {
    /// Of this machine, for this plan.
    pub(super) fn read(plan: &Plan) -> Self {
        let status = text("/proc/thread-self/status");
        let system = uname();
        let (name, release) = (system.sysname().to_string_lossy(), system.release());
        let machine = system.machine().to_string_lossy();
        Self {
            kernel: format!("{name} {} {machine}", release.to_string_lossy()),
            ring: ring(plan),
            io_uring_disabled: sysctl("kernel/io_uring_disabled"),
            io_uring_group: sysctl("kernel/io_uring_group"),
            seccomp: field(&status, "Seccomp:").and_then(|mode| mode.parse().ok()),
            may_lock: field(&status, "CapEff:")
                .and_then(|set| u64::from_str_radix(set, 16).ok())
                .is_some_and(|set| set & CAP_IPC_LOCK != 0),
            memlock: limits(Resource::Memlock),
            nofile: limits(Resource::Nofile),
            nr_open: sysctl("fs/nr_open"),
            file_max: numbers("fs/file-nr").map(|[used, _, most]| Use { most, used }),
            memory: memory(&text("/proc/meminfo")),
            pids: pids(),
            somaxconn: sysctl("net/core/somaxconn"),
            syn_backlog: sysctl("net/ipv4/tcp_max_syn_backlog"),
            syn_cookies: sysctl("net/ipv4/tcp_syncookies") != Some(0),
            tcp_mem: numbers("net/ipv4/tcp_mem"),
            tcp_wmem_max: numbers("net/ipv4/tcp_wmem").map(|[_, _, most]| most),
            conntrack: conntrack(),
            local_ports: numbers("net/ipv4/ip_local_port_range"),
        }
    }
}

/// Makes the rings of all reactors, as they would, and throws them away again: whether their memory is
/// charged, and to what, differs from kernel to kernel.
fn ring(plan: &Plan) -> Result<RingFacts, RingError> {
    let options = RingOptions {
        slots: SLOTS_TRIED,
        receive_buffers: u16::try_from(plan.receive_buffers).unwrap_or(1 << 15),
        receive_buffer_bytes: plan.receive_buffer_bytes,
        tier: plan.tier,
        ..RingOptions::default()
    };
    let first = Ring::new(options.clone())?;
    let others = (1..plan.reactors()).map(|_| Ring::new(options.clone()));
    let _others = others.collect::<Result<Vec<_>, _>>()?;
    let capabilities = first.describe().capabilities;
    let features = capabilities.features().collect();
    Ok(RingFacts { tier: capabilities.tier().to_string(), features })
}

fn limits(resource: Resource) -> Limits {
    let both = getrlimit(resource);
    Limits { soft: both.current, hard: both.maximum }
}

fn conntrack() -> Option<Use> {
    let most = sysctl("net/netfilter/nf_conntrack_max")?;
    let used = sysctl("net/netfilter/nf_conntrack_count").unwrap_or(0);
    Some(Use { most, used })
}

fn memory(meminfo: &str) -> Memory {
    let bytes = |name| {
        let kilobytes = field(meminfo, name).and_then(|text| text.split(' ').next()?.parse().ok());
        kilobytes.map_or(0, |kilobytes: u64| kilobytes << 10)
    };
    let groups = cgroup::directories("memory");
    let bounds = groups.iter().filter_map(|group| {
        group_use(group, "memory.max", "memory.current")
            .or_else(|| group_use(group, "memory.limit_in_bytes", "memory.usage_in_bytes"))
    });
    // Of version 1 "no bound" is a number larger than any machine.
    let group = bounds.filter(|bound| bound.most < 1 << 60).min_by_key(|bound| bound.left());
    Memory { total: bytes("MemTotal:"), available: bytes("MemAvailable:"), group }
}

fn pids() -> Option<Use> {
    let groups = cgroup::directories("pids");
    let bounds = groups.iter().filter_map(|group| group_use(group, "pids.max", "pids.current"));
    bounds.min_by_key(|bound| bound.left())
}

fn group_use(group: &Path, most: &str, used: &str) -> Option<Use> {
    let number = |file| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok();
    Some(Use { most: number(most)?, used: number(used)? })
}

fn sysctl<T: FromStr>(name: &str) -> Option<T> {
    text(&format!("/proc/sys/{name}")).trim().parse().ok()
}

fn numbers<const COUNT: usize>(name: &str) -> Option<[u64; COUNT]> {
    let text = text(&format!("/proc/sys/{name}"));
    let numbers: Vec<u64> = text.split_ascii_whitespace().flat_map(str::parse).collect();
    numbers.try_into().ok()
}

/// What stands behind a name at a line's beginning.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// capability.h
const CAP_IPC_LOCK: u64 = 1 << 14;
/// The table of descriptors is judged by its limit.
const SLOTS_TRIED: u32 = 16;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A machine with nothing wrong, for tests to spoil.
    pub(in crate::doctor) fn well() -> Facts {
        let no_limit = Limits::default();
        Facts {
            kernel: "Linux 6.18.0 x86_64".to_owned(),
            ring: Ok(RingFacts {
                tier: "modern".to_owned(),
                features: vec![Feature { name: "one", since: "6.1", there: true }],
            }),
            io_uring_disabled: Some(0),
            io_uring_group: Some(-1),
            seccomp: Some(0),
            may_lock: false,
            memlock: no_limit,
            nofile: Limits { soft: Some(1_024), hard: Some(1 << 20) },
            nr_open: Some(1 << 20),
            file_max: Some(Use { most: 100_000_000, used: 1_000 }),
            memory: Memory { total: 64 << 30, available: 60 << 30, group: None },
            pids: None,
            somaxconn: Some(4_096),
            syn_backlog: Some(4_096),
            syn_cookies: true,
            tcp_mem: Some([1_000_000, 4_000_000, 8_000_000]),
            tcp_wmem_max: Some(4 << 20),
            conntrack: None,
            local_ports: Some([1_024, 65_535]),
        }
    }

    #[test]
    fn fields_of_proc_are_found() {
        let status = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(field(status, "Seccomp:"), Some("2"));
        let memory = memory("MemTotal:       24 kB\nMemAvailable:   12 kB\n");
        assert_eq!((memory.total, memory.available), (24 << 10, 12 << 10));
    }

    #[test]
    fn a_group_without_a_bound_has_none() {
        let group = std::env::temp_dir().join(format!("uringcast-doctor-{}", std::process::id()));
        fs::create_dir_all(&group).expect("a directory for the test");
        let bound = |most: &str| {
            fs::write(group.join("pids.max"), most).expect("file");
            fs::write(group.join("pids.current"), "7\n").expect("file");
            group_use(&group, "pids.max", "pids.current")
        };
        assert_eq!(bound("100\n").map(Use::left), Some(93));
        assert_eq!(bound("max\n"), None);
        fs::remove_dir_all(&group).expect("the test's own");
    }

    #[test]
    fn this_machine_has_a_kernel_and_limits() {
        let machine = crate::plan::Machine::read();
        let plan = Plan::load(&crate::flags::LowArgs::default(), &machine).expect("right");
        let facts = Facts::read(&plan);
        assert!(facts.kernel.starts_with("Linux "), "{}", facts.kernel);
        assert!(facts.memory.total > 0 && facts.nofile.hard != Some(0));
        assert!(facts.file_max.is_some_and(|files| files.left() > 0));
    }
}
