//! What an enter costs, with an array of indices before the entries and without.
//!
//! Knows: entries that do nothing. Must not know: sockets.

use std::error::Error;

use uringcast_benches::clock::thread_cpu_ns;
use uringcast_ring::{Ring, RingOptions, experiments::Experiments};

use crate::turns::{Report, Turns};

pub(crate) fn run(report: &mut Report) -> Result<(), Box<dyn Error>> {
    for entries in [1_u32, 16, 256, 1024] {
        let name = format!("enter: {entries} NOPs, with NO_SQARRAY and without, per enter");
        if !report.wants(&name) {
            continue;
        }
        let mut turns = Turns::new(name, &["ns"]);
        for (label, no_sqarray) in [("array of indices", false), ("NO_SQARRAY", true)] {
            let experiments = Experiments { no_sqarray, ..Default::default() };
            let mut ring = Ring::new(RingOptions { experiments, slots: 1, ..Default::default() })?;
            turns = turns.case(label, move || {
                let enters = NOPS / u64::from(entries);
                let start_ns = thread_cpu_ns();
                for _ in 0..enters {
                    ring.nops(entries)?;
                }
                Ok(vec![(thread_cpu_ns() - start_ns) as f64 / enters as f64])
            });
        }
        report.run(turns)?;
    }
    Ok(())
}

/// In a sample.
const NOPS: u64 = 8 << 10;
