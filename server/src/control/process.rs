//! What the process uses, as the kernel counts it.
//!
//! Knows: `/proc/self`. Must not know: who asks.

use std::fs;

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

/// What the process uses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Bytes resident.
    pub(super) resident_bytes: u64,
    /// Bytes of address space.
    pub(super) virtual_bytes: u64,
    /// CPU time of all threads, user and system, s.
    pub(super) cpu_s: f64,
    /// File descriptors open (not the rings' direct ones).
    pub(super) open_files: u64,
    /// `RLIMIT_NOFILE`.
    pub(super) open_files_max: u64,
    pub(super) threads: u64,
}

/// Reads it; what can't be read is 0.
pub(super) fn usage() -> Usage {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split(' ').map(|field| field.parse::<u64>().unwrap_or(0));
    let page_bytes = page_size() as u64;
    let virtual_bytes = pages.next().unwrap_or(0) * page_bytes;
    let resident_bytes = pages.next().unwrap_or(0) * page_bytes;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let field = |n| stat_field(&stat, n).unwrap_or(0);
    Usage {
        resident_bytes,
        virtual_bytes,
        cpu_s: (field(14) + field(15)) as f64 / clock_ticks_per_second() as f64,
        open_files: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
        open_files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        threads: field(20),
    }
}

/// A field of proc(5)'s `stat`, from 3 on; the second is a name in brackets that may hold anything.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 55 66 0 0 20 0 7 0";
        assert_eq!(stat_field(stat, 14), Some(55));
        assert_eq!(stat_field(stat, 15), Some(66));
        assert_eq!(stat_field(stat, 20), Some(7));
        assert_eq!(stat_field("", 14), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage();
        assert!(usage.resident_bytes > 100_000 && usage.threads > 0 && usage.open_files > 2);
    }
}
