//! How changes of watchlists were answered.
//!
//! Knows: figures and their line in the table. Must not know: how they were measured.

use std::fmt::Write as _;

use serde::Serialize;

use super::Percentiles;
use super::words::duration;
use crate::watchlists::Figures;

/// Changes of watchlists: an unsubscribe and a subscribe each.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(crate) struct Changes {
    /// Changes that were sent, in the warm-up too.
    pub(crate) asked: u64,
    /// Changes of which both parts were answered.
    pub(crate) answered: u64,
    /// The same per second.
    pub(crate) answered_per_s: f64,
    /// Subscriptions or unsubscriptions that the server answered with an error.
    pub(crate) refused: u64,
    /// Answers that are about another topic than what was asked.
    pub(crate) astray: u64,
    /// Changes without their answers by the end.
    pub(crate) unanswered: u64,
    /// From a change's time to the answer to its subscribe.
    pub(crate) latency: Percentiles,
}

impl Changes {
    /// In so many seconds.
    pub(super) fn new(figures: &Figures, seconds: f64) -> Self {
        Self {
            asked: figures.asked,
            answered: figures.answered,
            answered_per_s: figures.answered as f64 / seconds.max(1e-9),
            refused: figures.refused,
            astray: figures.astray,
            unanswered: figures.asked - figures.answered,
            latency: Percentiles::of(&figures.latency),
        }
    }

    /// What is wrong with it.
    pub(super) fn wrong(&self) -> Option<String> {
        let Self { refused, astray, unanswered, .. } = self;
        (refused + astray + unanswered > 0).then(|| {
            format!(
                "of changed watchlists {refused} answers were errors, {astray} about another topic, \
                 {unanswered} missing"
            )
        })
    }
}

/// Writing to a string can't fail, hence the `let _`.
pub(super) fn text(out: &mut String, changes: &Changes) {
    let latency = &changes.latency;
    let _ = writeln!(
        out,
        "changes       {} of watchlists, {:.0}/s; answered after p50 {} p99 {} max {}",
        changes.answered,
        changes.answered_per_s,
        duration(latency.p50_ns),
        duration(latency.p99_ns),
        duration(latency.max_ns)
    );
}
