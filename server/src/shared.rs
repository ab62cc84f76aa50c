//! The few words of memory that all threads of the process share.
//!
//! Knows: who writes each. Must not know: what is done about them.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

use uringcast_ring::Capabilities;

use crate::{
    census::Census,
    counters::{Counters, RuleCounters},
    late::Late,
    rules::{RuleId, Rules},
};

/// Where the process is in its life; it only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Shards are starting.
    Starting = 0,
    /// All shards accept connections.
    Ready = 1,
    /// No new connections; everyone is being told 1001.
    Draining = 2,
    /// Out at once.
    Aborting = 3,
}

/// What each shard vows: of what it has yet to send to another, nothing was ordered before that time.
#[derive(Debug)]
pub struct Floors(Box<[Floor]>);

/// A cache line of its own: it is written once per tick.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Floor(AtomicU64);

impl Floors {
    /// For so many shards; none has vowed anything.
    pub fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| Floor::default()).collect())
    }

    /// A shard's, µs UTC; written by that shard only. What it sent before is seen by whoever sees
    /// this.
    pub fn vow(&self, shard: usize, floor_us: u64) {
        self.0[shard].0.store(floor_us, Ordering::Release);
    }

    /// The lowest of all, µs UTC.
    pub fn lowest_us(&self) -> u64 {
        self.0.iter().map(|floor| floor.0.load(Ordering::Acquire)).min().unwrap_or(0)
    }
}

/// Shared by all threads, in an `Arc`.
#[derive(Debug)]
pub struct Shared {
    /// One per shard; written by that shard only.
    pub counters: Vec<Counters>,
    /// One per shard, written by that shard only: its figures of each rule.
    by_rule: Vec<Box<[RuleCounters]>>,
    rules: Vec<RuleName>,
    /// One per shard, written by that shard only: all publishers are to be slowed for its sake.
    pub overloaded: Vec<AtomicBool>,
    /// One per shard, written by that shard only: it accepts connections.
    pub ready: Vec<AtomicBool>,
    /// One per shard, written by that shard only: it has closed its last connection and ended.
    pub ended: Vec<AtomicBool>,
    /// Bytes of lane logs in the process; changed once per chunk.
    pub log_bytes: AtomicU64,
    /// Of publications that are on their way.
    pub floors: Floors,
    /// Of what was published before this time (µs UTC) nothing is known.
    pub history_from_us: u64,
    /// Which deflated lanes there are; changed when one begins, ends or changes its interest.
    pub census: Arc<Census>,
    /// Topics whose publishers are to be slowed.
    pub late: Late,
    /// What the reactors' rings use of the kernel; set by the first that is made.
    pub ring: OnceLock<Capabilities>,
    /// A seed for hashing topic names, the same on all shards, new at each start.
    pub hash_seed: u64,
    stage: AtomicU8,
}

/// What the figures of a rule are labelled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleName {
    /// Its pattern; of the topics that no rule matches, [`NO_RULE`].
    pub pattern: String,
    /// Its kind.
    pub kind: &'static str,
    /// No rule before it has the same pattern; else it matches nothing that they do not.
    pub matches: bool,
}

/// In place of a pattern; it is none.
pub const NO_RULE: &str = "(none)";

impl Shared {
    /// For so many shards.
    pub fn new(shards: usize, hash_seed: u64) -> Self {
        let flags = || (0..shards).map(|_| AtomicBool::new(false)).collect();
        Self {
            counters: (0..shards).map(|_| Counters::default()).collect(),
            by_rule: Vec::new(),
            rules: Vec::new(),
            overloaded: flags(),
            ready: flags(),
            ended: flags(),
            log_bytes: AtomicU64::new(0),
            floors: Floors::new(shards),
            history_from_us: 0,
            census: Arc::default(),
            late: Late::default(),
            ring: OnceLock::new(),
            hash_seed,
            stage: AtomicU8::new(Stage::Starting as u8),
        }
        .with_rules(&Rules::default())
    }

    /// With figures for each of these rules.
    pub fn with_rules(mut self, rules: &Rules) -> Self {
        let given = rules.given();
        let named = given.iter().enumerate().map(|(index, rule)| RuleName {
            pattern: rule.pattern.as_str().to_owned(),
            kind: rule.kind.name(),
            matches: given[..index].iter().all(|before| before.pattern != rule.pattern),
        });
        let rest = rules.iter().next_back().map(|rule| RuleName {
            pattern: NO_RULE.to_owned(),
            kind: rule.kind.name(),
            matches: true,
        });
        self.rules = named.chain(rest).collect();
        let figures = || self.rules.iter().map(|_| RuleCounters::default()).collect();
        self.by_rule = self.counters.iter().map(|_| figures()).collect();
        self
    }

    /// A shard's figures of a rule; of a rule that there is not, those of topics without one.
    pub fn of_rule(&self, shard: usize, rule: RuleId) -> &RuleCounters {
        let figures = &self.by_rule[shard];
        figures.get(usize::from(rule.0)).unwrap_or(&figures[figures.len() - 1])
    }

    /// What a rule's figures are labelled with.
    pub fn rule_name(&self, rule: RuleId) -> &RuleName {
        self.rules.get(usize::from(rule.0)).unwrap_or(&self.rules[self.rules.len() - 1])
    }

    /// Every rule with its figures, summed over all shards, in the order of
    /// [`RULE_FIGURES`](crate::counters::RULE_FIGURES).
    pub fn by_rule(&self) -> impl Iterator<Item = (&RuleName, Vec<u64>)> {
        self.rules.iter().enumerate().map(|(at, name)| {
            let shards = self.by_rule.iter().map(|figures| figures[at].values());
            let sum = shards.fold(Vec::new(), |mut sum: Vec<u64>, values| {
                sum.resize(values.len(), 0);
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                sum
            });
            (name, sum)
        })
    }

    /// Of what was published before this time (µs UTC) nothing is known; shards that have not run yet
    /// have ordered nothing.
    pub fn begin(&mut self, at_us: u64) {
        self.history_from_us = at_us;
        (0..self.counters.len()).for_each(|shard| self.floors.vow(shard, at_us));
    }

    /// Where the process is in its life.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Ready,
            2 => Stage::Draining,
            _ => Stage::Aborting,
        }
    }

    /// Moves on to a later stage; an earlier one changes nothing.
    pub fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }

    /// Whether all publishers are to be slowed; those of some topics may be besides.
    pub fn any_overloaded(&self) -> bool {
        self.overloaded.iter().any(|flag| flag.load(Ordering::Relaxed))
    }
}
