//! What the server under test uses: its processor time and memory, by its process id, and those of the
//! processes that it has begun; with processors of its own, also what the kernel does there for it.
//!
//! Knows: /proc/PID. Must not know: what the server is, or how loaded.

use std::{collections::BTreeSet, io, path::PathBuf};

use rustix::param::{clock_ticks_per_second, page_size};

use crate::clock::NANOS_PER_SECOND;

/// Who is read.
#[derive(Clone, Debug)]
pub(crate) struct ServerProcess {
    pid: u32,
    /// The kernel's own threads on the processors that the server has for itself: /proc/PID/schedstat.
    softirqs: Vec<PathBuf>,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// Processor time of all threads, ns (/proc/PID/task/*/schedstat), and of `ksoftirqd` beside them.
    cpu_ns: u64,
    /// Of that the part of `ksoftirqd`.
    softirq_ns: u64,
    /// Of that in user space, to the clock tick (usually 10 ms).
    user_ns: u64,
    /// In the kernel, likewise.
    system_ns: u64,
    /// Resident memory, bytes; what processes share counts for each of them.
    rss_bytes: u64,
}

impl Reading {
    /// Resident memory, bytes.
    pub(crate) fn rss_bytes(&self) -> u64 {
        self.rss_bytes
    }

    /// Processor time so far, ns.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.cpu_ns
    }

    fn add(&mut self, other: &Self) {
        self.cpu_ns += other.cpu_ns;
        self.softirq_ns += other.softirq_ns;
        self.user_ns += other.user_ns;
        self.system_ns += other.system_ns;
        self.rss_bytes += other.rss_bytes;
    }
}

/// The difference of two readings.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct ServerUsage {
    /// Processor time while measuring, ns.
    pub(crate) cpu_ns: u64,
    /// Of that what `ksoftirqd` took on the processors given by --pid-cpus, ns.
    pub(crate) softirq_ns: u64,
    /// Part of the server's own spent in user space, 0 to 1.
    pub(crate) user_share: f64,
    /// Resident memory at the end, bytes.
    pub(crate) rss_bytes: u64,
    /// What each connection beyond the first 1,000 added to it, bytes; if there were
    /// enough, and nothing was published.
    pub(crate) rss_bytes_per_connection: Option<f64>,
    /// Processor time that each connection beyond the first 1,000 took to be opened, ns; if there were
    /// enough.
    pub(crate) cpu_ns_per_connect: Option<f64>,
    /// Processor time per message received while measuring, ns.
    pub(crate) cpu_ns_per_delivery: f64,
    /// Processors busy, on average.
    pub(crate) cpus: f64,
}

impl ServerProcess {
    /// # Errors
    /// There is no such process, or it is not ours to read.
    pub(crate) fn find(pid: u32) -> io::Result<Self> {
        read(pid)?;
        Ok(Self { pid, softirqs: Vec::new() })
    }

    /// With processors that it has for itself. A kernel that is busy sending hands a part of that work
    /// to `ksoftirqd`, the more the longer it goes on: were that not counted, those would look cheap who
    /// send without a pause.
    ///
    /// # Errors
    /// There is no `ksoftirqd` to be seen of one.
    pub(crate) fn with_cpus(mut self, cpus: &[usize]) -> io::Result<Self> {
        let cpus: BTreeSet<_> = cpus.iter().copied().collect();
        self.softirqs = cpus.into_iter().map(softirqs_of).collect::<io::Result<_>>()?;
        Ok(self)
    }

    /// The present state.
    ///
    /// # Errors
    /// As of [`read`].
    pub(crate) fn read(&self) -> io::Result<Reading> {
        let mut reading = read(self.pid)?;
        for path in &self.softirqs {
            reading.softirq_ns += field(&std::fs::read_to_string(path)?, 0);
        }
        reading.cpu_ns += reading.softirq_ns;
        Ok(reading)
    }
}

/// Where the kernel tells what its `ksoftirqd` of that processor took.
fn softirqs_of(cpu: usize) -> io::Result<PathBuf> {
    let name = format!("ksoftirqd/{cpu}");
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let comm = std::fs::read_to_string(path.join("comm"));
        if comm.is_ok_and(|comm| comm.trim_end() == name) {
            return Ok(path.join("schedstat"));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no {name} is to be seen")))
}

/// Reads the present state of the process and of its children, theirs included: some servers are one
/// process for each processor.
///
/// # Errors
/// There is no such process, or it is not ours to read.
pub(crate) fn read(pid: u32) -> io::Result<Reading> {
    let (mut reading, children) = read_alone(pid)?;
    for child in children {
        // One may end between listing and reading.
        reading.add(&read(child).unwrap_or_default());
    }
    Ok(reading)
}

/// One process, and who its children are.
fn read_alone(pid: u32) -> io::Result<(Reading, Vec<u32>)> {
    let (mut reading, mut children) = (Reading::default(), Vec::new());
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // A thread may end between listing and reading.
        let Ok(text) = std::fs::read_to_string(task.join("schedstat")) else { continue };
        reading.cpu_ns += field(&text, 0);
        // Not in every kernel: without it only the first of several processes counts.
        let text = std::fs::read_to_string(task.join("children")).unwrap_or_default();
        children.extend(text.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field, the name, may hold spaces: count from the parenthesis that ends it.
    let (_, after_name) = stat.rsplit_once(')').unwrap_or_default();
    let tick_ns = NANOS_PER_SECOND / clock_ticks_per_second().max(1);
    reading.user_ns = field(after_name, 11) * tick_ns;
    reading.system_ns = field(after_name, 12) * tick_ns;
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    reading.rss_bytes = field(&statm, 1) * page_size() as u64;
    Ok((reading, children))
}

/// What was used between two readings.
pub(crate) fn between(begin: &Reading, end: &Reading, wall_ns: u64, messages: u64) -> ServerUsage {
    let ticks_ns = |reading: &Reading| reading.user_ns + reading.system_ns;
    let all_ns = ticks_ns(end).saturating_sub(ticks_ns(begin));
    let user_ns = end.user_ns.saturating_sub(begin.user_ns);
    let cpu_ns = end.cpu_ns.saturating_sub(begin.cpu_ns);
    ServerUsage {
        cpu_ns,
        softirq_ns: end.softirq_ns.saturating_sub(begin.softirq_ns),
        user_share: user_ns as f64 / all_ns.max(1) as f64,
        rss_bytes: end.rss_bytes,
        rss_bytes_per_connection: None,
        cpu_ns_per_connect: None,
        cpu_ns_per_delivery: cpu_ns as f64 / messages.max(1) as f64,
        cpus: cpu_ns as f64 / wall_ns.max(1) as f64,
    }
}

fn field(text: &str, index: usize) -> u64 {
    text.split_whitespace().nth(index).and_then(|field| field.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_can_be_read() {
        let begin = read(std::process::id()).expect("ourselves");
        assert!(begin.rss_bytes > 100_000);
        let mut sum = 0u64;
        while read(std::process::id()).expect("ourselves").cpu_ns < begin.cpu_ns + 30_000_000 {
            sum = (0..100_000u64).fold(sum, |sum, next| sum ^ next.wrapping_mul(sum | 1));
        }
        let end = read(std::process::id()).expect("ourselves");
        let usage = between(&begin, &end, 30_000_000, 1000);
        assert!(usage.cpu_ns_per_delivery >= 30_000.0, "{usage:?} {sum}");
        assert!(read(u32::MAX).is_err());
    }

    /// A server whose slices were longer looked 5 % cheaper, since `ksoftirqd` did more for it.
    #[test]
    fn what_ksoftirqd_does_counts_with_it() {
        let pid = std::process::id();
        let server = ServerProcess::find(pid).expect("ourselves");
        let error = server.with_cpus(&[9999]).expect_err("no such processor").to_string();
        assert!(error.contains("ksoftirqd/9999"), "{error}");
        let stand_in = std::env::temp_dir().join(format!("ksoftirqd-{pid}"));
        let server = ServerProcess { pid, softirqs: vec![stand_in.clone(), stand_in.clone()] };
        let readings = ["5000000000 1 2", "7000000000 1 2"].map(|text| {
            std::fs::write(&stand_in, text).expect("a file");
            server.read().expect("ourselves")
        });
        std::fs::remove_file(&stand_in).expect("it was there");
        let usage = between(&readings[0], &readings[1], 1_000_000_000, 1000);
        assert_eq!(usage.softirq_ns, 4_000_000_000);
        // Threads of other tests may end meanwhile, and count no more.
        assert!(usage.cpu_ns > 3_000_000_000, "{usage:?}");
    }

    #[test]
    fn children_count_with_it() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 1 & wait"])
            .spawn()
            .expect("a shell");
        let (alone, all) = loop {
            let (reading, children) = read_alone(shell.id()).expect("our child");
            if !children.is_empty() {
                break (reading.rss_bytes, read(shell.id()).expect("our child").rss_bytes);
            }
            std::thread::yield_now();
        };
        shell.kill().expect("still there");
        shell.wait().expect("our child");
        assert!(alone > 0 && all > alone, "{all} with children, {alone} without");
    }
}
