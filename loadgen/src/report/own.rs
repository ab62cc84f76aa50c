//! What the load generator itself took: memory, and which of the kernel's means.
//!
//! Knows: figures. Must not know: how they were measured.

use serde::Serialize;

use crate::driver::Means;

/// The load generator's own footprint.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Own {
    /// Resident memory with all connections open, bytes.
    pub(crate) rss_bytes: u64,
    /// Of that for each of them, rings and histograms and all of the threads included; `None` with
    /// fewer than [`CONNECTIONS_MIN`], where those would be most of it.
    pub(crate) rss_bytes_per_connection: Option<f64>,
    /// Which of the kernel's means it used.
    pub(crate) kernel: Means,
    /// So many connections are possible; `None`: as many as there is memory.
    pub(crate) connections_max: Option<u64>,
}

impl Own {
    /// `before_bytes` was resident before the threads began, `rss_bytes` with `open` connections.
    pub(crate) fn new(
        before_bytes: u64,
        rss_bytes: u64,
        open: u64,
        kernel: Means,
        connections_max: Option<u64>,
    ) -> Self {
        let added = rss_bytes.saturating_sub(before_bytes) as f64;
        let each = (open >= CONNECTIONS_MIN).then_some(added / open as f64);
        Self { rss_bytes, rss_bytes_per_connection: each, kernel, connections_max }
    }

    /// What a reader should know of it.
    pub(crate) fn note(&self) -> Option<String> {
        let most = self.connections_max?;
        Some(format!(
            "connections are file descriptors here, so {most} are the most (RLIMIT_NOFILE); in a ring's \
             own table, from Linux 5.19 on and without --kernel-tier base, there is no such limit"
        ))
    }
}

/// With fewer connections their share of memory says little.
const CONNECTIONS_MIN: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_told_of_many_only_and_the_bound_where_there_is_one() {
        let few = Own::new(1_000_000, 1_500_000, 999, Means::BASE, Some(19_936));
        assert_eq!(few.rss_bytes_per_connection, None);
        assert!(few.note().is_some_and(|note| note.contains("19936")));
        let many = Own::new(1_000_000, 2_000_000, 2000, Means::BASE, None);
        assert_eq!((many.rss_bytes_per_connection, many.note()), (Some(500.0), None));
    }
}
