//! Whether every subscriber's book is what the publisher's is, and what it was told on the way.
//!
//! Knows: subscriptions by name, snapshots, gaps, resumes, and what each means for the numbers that
//! come next. Must not know: sockets, time.
//!
//! The ledger knows which number comes next on each stream; here is what moves it other than by a
//! message: an acknowledgement, a gap told, a snapshot. The replay's topics begin with the run, so
//! the server's `seq` is our number and one.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::book::{Link, difference};
use super::figures::{Figures, Sort};
use super::market::{Market, parse_snapshot};
use super::shelf::{Shelf, StateId};
use super::words::{Ack, Word};
use crate::plan::{ClientPlan, Role};
use crate::verify::{Ledger, StreamKind};

/// What all threads' followers share.
pub(crate) struct BooksPlan {
    pub(crate) market: Arc<Market>,
    /// Connections that come back say where they were.
    pub(crate) resume: bool,
}

/// One subscriber of one stream.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// Its book; none until a snapshot, and of streams without books.
    state: Option<StateId>,
    /// The number after the last one received.
    floor: u64,
    /// A resume was asked for and is not answered.
    asked: bool,
}

/// One thread's.
pub(crate) struct Follower {
    plan: Arc<BooksPlan>,
    shelf: Shelf,
    /// By the ledger's cell.
    cells: Vec<Cell>,
    /// By connection.
    sorts: Vec<Sort>,
    /// By connection: a subscription is not answered.
    waiting: Vec<bool>,
    unanswered: u64,
    /// By stream: the epoch last named.
    epochs: Vec<Option<String>>,
    hasher: FixedState,
    /// By book: how many updates the final one has, and its sides.
    finals: Vec<Option<Final>>,
    pub(crate) figures: Figures,
}

struct Final {
    updates: u64,
    sides: (Vec<super::book::Level>, Vec<super::book::Level>),
    /// The last state compared, and what came of it.
    compared: Option<(StateId, Option<String>)>,
}

impl Follower {
    pub(crate) fn new(plan: &Arc<BooksPlan>, ledger: &Ledger, clients: &[ClientPlan]) -> Self {
        let sort = |client: &ClientPlan| match client.role {
            Role::Slow => Sort::Slow,
            _ if client.is_steady() => Sort::Steady,
            _ => Sort::Churning,
        };
        let books = plan.market.origins.len();
        Self {
            shelf: Shelf::new(Arc::clone(&plan.market)),
            cells: vec![Cell::default(); ledger.cells()],
            sorts: clients.iter().map(sort).collect(),
            waiting: vec![false; clients.len()],
            unanswered: 0,
            epochs: vec![None; plan.market.book_of.len()],
            hasher: FixedState::default(),
            finals: (0..books).map(|_| None).collect(),
            figures: Figures::default(),
            plan: Arc::clone(plan),
        }
    }

    pub(crate) fn sort(&self, connection: u32) -> Sort {
        self.sorts[connection as usize]
    }

    /// Connections that come back say where they were.
    pub(crate) fn resumes(&self) -> bool {
        self.plan.resume
    }

    /// The connection's is not answered yet.
    pub(crate) fn is_unanswered(&self, connection: u32) -> bool {
        self.waiting[connection as usize]
    }

    /// Subscriptions not answered yet.
    pub(crate) fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// The subscription to be sent.
    pub(crate) fn subscribe(&mut self, ledger: &Ledger, connection: u32) -> String {
        let mut topics = Vec::new();
        let mut resume = Vec::new();
        for &stream in ledger.wanted(connection) {
            let name = ledger.name(stream);
            topics.push(format!("\"{name}\""));
            let Some(cell) = ledger.cell(connection, stream) else { continue };
            self.cells[cell].asked = false;
            if let (true, Some(next), Some(epoch)) = (
                self.plan.resume,
                ledger.expected(connection, stream),
                &self.epochs[usize::from(stream)],
            ) {
                self.cells[cell].asked = true;
                resume.push(format!("\"{name}\":{{\"epoch\":\"{epoch}\",\"seq\":{next}}}"));
            }
        }
        self.unanswered += u64::from(!self.waiting[connection as usize]);
        self.waiting[connection as usize] = true;
        let (topics, resume) = (topics.join(","), resume.join(","));
        let resume = match resume.as_str() {
            "" => String::new(),
            resume => format!(",\"resume\":{{{resume}}}"),
        };
        format!("{{\"op\":\"subscribe\",\"id\":1,\"topics\":[{topics}],\"snapshot\":true{resume}}}")
    }

    /// The connection has ended.
    pub(crate) fn left(&mut self, connection: u32) {
        self.unanswered -= u64::from(self.waiting[connection as usize]);
        self.waiting[connection as usize] = false;
    }

    /// Takes one of the server's words; `false` if it means nothing here.
    pub(crate) fn word(&mut self, ledger: &mut Ledger, connection: u32, word: &Word<'_>) -> bool {
        match word.op.as_ref() {
            "subscribed" => {
                for ack in &word.topics {
                    self.acknowledged(ledger, connection, ack);
                }
                self.left(connection);
            }
            "gap" => match (&word.topic, word.from, word.to) {
                (Some(topic), Some(from @ 1..), Some(to)) if to >= from => {
                    self.gap(ledger, connection, topic, from, to);
                }
                _ => self.figures.gaps_wrong += 1,
            },
            "published" => {
                self.figures.duplicates += u64::from(word.duplicate);
                self.figures.snapshots_wanted += u64::from(word.snapshot_wanted);
            }
            "error" if word.code.as_deref() == Some("snapshot_unavailable") => {
                self.figures.snapshots_unavailable += 1;
            }
            _ => return false,
        }
        true
    }

    fn acknowledged(&mut self, ledger: &mut Ledger, connection: u32, ack: &Ack<'_>) {
        let found = ledger.stream_named(&ack.topic);
        let at = found.and_then(|stream| Some((stream, ledger.cell(connection, stream)?)));
        let Some((stream, cell)) = at else {
            return self.topic_wrong(format!("{} was acknowledged unasked", ack.topic));
        };
        if let Some(error) = &ack.error {
            return self.topic_wrong(format!("{} was refused: {error}", ack.topic));
        }
        let kind = ledger.kind(stream);
        if let Some(told) = &ack.kind
            && told != kind.as_str()
        {
            let right = kind.as_str();
            self.topic_wrong(format!("{} is of kind {told}, should be {right}", ack.topic));
        }
        let asked = std::mem::take(&mut self.cells[cell].asked);
        let known = &mut self.epochs[usize::from(stream)];
        let same_epoch = known.as_deref() == ack.epoch.as_deref();
        if !same_epoch {
            *known = ack.epoch.as_deref().map(str::to_owned);
        }
        let stays = match (asked, ack.recovered) {
            (true, Some(true)) => {
                self.figures.resumed += 1;
                self.figures.resumes_wrong += u64::from(!same_epoch);
                true
            }
            (true, Some(false)) => {
                let reason = ack.reason.as_deref().unwrap_or("no reason given");
                *self.figures.resumed_not.entry(reason.to_owned()).or_default() += 1;
                // What is missing is told as a gap; of values it is nothing.
                same_epoch && reason == "history" && kind != StreamKind::Value
            }
            (true, None) => {
                self.figures.resumes_wrong += 1;
                false
            }
            (false, recovered) => {
                self.figures.resumes_wrong += u64::from(recovered.is_some());
                false
            }
        };
        if !stays {
            let seq = ack.seq.unwrap_or(0);
            match kind {
                StreamKind::Event => ledger.place(connection, stream, Some(seq)),
                // The last one comes as a snapshot.
                StreamKind::Value => {
                    ledger.place(connection, stream, Some(seq.saturating_sub(1)));
                }
                StreamKind::Delta => {
                    ledger.place(connection, stream, None);
                    self.forget(cell);
                    self.cells[cell].floor = 0;
                }
            }
        }
    }

    fn topic_wrong(&mut self, what: String) {
        if self.figures.topics_wrong.len() < REASONS_MAX {
            *self.figures.topics_wrong.entry(what).or_default() += 1;
        }
    }

    fn gap(&mut self, ledger: &mut Ledger, connection: u32, topic: &str, from: u64, to: u64) {
        self.figures.gaps_told.add(self.sort(connection));
        let found = ledger.stream_named(topic);
        let at = found.and_then(|stream| Some((stream, ledger.cell(connection, stream)?)));
        let Some((stream, cell)) = at else {
            self.figures.gaps_wrong += 1;
            return;
        };
        if !ledger.gap_told(connection, stream, from - 1, to - 1) {
            self.figures.gaps_wrong += 1;
        }
        self.forget(cell);
    }

    /// The subscriber has no book any more.
    fn forget(&mut self, cell: usize) {
        self.cells[cell].state = None;
    }

    /// A snapshot of `stream` that stands for everything up to `seq`. `known`: its text is that of
    /// a message of the stream with this very number.
    pub(crate) fn snapshot(
        &mut self,
        ledger: &mut Ledger,
        connection: u32,
        (stream, seq): (u16, u64),
        data: &[u8],
        known: bool,
    ) {
        let Some(cell) = ledger.cell(connection, stream) else {
            ledger.faults.foreign += 1;
            return;
        };
        self.figures.snapshots.add(self.sort(connection));
        let expected = ledger.expected(connection, stream);
        if let Some(book) = self.plan.market.book_of[usize::from(stream)] {
            let ahead = expected.is_some_and(|expected| seq > expected);
            let behind = seq < self.cells[cell].floor;
            if self.cells[cell].state.is_some() || ahead || behind {
                self.figures.snapshots_wrong += 1;
            }
            let name = (data.len() as u64, self.hasher.hash_one(data));
            match self.shelf.begin(book, name, || parse_snapshot(data)) {
                Ok(state) => {
                    self.cells[cell].state = Some(state);
                    ledger.place(connection, stream, Some(seq));
                }
                Err(_) => ledger.faults.damaged += 1,
            }
            return;
        }
        if !known {
            ledger.faults.damaged += 1;
            return;
        }
        match (ledger.kind(stream), expected) {
            (StreamKind::Value, Some(expected)) if seq < expected => ledger.faults.reordered += 1,
            (StreamKind::Value, _) => ledger.place(connection, stream, Some(seq)),
            // It repeats the last one; nothing may lie between.
            (_, Some(expected)) if seq > expected => self.figures.snapshots_wrong += 1,
            _ => {}
        }
    }

    /// The message that the ledger expected has come.
    #[inline]
    pub(crate) fn advanced(&mut self, ledger: &Ledger, connection: u32, stream: u16, number: u64) {
        let Some(book) = self.plan.market.book_of[usize::from(stream)] else { return };
        let Some(cell) = ledger.cell(connection, stream) else { return };
        let cell = &mut self.cells[cell];
        cell.floor = number + 1;
        let Some(state) = cell.state else {
            self.figures.unfounded += 1;
            return;
        };
        let (next, link) = self.shelf.step(state, book, number as u32);
        cell.state = Some(next);
        match link {
            Link::Holds => self.figures.links_held += 1,
            Link::Covered => self.figures.covered += 1,
            Link::Broken => {
                self.figures.links_broken += 1;
                if self.figures.first_broken.is_none() {
                    let name = ledger.name(stream);
                    let text = format!("connection {connection}, number {number} of {name}");
                    self.figures.first_broken = Some(text);
                }
            }
        }
    }

    /// Whether the connection has all its books.
    pub(crate) fn is_complete(&self, ledger: &Ledger, connection: u32) -> bool {
        ledger.wanted(connection).iter().all(|&stream| {
            self.plan.market.book_of[usize::from(stream)].is_none()
                || ledger
                    .cell(connection, stream)
                    .is_some_and(|cell| self.cells[cell].state.is_some())
        })
    }

    /// The end: compares the connection's books with the publisher's.
    pub(crate) fn settle(
        &mut self,
        ledger: &Ledger,
        connection: u32,
        published: impl Fn(u16) -> u64,
    ) {
        for &stream in ledger.wanted(connection) {
            let Some(book) = self.plan.market.book_of[usize::from(stream)] else { continue };
            let Some(cell) = ledger.cell(connection, stream) else { continue };
            let Some(state) = self.cells[cell].state else {
                self.figures.missing += 1;
                continue;
            };
            let difference = self.compare(book, state, published(stream));
            match difference {
                None => self.figures.equal += 1,
                Some(difference) => {
                    self.figures.unequal += 1;
                    let name = ledger.name(stream);
                    let text = || format!("{name} of connection {connection}: {difference}");
                    self.figures.first_difference.get_or_insert_with(text);
                }
            }
        }
        self.figures.steps_calculated = self.shelf.calculated;
        self.figures.steps_shared = self.shelf.shared;
    }

    fn compare(&mut self, book: u16, state: StateId, updates: u64) -> Option<String> {
        let market = &self.plan.market;
        let slot = &mut self.finals[usize::from(book)];
        let is_same = slot.as_ref().is_some_and(|known| known.updates == updates);
        if !is_same {
            let sides = market.book_after(book, updates).sides();
            *slot = Some(Final { updates, sides, compared: None });
        }
        let known = slot.as_mut()?;
        if let Some((compared, difference)) = &known.compared
            && *compared == state
        {
            return difference.clone();
        }
        let ours = self.shelf.levels(state, book);
        let found = difference("bid", &ours.bids, &known.sides.0)
            .or_else(|| difference("ask", &ours.asks, &known.sides.1));
        known.compared = Some((state, found.clone()));
        found
    }
}

/// Different complaints about topics.
const REASONS_MAX: usize = 64;
