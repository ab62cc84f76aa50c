//! Every random choice of a run, from one seed.
//!
//! Knows: a generator with a stable stream. Must not know: what is decided by it.

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

/// The dice of a run.
#[derive(Debug)]
pub(crate) struct Dice(Pcg64Mcg);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// From 0 to `end`, which is not among them and not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end as u64) as usize
    }

    /// From `low` to `high`, both among them.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True in `permille` of 1,000 throws.
    pub(crate) fn chance(&mut self, permille: usize) -> bool {
        self.below(1_000) < permille
    }

    /// One of them.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A power of two times something, so that small and large are as likely: `low` to `high`.
    pub(crate) fn scale(&mut self, low: usize, high: usize) -> usize {
        let doublings = (high / low).max(1).ilog2() as usize;
        let from = low << self.below(doublings + 1);
        self.between(from, (from * 2).min(high).max(from))
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0.random()
    }
}
