//! How connections and the load generator itself behaved: connecting, silence, sending, answers.
//!
//! Knows: figures and their lines in the table. Must not know: how they were measured.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::Percentiles;
use super::words::{bytes, duration};
use crate::acks::Acks;
use crate::conduct;
use crate::source::Tally;
use crate::usage::Usage;

/// Fields of the report beside what was delivered.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(crate) struct Conduct {
    /// A signal ended the run before its time.
    pub(crate) interrupted: bool,
    /// A thread of the load generator was itself the limit (see `threads`): latencies and rates
    /// are at least partly its own.
    pub(crate) own_limit: bool,
    /// From beginning to connect until the TCP connection stands and the upgrade is in the kernel.
    pub(crate) connect: Percentiles,
    /// Of subscribers that stay.
    pub(crate) silence: Option<Silence>,
    /// What publishers gave to the kernel.
    pub(crate) sending: Option<Sending>,
    /// Answers to publications, where the server gives any.
    pub(crate) acks: Option<Answers>,
    /// Receives that brought something: several messages may come with one.
    pub(crate) receives: u64,
}

/// The longest time that each subscriber got no message, between the beginning of publishing and
/// its end.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(crate) struct Silence {
    /// Subscribers that stayed to the end.
    pub(crate) connections: u64,
    /// Half of them were silent for no longer, ns.
    pub(crate) p50_ns: u64,
    /// 99 % of them were silent for no longer, ns.
    pub(crate) p99_ns: u64,
    /// The longest of all, ns.
    pub(crate) max_ns: u64,
    /// --silence, ns.
    pub(crate) bound_ns: Option<u64>,
    /// Subscribers that were silent for longer than that.
    pub(crate) over_bound: u64,
    /// The longest time in which nothing was published: nobody could hear anything then.
    pub(crate) published_pause_ns: u64,
}

/// What publishers sent.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(crate) struct Sending {
    /// Publications per second, warm-up and all.
    pub(crate) per_s: f64,
    /// Frames, bytes.
    pub(crate) wire_bytes: u64,
    /// The same per second.
    pub(crate) bytes_per_s: f64,
    /// From a publication's time until it was given to the kernel.
    pub(crate) lateness: Option<Percentiles>,
}

/// What was answered.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(crate) struct Answers {
    /// Publications that the server took.
    pub(crate) accepted: u64,
    /// Publications that it answered with an error.
    pub(crate) refused: u64,
    /// Publications without an answer.
    pub(crate) unanswered: u64,
    /// From the intended time of a publication until it was accepted.
    pub(crate) latency: Percentiles,
}

impl Conduct {
    pub(super) fn new(
        noted: &conduct::Conduct,
        interrupted: bool,
        silence: Option<Duration>,
        published: &Tally,
        publishing_s: f64,
        threads: &[Usage],
    ) -> Self {
        let silent = &noted.silence;
        let bound_ns = silence.map(|bound| bound.as_nanos() as u64);
        let over = |bound: u64| silent.count_between(bound.saturating_add(1), u64::MAX);
        let silence = (!silent.is_empty()).then(|| Silence {
            connections: silent.len(),
            p50_ns: silent.value_at_quantile(0.5),
            p99_ns: silent.value_at_quantile(0.99),
            max_ns: silent.max(),
            bound_ns,
            over_bound: bound_ns.map_or(0, over),
            published_pause_ns: noted.pause_ns_max,
        });
        let seconds = publishing_s.max(1e-9);
        let sending = (published.published > 0).then(|| Sending {
            per_s: published.published as f64 / seconds,
            wire_bytes: noted.sent_bytes,
            bytes_per_s: noted.sent_bytes as f64 / seconds,
            lateness: published.lateness.as_ref().map(|lateness| Percentiles::of(lateness)),
        });
        Self {
            interrupted,
            own_limit: threads.iter().any(|usage| usage.limit),
            connect: Percentiles::of(&noted.connect),
            silence,
            sending,
            acks: None,
            receives: noted.receives,
        }
    }

    /// What is wrong with it.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(silence) = self.silence.as_ref().filter(|silence| silence.over_bound > 0) {
            wrong.push(format!(
                "{} subscribers got nothing for longer than {}, at most for {}",
                silence.over_bound,
                duration(silence.bound_ns.unwrap_or_default()),
                duration(silence.max_ns)
            ));
        }
        if let Some(acks) = self.acks.as_ref().filter(|acks| acks.refused + acks.unanswered > 0) {
            wrong.push(format!(
                "{} publications were refused, {} not answered",
                acks.refused, acks.unanswered
            ));
        }
        wrong
    }
}

impl Answers {
    /// `published` in all.
    pub(super) fn new(acks: &Acks, published: u64) -> Self {
        Self {
            accepted: acks.accepted,
            refused: acks.refused,
            unanswered: published.saturating_sub(acks.accepted + acks.refused),
            latency: Percentiles::of(&acks.latency),
        }
    }
}

/// What was sent and answered. Writing to a string can't fail, hence the `let _`.
pub(super) fn sending(out: &mut String, conduct: &Conduct) {
    let Some(sending) = &conduct.sending else { return };
    let rate = format!("{:.0}/s, {}/s", sending.per_s, bytes(sending.bytes_per_s as u64));
    let late = sending.lateness.as_ref().map_or_else(String::new, |late| {
        let parts = [("p50", late.p50_ns), ("p99", late.p99_ns), ("max", late.max_ns)];
        let parts = parts.map(|(name, ns)| format!("{name} {}", duration(ns)));
        format!("; late {}", parts.join(" "))
    });
    let _ = writeln!(out, "sent          {rate}{late}");
    let Some(acks) = &conduct.acks else { return };
    let _ = writeln!(
        out,
        "answered      {} accepted, {} refused, {} not answered; accepted after p50 {} p99 {} p99.9 {} max {}",
        acks.accepted,
        acks.refused,
        acks.unanswered,
        duration(acks.latency.p50_ns),
        duration(acks.latency.p99_ns),
        duration(acks.latency.p99_9_ns),
        duration(acks.latency.max_ns)
    );
}

/// The longest silences.
pub(super) fn silence(out: &mut String, conduct: &Conduct) {
    let Some(silence) = &conduct.silence else { return };
    let _ = writeln!(
        out,
        "silence       longest per subscriber p50 {} p99 {} max {}; nothing was published for at most {}",
        duration(silence.p50_ns),
        duration(silence.p99_ns),
        duration(silence.max_ns),
        duration(silence.published_pause_ns)
    );
}
