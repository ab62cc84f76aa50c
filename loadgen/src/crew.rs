//! From what a command wants to threads with their shares, and from their results to a report.
//!
//! Knows: dealing out connections, merging results. Must not know: what the streams are.

use std::net::IpAddr;
use std::sync::Arc;

use crate::acks::Acks;
use crate::books::{BooksPlan, Follower};
use crate::client::Client;
use crate::dial;
use crate::driver::{Means, Sources, file_limit_raise};
use crate::failure::Failure;
use crate::flags::{KernelTier, RunFlags};
use crate::interest::Interest;
use crate::judge::{Identify, Judge};
use crate::plan::{ClientPlan, Group, WorkerPlan, share};
use crate::ready::Ready;
use crate::replies::Replies;
use crate::report::{Own, Report};
use crate::run::{Job, Timing, run};
use crate::shared::Shared;
use crate::source::Source;
use crate::spread::Spread;
use crate::steps::Steps;
use crate::verify::{Ledger, Streams};
use crate::watch::Watch;
use crate::watchlists::{Changes, ChangesPlan};

/// Everything that a command decides.
pub(crate) struct Crew<'a> {
    pub(crate) flags: &'a RunFlags,
    /// Where connections go.
    pub(crate) groups: Vec<Group>,
    /// All connections.
    pub(crate) clients: Vec<ClientPlan>,
    /// What groups of subscribers get.
    pub(crate) interests: Vec<Interest>,
    /// All that is published.
    pub(crate) streams: Streams,
    pub(crate) timing: Timing,
    /// A received payload's length, where it is known, bytes.
    pub(crate) payload_bytes: Option<usize>,
    pub(crate) spread: Spread,
    /// Publications wait for subscribers.
    pub(crate) closed_loop: bool,
    /// Subscribers rebuild order books.
    pub(crate) books: Option<Arc<BooksPlan>>,
    /// What slow subscribers read, bytes per second.
    pub(crate) slow_bytes_per_s: u64,
    pub(crate) slow_catch_up: bool,
    /// What the server's kernel may hold of a connection, bytes.
    pub(crate) server_buffer_bytes: u64,
    /// Latency is wanted step by step.
    pub(crate) steps: Option<Steps>,
    /// The server answers publications.
    pub(crate) acks: Option<Acks>,
    /// Subscribers change what they watch.
    pub(crate) changes: Option<ChangesPlan>,
}

impl<'a> Crew<'a> {
    /// With nobody and nothing yet, and none of what only some commands want.
    pub(crate) fn plain(flags: &'a RunFlags, timing: Timing) -> Self {
        Self {
            flags,
            groups: Vec::new(),
            clients: Vec::new(),
            interests: Vec::new(),
            streams: Streams { names: Vec::new(), kinds: Vec::new() },
            timing,
            payload_bytes: None,
            spread: Spread::new(0),
            closed_loop: false,
            books: None,
            slow_bytes_per_s: 1,
            slow_catch_up: false,
            server_buffer_bytes: 0,
            steps: None,
            acks: None,
            changes: None,
        }
    }

    /// Runs the threads. `sources` are the publishers', in order; `identify` makes each thread's
    /// means of recognising payloads.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn run(
        mut self,
        sources: impl FnOnce(&Arc<Shared>) -> Vec<Box<dyn Source>>,
        identify: impl Fn() -> Identify,
    ) -> Result<Report, Failure> {
        dial::complete(&mut self.groups, &self.clients, &self.flags.dial)?;
        let means = means(self.flags.kernel.kernel_tier)?;
        let connections_max = self.connections_max(means)?;
        let shares = share(&self.clients, self.threads(means)?);
        let server = self.flags.server.find()?;
        let watch = Watch::new(self.flags, server.as_ref(), self.clients.len() as u64)?;
        let threads = shares.len();
        let shared = Shared::new(threads, self.streams.names.len()).map(Arc::new);
        let shared = shared.map_err(Failure::Setup)?;
        let streams = Arc::new(self.streams);
        let interests: Arc<[Interest]> = Arc::from(self.interests);
        let origin = origin(&self.flags.source, &self.groups);
        let groups: Arc<[Group]> = Arc::from(self.groups);
        let replies = self.flags.dial.replies();
        let subscribers = self.clients.iter().filter(|client| client.is_steady()).count() as u64;
        let mut sources = Some(sources(&shared));
        let (mut number_first, mut cells) = (0, 0);
        let mut jobs = Vec::with_capacity(threads);
        for (thread, clients) in shares.into_iter().enumerate() {
            let interest_of = clients.iter().map(|client| {
                client.is_checked().then(|| groups[usize::from(client.group)].interest)?
            });
            let ledger = Ledger::new(Arc::clone(&streams), Arc::clone(&interests), interest_of);
            let mut judge = Judge::new(ledger, identify(), self.payload_bytes, self.spread.clone());
            judge.recorder.steps = self.steps.clone().map(Box::new);
            // Publishers are all in the first thread.
            judge.acks = self.acks.clone().filter(|_| thread == 0).map(Box::new);
            if let Some(books) = &self.books {
                judge.follower = Some(Box::new(Follower::new(books, &judge.ledger, &clients)));
            }
            if let Some(plan) = &self.changes {
                judge.changes = Changes::new(plan, &clients, subscribers, &shared).map(Box::new);
            }
            let ready = self.flags.dial.ready.as_ref();
            judge.ready = ready.map(|word| Ready::new(word, clients.len()));
            judge.replies = (!replies.is_empty()).then(|| Replies::new(&replies));
            if self.closed_loop {
                let steady = clients.iter().filter(|client| client.is_steady()).count();
                judge.watch_seen(steady as u32);
            }
            cells += judge.ledger.cells();
            let count = clients.len() as u32;
            let plan = WorkerPlan {
                thread,
                cpu: cpu(&self.flags.cpus, thread, threads),
                groups: Arc::clone(&groups),
                clients,
                number_first,
                connects_per_s: self.flags.connect_rate.div_ceil(threads as u32),
                sources: origin.clone(),
                warmup_ns: self.timing.warmup.as_nanos() as u64,
                deflate: self.flags.deflate,
                seed: self.flags.seed,
                slow_bytes_per_s: self.slow_bytes_per_s,
                slow_catch_up: self.slow_catch_up,
                receive_buffer_bytes: self.flags.receive_buffer.map(|bytes| bytes as usize),
                send_buffer_bytes: self.flags.kernel.send_buffer.map(|bytes| bytes as usize),
                means,
            };
            number_first += count;
            jobs.push(Job { plan, judge, sources: sources.take().unwrap_or_default() });
        }
        let firsts: Vec<_> = jobs.iter().map(|job| job.plan.number_first).collect();
        let finished = run(jobs, &shared, self.timing, server.as_ref(), watch)?;
        let own = Own::new(finished.own, aside_bytes(cells, number_first), means, connections_max);
        let (clients, has_books) = (&self.clients, self.books.is_some());
        let mut report =
            Report::new(finished, &firsts, &streams, clients, self.timing, self.flags, has_books);
        report.add_own(own);
        report.add_slow(self.slow_bytes_per_s, self.server_buffer_bytes);
        Ok(report)
    }

    /// How many connections there can be where each is a file descriptor.
    fn connections_max(&self, means: Means) -> Result<Option<u64>, Failure> {
        let spare = FILES_SPARE + FILES_PER_THREAD * u64::from(self.flags.threads);
        let most = file_limit_raise().saturating_sub(spare);
        let connections = self.clients.len() as u64;
        match means.direct {
            true => Ok(None),
            false if connections <= most => Ok(Some(most)),
            false => Err(Failure::Files { connections, most, needed: connections + spare }),
        }
    }

    /// As many receiving threads as asked for, or as the rings' tables of files make necessary.
    fn threads(&self, means: Means) -> Result<usize, Failure> {
        let limit = if means.direct { file_limit_raise() } else { SLOTS_MAX };
        let per_ring = limit.saturating_sub(FILES_SPARE).clamp(1, SLOTS_MAX);
        let needed = (self.clients.len() as u64).div_ceil(per_ring);
        let threads = needed.max(u64::from(self.flags.threads)) as usize;
        let cpus = &self.flags.cpus;
        if !cpus.is_empty() && cpus.len() < threads {
            let right = format!("{threads} processors, one for each receiving thread: 0,1,…");
            return Err(Failure::usage("--cpus", format!("{cpus:?}"), &right));
        }
        Ok(threads)
    }
}

fn means(tier: KernelTier) -> Result<Means, Failure> {
    match tier {
        KernelTier::Auto => Means::probe().map_err(Failure::Ring),
        KernelTier::Base => Ok(Means::BASE),
    }
}

/// What each of so many connections has before it is opened, bytes: its plan, here, dealt out, and in
/// its thread's hands; its state; its row in the ledger, and the cells of all.
fn aside_bytes(cells: usize, connections: u32) -> u64 {
    let cells_bytes = (cells * size_of::<u64>()) as u64 / u64::from(connections.max(1));
    (4 * size_of::<ClientPlan>() + size_of::<Client>() + 2 * size_of::<u32>()) as u64 + cells_bytes
}

/// The processor of a thread: `cpus` are the receiving threads', which come last, in order; one
/// more is the publishing thread's, else it shares the first.
fn cpu(cpus: &[usize], thread: usize, threads: usize) -> Option<usize> {
    match cpus.len() {
        0 => None,
        given if given >= threads => cpus.get((thread + threads - 1) % threads).copied(),
        given => cpus.get((thread + given).saturating_sub(threads)).copied(),
    }
}

fn origin(given: &[IpAddr], groups: &[Group]) -> Sources {
    if !given.is_empty() {
        return Sources::Given(given.to_vec());
    }
    let is_v4_loopback =
        |group: &Group| group.address.is_ipv4() && group.address.ip().is_loopback();
    if groups.iter().all(is_v4_loopback) { Sources::Loopback } else { Sources::Any }
}

/// Which of `subscribers` churn when `percent` of them shall: evenly spread.
pub(crate) fn churners(subscribers: u32, percent: f64) -> impl Fn(u32) -> bool {
    let count = (f64::from(subscribers) * percent / 100.0).round() as u64;
    evenly(subscribers, count)
}

/// Which of `subscribers` are taken when `count` of them shall: evenly spread.
pub(crate) fn evenly(subscribers: u32, count: u64) -> impl Fn(u32) -> bool {
    let total = u64::from(subscribers.max(1));
    move |number| {
        let before = |number: u64| number * count / total;
        before(u64::from(number) + 1) > before(u64::from(number))
    }
}

/// Descriptors left for everything else.
const FILES_SPARE: u64 = 64;
/// A thread's ring, and what wakes it.
const FILES_PER_THREAD: u64 = 4;
/// Slots of one ring's table (io_uring allows 2^20).
const SLOTS_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_publishing_thread_has_the_last_processor_or_shares_the_first() {
        let of = |cpus: &[usize], threads| {
            (0..threads).map(|thread| cpu(cpus, thread, threads)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[], 2), [None, None]);
        assert_eq!(of(&[5], 1), [Some(5)]);
        assert_eq!(of(&[5], 2), [Some(5), Some(5)]);
        assert_eq!(of(&[5, 6], 3), [Some(5), Some(5), Some(6)]);
        assert_eq!(of(&[5, 6, 7], 3), [Some(7), Some(5), Some(6)]);
    }

    #[test]
    fn churners_are_as_many_as_asked_and_spread() {
        for (subscribers, percent, count) in
            [(1000, 1.0, 10), (7, 50.0, 4), (5, 0.0, 0), (3, 100.0, 3)]
        {
            let churns = churners(subscribers, percent);
            assert_eq!((0..subscribers).filter(|&number| churns(number)).count(), count);
        }
        let churns = churners(1000, 1.0);
        assert_eq!((0..500).filter(|&number| churns(number)).count(), 5);
    }
}
