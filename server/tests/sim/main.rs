//! The shards of a process on simulated kernels, driven by a seed.
//!
//! `SIM_SECONDS` (default 5) says for how long new runs are begun, `SIM_SEED` which run is done
//! alone. A failure prints its seed and what was done last.

mod catching_up;
mod clients;
mod dice;
mod helper;
mod io;
mod net;
mod oracle;
mod publisher;
mod run;
mod scenarios;
mod stand;
mod subscriber;
mod vandal;
mod wire;
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

#[test]
fn random_runs() {
    if let Ok(seed) = env::var("SIM_SEED") {
        one(seed.parse().expect("SIM_SEED is a number"));
        return;
    }
    let seconds =
        env::var("SIM_SECONDS").map_or(5, |s| s.parse().expect("SIM_SECONDS is a number"));
    let first = uringcast::clock::now().utc_us;
    let end = first + seconds * 1_000_000;
    let mut runs = 0;
    let mut sums = run::Sums::new();
    while runs == 0 || uringcast::clock::now().utc_us < end {
        for (figure, value) in one(first.wrapping_add(runs)) {
            *sums.entry(figure).or_default() += value;
        }
        runs += 1;
    }
    for ((name, labels), sum) in sums {
        println!("{sum:>12} {name}{{{labels}}}");
    }
    println!("{runs} runs from seed {first}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..4 {
        assert_eq!(one(seed), one(seed));
    }
}

fn one(seed: u64) -> run::Sums {
    let trace = run::Trace::default();
    catch_unwind(AssertUnwindSafe(|| run::run(seed, &trace))).unwrap_or_else(|panic| {
        trace.print();
        eprintln!("the run of seed {seed} failed; again with:");
        eprintln!("SIM_SEED={seed} cargo test -p uringcast --test sim");
        resume_unwind(panic);
    })
}
