//! What the load generator itself took: memory, and which of the kernel's means.
//!
//! Knows: figures. Must not know: how they were measured.

use serde::Serialize;

use crate::driver::Means;
use crate::run::Footing;

/// The load generator's own footprint.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
pub(crate) struct Own {
    /// Resident memory with all connections open, bytes.
    pub(crate) rss_bytes: u64,
    /// Of that for each of them: what those beyond the first 1,000 have added, and what had been set
    /// aside for each. `None` if they are too few to tell.
    pub(crate) rss_bytes_per_connection: Option<f64>,
    /// Which of the kernel's means it used.
    pub(crate) kernel: Means,
    /// So many connections are possible; `None`: as many as there is memory.
    pub(crate) connections_max: Option<u64>,
}

impl Own {
    /// This process with few connections, if it was seen so, and with all of them; `aside_bytes`: what
    /// each had before it was opened.
    pub(crate) fn new(
        (few, all): (Option<Footing>, Footing),
        aside_bytes: u64,
        kernel: Means,
        connections_max: Option<u64>,
    ) -> Self {
        let added = few.and_then(|few| few.per_connection(&all.reading, all.open));
        Self {
            rss_bytes: all.reading.rss_bytes(),
            rss_bytes_per_connection: added.map(|each| each.max(0.0) + aside_bytes as f64),
            kernel,
            connections_max,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_told_of_many_only_and_the_bound_where_there_is_one() {
        let reading = crate::server_process::read(std::process::id()).expect("ourselves");
        let at = |open| Footing { reading, open };
        let few = Own::new((Some(at(1000)), at(1999)), 200, Means::BASE, Some(19_936));
        assert_eq!(few.rss_bytes_per_connection, None);
        assert!(few.note().is_some_and(|note| note.contains("19936")));
        let many = Own::new((Some(at(1000)), at(2000)), 200, Means::BASE, None);
        assert_eq!((many.rss_bytes_per_connection, many.note()), (Some(200.0), None));
    }
}
