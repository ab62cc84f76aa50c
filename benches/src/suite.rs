//! Competing cases, measured in turns.
//!
//! Knows: how often to run a case, and what to make of the times. Must not know: what the cases do.
//!
//! On a shared machine the speed drifts by more than the differences that matter, so the cases of a
//! group take turns: each round runs every case once, in alternating order, and a ratio is the
//! median of the rounds' ratios, each of two times taken within the same few milliseconds.

use std::hint::black_box;

use crate::{clock::thread_cpu_ns, table::Table};

/// Runs groups of cases and prints a table for each.
#[derive(Debug)]
pub struct Suite {
    rounds: usize,
    sample_ns: u64,
    /// Only groups whose name contains this.
    filter: String,
}

impl Suite {
    /// Measures in so many rounds, each case for about `sample_ns` a round; only groups whose name
    /// contains `filter`.
    pub fn new(rounds: usize, sample_ns: u64, filter: impl Into<String>) -> Self {
        Self { rounds: rounds.max(1), sample_ns: sample_ns.max(1), filter: filter.into() }
    }

    /// Whether a group of this name is to be measured: asked before its inputs are made.
    pub fn wants(&self, group: &str) -> bool {
        group.contains(&self.filter)
    }

    /// Measures the group's cases and prints their table to standard output.
    pub fn run(&self, group: Group<'_>) {
        if let Some(measured) = self.measure(group) {
            println!("{}", measured.table());
        }
    }

    /// Measures the group's cases; `None` if it is not wanted or has none.
    pub fn measure(&self, mut group: Group<'_>) -> Option<Measured> {
        if !self.wants(&group.name) || group.cases.is_empty() {
            return None;
        }
        Some(group.measure(self.rounds, self.sample_ns))
    }
}

/// What a group's cases took, in the order of the cases.
#[derive(Debug)]
pub struct Measured {
    /// The group's name.
    pub name: String,
    /// Bytes of one item, if the group has bytes.
    pub item_bytes: Option<f64>,
    /// What each case took.
    pub cases: Vec<MeasuredCase>,
}

/// What one case took.
#[derive(Debug)]
pub struct MeasuredCase {
    /// The case's name.
    pub name: String,
    /// Nanoseconds per item, over the rounds.
    pub ns: Summary,
    /// The same in the first case's of the same round.
    pub ratio: Summary,
}

impl Measured {
    /// As text.
    pub fn table(&self) -> Table {
        let mut table = Table::new(&self.name, ["", "ns", "spread", "GB/s", "ratio", "spread"]);
        for (index, MeasuredCase { name, ns, ratio }) in self.cases.iter().enumerate() {
            let rate = self
                .item_bytes
                .map_or_else(String::new, |bytes| format!("{:.2}", bytes / ns.median));
            let (ratio, ratio_spread) = if index == 0 {
                ("1".to_owned(), String::new())
            } else {
                (format!("{:.2}", ratio.median), ratio.spread(2))
            };
            let ns_text = format!("{:.1}", ns.median);
            table.row([name.clone(), ns_text, ns.spread(1), rate, ratio, ratio_spread]);
        }
        table
    }
}

/// Cases that do the same work in different ways; the first is what the others are compared with.
pub struct Group<'c> {
    name: String,
    /// Bytes that one run of each case handles, if that is the point.
    bytes: Option<u64>,
    /// Equal parts of one run; the table shows the time of one.
    items: u64,
    cases: Vec<Case<'c>>,
}

struct Case<'c> {
    name: String,
    /// Runs the work so many times.
    work: Box<dyn FnMut(u64) + 'c>,
}

impl<'c> Group<'c> {
    /// A group without cases.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), bytes: None, items: 1, cases: Vec::new() }
    }

    /// Each run handles so many bytes: the table shows a rate too.
    #[must_use]
    pub const fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Each run does so many equal things (at least one): the table shows the time of one.
    #[must_use]
    pub fn items(mut self, items: u64) -> Self {
        self.items = items.max(1);
        self
    }

    /// Adds a case. What it returns is kept from being optimised away; what it reads must be made
    /// opaque by the case itself ([`black_box`]).
    #[must_use]
    pub fn case<R>(mut self, name: impl Into<String>, mut run: impl FnMut() -> R + 'c) -> Self {
        let work = move |runs| {
            for _ in 0..runs {
                black_box(run());
            }
        };
        self.cases.push(Case { name: name.into(), work: Box::new(work) });
        self
    }

    fn measure(&mut self, rounds: usize, sample_ns: u64) -> Measured {
        let runs: Vec<u64> = self.cases.iter_mut().map(|case| case.calibrate(sample_ns)).collect();
        // Nanoseconds per item, by case and round.
        let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); self.cases.len()];
        let mut order: Vec<usize> = (0..self.cases.len()).collect();
        for _ in 0..rounds {
            for &index in &order {
                let elapsed_ns = self.cases[index].sample_ns(runs[index]);
                let items = runs[index] as f64 * self.items as f64;
                times[index].push(elapsed_ns as f64 / items);
            }
            // Whatever a case leaves behind for the next (caches, clock rate) hits both in turn.
            order.reverse();
        }
        self.summarize(&times)
    }

    fn summarize(&self, times: &[Vec<f64>]) -> Measured {
        let base = times.first().map_or(&[][..], Vec::as_slice);
        let measured = |(case, ns): (&Case<'_>, &Vec<f64>)| {
            let ratios: Vec<f64> = ns.iter().zip(base).map(|(ns, base)| ns / base).collect();
            let (ns, ratio) = (Summary::of(ns), Summary::of(&ratios));
            MeasuredCase { name: case.name.clone(), ns, ratio }
        };
        Measured {
            name: self.name.clone(),
            item_bytes: self.bytes.map(|bytes| bytes as f64 / self.items as f64),
            cases: self.cases.iter().zip(times).map(measured).collect(),
        }
    }
}

impl Case<'_> {
    /// How many runs take about `sample_ns`; warms the caches on the way.
    fn calibrate(&mut self, sample_ns: u64) -> u64 {
        let mut runs = 1_u64;
        loop {
            let elapsed_ns = self.sample_ns(runs).max(1);
            if elapsed_ns >= sample_ns / 2 {
                let exact = u128::from(runs) * u128::from(sample_ns) / u128::from(elapsed_ns);
                // At most twice the runs of this sample, so it fits.
                return exact.clamp(1, u128::from(u64::MAX)) as u64;
            }
            // A case that costs nothing measurable still ends.
            if runs >= RUNS_MAX {
                return runs;
            }
            runs *= 2;
        }
    }

    fn sample_ns(&mut self, runs: u64) -> u64 {
        let start_ns = thread_cpu_ns();
        (self.work)(runs);
        thread_cpu_ns() - start_ns
    }
}

/// The middle and the tenths at either end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Half are below.
    pub median: f64,
    /// A tenth is below.
    pub low: f64,
    /// A tenth is above.
    pub high: f64,
}

impl Summary {
    /// Of at least one value, none of them NaN; all zero for none.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        // The nearest rank below; within bounds as long as there is a value at all.
        let rank = |percent: usize| {
            let last = sorted.len().saturating_sub(1);
            sorted.get(last * percent / 100).copied().unwrap_or_default()
        };
        Self { median: rank(50), low: rank(10), high: rank(90) }
    }

    /// `low–high`, with so many decimals.
    pub fn spread(&self, decimals: usize) -> String {
        format!("{:.decimals$}–{:.decimals$}", self.low, self.high)
    }
}

/// No case runs more often than this in a sample.
const RUNS_MAX: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_ranks() {
        let values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(Summary::of(&values), Summary { median: 50.0, low: 10.0, high: 90.0 });
        assert_eq!(Summary::of(&[7.0]), Summary { median: 7.0, low: 7.0, high: 7.0 });
        assert_eq!(Summary::of(&[]).median, 0.0);
        assert_eq!(Summary { median: 2.0, low: 1.04, high: 3.0 }.spread(1), "1.0–3.0");
    }

    #[test]
    fn every_case_runs_and_the_slow_one_has_the_larger_ratio() {
        let sum = |end: u64| (0..black_box(end)).fold(0, |sum, n| black_box(sum + n));
        let mut group =
            Group::new("sums").bytes(1000).case("short", || sum(100)).case("long", || sum(10_000));
        let table = group.measure(5, 20_000).table().to_string();
        let long = table.lines().find(|line| line.contains("long")).expect("a row");
        let ratio: f64 = long
            .split_whitespace()
            .nth(4)
            .and_then(|cell| cell.parse().ok())
            .expect("the fifth column is the ratio");
        // A hundred times the work; only the order is asserted, never a time.
        assert!(ratio > 1.0, "{table}");
    }

    #[test]
    fn the_filter_is_a_part_of_the_name() {
        let suite = Suite::new(1, 1, "mask");
        assert!(suite.wants("unmask 64 B"));
        assert!(!suite.wants("handshake"));
        let mut ran = false;
        suite.run(Group::new("handshake").case("never", || ran = true));
        assert!(!ran);
    }
}
