//! What following the books found, counted.
//!
//! Knows: figures. Must not know: how they came about.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// Something counted apart for each sort of subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct BySort {
    /// Those who read at once and stay.
    pub(crate) steady: u64,
    /// Those who leave and come back.
    pub(crate) churning: u64,
    /// Those who read slowly.
    pub(crate) slow: u64,
}

/// A sort of subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Steady,
    Churning,
    Slow,
}

impl BySort {
    pub(crate) fn add(&mut self, sort: Sort) {
        match sort {
            Sort::Steady => self.steady += 1,
            Sort::Churning => self.churning += 1,
            Sort::Slow => self.slow += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.steady += other.steady;
        self.churning += other.churning;
        self.slow += other.slow;
    }
}

/// One thread's counts, or all of them when merged.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Figures {
    /// Books of connections open at the end that equal the publisher's, level by level.
    pub(crate) equal: u64,
    /// And that do not.
    pub(crate) unequal: u64,
    /// Subscribers that had no book at the end: they still waited for a snapshot.
    pub(crate) missing: u64,
    /// Where the first one differs.
    pub(crate) first_difference: Option<String>,
    /// Updates whose ids follow those of the update, or the snapshot, before.
    pub(crate) links_held: u64,
    /// Updates that do not follow.
    pub(crate) links_broken: u64,
    /// The first of them.
    pub(crate) first_broken: Option<String>,
    /// Updates that the snapshot had already.
    pub(crate) covered: u64,
    /// Updates that came to a subscriber without a book.
    pub(crate) unfounded: u64,
    /// Steps from one state of a book to the next that were calculated; the others were the same
    /// step on the same state.
    pub(crate) steps_calculated: u64,
    /// Steps that were the same.
    pub(crate) steps_shared: u64,
    /// Gaps that the server announced.
    pub(crate) gaps_told: BySort,
    /// Gaps that do not begin where the subscriber stands.
    pub(crate) gaps_wrong: u64,
    /// Snapshots that came.
    pub(crate) snapshots: BySort,
    /// Snapshots that nobody asked for, or of a state before what the subscriber has, or after
    /// what the gap said.
    pub(crate) snapshots_wrong: u64,
    /// `snapshot_unavailable` was announced.
    pub(crate) snapshots_unavailable: u64,
    /// Topics resumed with everything missed.
    pub(crate) resumed: u64,
    /// And without, by the server's reason.
    pub(crate) resumed_not: BTreeMap<String, u64>,
    /// Resumes that were not answered, or with another epoch than asked for.
    pub(crate) resumes_wrong: u64,
    /// Topics refused, or of another kind than they should be.
    pub(crate) topics_wrong: BTreeMap<String, u64>,
    /// Snapshots given to the kernel.
    pub(crate) snapshots_published: u64,
    /// Publications that the server took for repeats.
    pub(crate) duplicates: u64,
    /// Answers to the publisher that say that subscribers wait for a snapshot.
    pub(crate) snapshots_wanted: u64,
}

impl Figures {
    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.equal += other.equal;
        self.unequal += other.unequal;
        self.missing += other.missing;
        self.links_held += other.links_held;
        self.links_broken += other.links_broken;
        self.covered += other.covered;
        self.unfounded += other.unfounded;
        self.steps_calculated += other.steps_calculated;
        self.steps_shared += other.steps_shared;
        self.gaps_told.merge(&other.gaps_told);
        self.gaps_wrong += other.gaps_wrong;
        self.snapshots.merge(&other.snapshots);
        self.snapshots_wrong += other.snapshots_wrong;
        self.snapshots_unavailable += other.snapshots_unavailable;
        self.resumed += other.resumed;
        self.resumes_wrong += other.resumes_wrong;
        self.snapshots_published += other.snapshots_published;
        self.duplicates += other.duplicates;
        self.snapshots_wanted += other.snapshots_wanted;
        for (into, from) in [
            (&mut self.first_difference, &other.first_difference),
            (&mut self.first_broken, &other.first_broken),
        ] {
            if into.is_none() {
                into.clone_from(from);
            }
        }
        for (into, from) in [
            (&mut self.resumed_not, &other.resumed_not),
            (&mut self.topics_wrong, &other.topics_wrong),
        ] {
            for (what, count) in from {
                *into.entry(what.clone()).or_default() += count;
            }
        }
    }

    /// What is wrong, in sentences.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let first = |text: &Option<String>| text.clone().unwrap_or_default();
        for (count, text) in [
            (self.unequal, format!("books differ at the end: {}", first(&self.first_difference))),
            (self.missing, "subscribers of a book had none at the end".to_owned()),
            (self.links_broken, format!("updates do not follow: {}", first(&self.first_broken))),
            (self.unfounded, "updates came without a snapshot before them".to_owned()),
            (self.gaps_told.steady, "gaps were told to subscribers who are not slow".to_owned()),
            (self.gaps_wrong, "gaps do not begin where the subscriber stands".to_owned()),
            (self.snapshots_wrong, "snapshots are out of place".to_owned()),
            (self.resumes_wrong, "resumes were not answered as asked".to_owned()),
            (self.duplicates, "publications were taken for repeats (a used server?)".to_owned()),
        ] {
            if count > 0 {
                wrong.push(format!("{count} {text}"));
            }
        }
        wrong.extend(self.topics_wrong.iter().map(|(what, count)| format!("{count} times {what}")));
        wrong
    }
}
