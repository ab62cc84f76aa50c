//! Subscribers that change what they watch, and whether they get what they then should.
//!
//! Knows: which topics each has of those set apart, what was asked and answered. Must not know:
//! sockets, the topics that stay (the ledger has those).
//!
//! A change takes one topic out of the watchlist and another in. From the answer to `subscribe` on
//! everything published must come, in order, until the answer to `unsubscribe`, and nothing after it.
//! Two things are not known from outside, and not counted: which publications were ordered before the
//! one answer and published before it came, and the same at the other.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use hdrhistogram::Histogram;
use rand::RngExt as _;
use rand_pcg::Pcg32;

use crate::books::words;
use crate::clock::NANOS_PER_SECOND;
use crate::plan::ClientPlan;
use crate::record::histogram;
use crate::shared::Shared;
use crate::source::{NEVER, masks};
use crate::verify::{Faults, Ledger, Missed, Verdict};

/// What the command has decided.
pub(crate) struct ChangesPlan {
    /// Changes per second, of all subscribers together.
    pub(crate) per_s: f64,
    /// The streams among which they change.
    pub(crate) apart: Range<u16>,
    /// By group: its watchlist.
    pub(crate) lists: Arc<Vec<Vec<u16>>>,
    pub(crate) seed: u64,
}

/// One thread's subscribers.
pub(crate) struct Changes {
    apart: Range<u16>,
    shared: Arc<Shared>,
    /// Topics of each watchlist that change.
    changing: usize,
    /// By connection, as many as change: what it has of the streams set apart.
    held: Vec<Held>,
    /// By connection: the change that is not yet answered.
    asked: Vec<Option<Asked>>,
    /// From one change to the next, ns.
    every_ns: f64,
    /// Changes that have had their time.
    count: u64,
    /// The connection that comes next.
    next: usize,
    /// All connections have asked and not been answered.
    blocked: bool,
    random: Pcg32,
    pub(crate) figures: Figures,
}

/// One stream of one connection.
#[derive(Clone, Copy, Debug)]
struct Held {
    stream: u16,
    /// The next number that must come.
    next: u64,
    /// Something has come: before that, earlier ones may.
    begun: bool,
}

/// A change on its way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Which of the connection's `held` it is about.
    place: u16,
    /// What is subscribed to in its place.
    stream: u16,
    /// When it was due, ns.
    intended_ns: u64,
    unsubscribed: bool,
}

/// How changes went, of one thread or of all.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    /// Answers that belong to no question.
    pub(crate) astray: u64,
    /// From a change's time to the answer to its subscribe, ns.
    pub(crate) latency: Histogram<u64>,
}

impl Changes {
    /// For one thread with these clients, of `subscribers` in all; `None` if none of them change.
    pub(crate) fn new(
        plan: &ChangesPlan,
        clients: &[ClientPlan],
        subscribers: u64,
        shared: &Arc<Shared>,
    ) -> Option<Self> {
        let count = clients.iter().filter(|client| client.is_steady()).count();
        // Publishers have a thread of their own.
        if count == 0 || count < clients.len() {
            return None;
        }
        let is_apart = |stream: &&u16| plan.apart.contains(*stream);
        let list = |client: &ClientPlan| plan.lists[usize::from(client.group)].iter();
        let changing = list(&clients[0]).filter(is_apart).count();
        let held = |&stream: &u16| Held { stream, next: 0, begun: true };
        let per_s = plan.per_s * count as f64 / subscribers.max(1) as f64;
        Some(Self {
            apart: plan.apart.clone(),
            shared: Arc::clone(shared),
            changing,
            held: clients
                .iter()
                .flat_map(|client| list(client).filter(is_apart).map(held))
                .collect(),
            asked: vec![None; count],
            every_ns: NANOS_PER_SECOND as f64 / per_s,
            count: 0,
            next: 0,
            blocked: false,
            random: masks(plan.seed ^ 0x6368_616E),
            figures: Figures::default(),
        })
    }

    /// One of the streams among which subscribers change.
    #[inline]
    pub(crate) fn is_apart(&self, stream: u16) -> bool {
        self.apart.contains(&stream)
    }

    /// When the next change is due, ns.
    pub(crate) fn due_ns(&self) -> u64 {
        let start_ns = self.shared.start_ns();
        if self.blocked || start_ns == NEVER {
            return NEVER;
        }
        let due_ns = start_ns.saturating_add((self.count as f64 * self.every_ns) as u64);
        if due_ns < self.shared.end_ns() { due_ns } else { NEVER }
    }

    /// A change that is due: whose, what to unsubscribe from and what to subscribe to, as messages.
    /// Each connection has its turn; `is_open` says of whom there is no use.
    pub(crate) fn ask(
        &mut self,
        now_ns: u64,
        ledger: &Ledger,
        is_open: impl Fn(u32) -> bool,
    ) -> Option<(u32, [String; 2])> {
        let intended_ns = self.due_ns();
        if intended_ns > now_ns {
            return None;
        }
        let connections = self.asked.len();
        let free = (self.next..connections).chain(0..self.next);
        let mut free = free.filter(|&index| self.asked[index].is_none() && is_open(index as u32));
        let Some(connection) = free.next() else {
            self.blocked = true;
            return None;
        };
        self.next = (connection + 1) % connections;
        self.count += 1;
        let place = self.random.random_range(0..self.changing);
        let own = connection * self.changing..(connection + 1) * self.changing;
        let stream = loop {
            // There is one at least that it does not have.
            let stream = self.random.random_range(self.apart.clone());
            if self.held[own.clone()].iter().all(|held| held.stream != stream) {
                break stream;
            }
        };
        let left = self.held[own.start + place].stream;
        let asked = Asked { place: place as u16, stream, intended_ns, unsubscribed: false };
        self.asked[connection] = Some(asked);
        self.figures.asked += 1;
        let word = |op: &str, stream| {
            let mut text = String::with_capacity(64);
            let topic = ledger.name(stream);
            // Writing to a string can't fail; topics need no escapes.
            let _ = write!(text, "{{\"op\":\"{op}\",\"topics\":[\"{topic}\"]}}");
            text
        };
        Some((connection as u32, [word("unsubscribe", left), word("subscribe", stream)]))
    }

    /// Words of the server to this connection: whether they answer a change.
    pub(crate) fn word(
        &mut self,
        ledger: &Ledger,
        connection: u32,
        payload: &[u8],
        now_ns: u64,
    ) -> bool {
        let (index, changing) = (connection as usize, self.changing);
        let Some(Some(asked)) = self.asked.get_mut(index) else { return false };
        let Some(word) = words::read(payload) else { return false };
        let held = &mut self.held[index * changing + usize::from(asked.place)];
        let wanted = if asked.unsubscribed { asked.stream } else { held.stream };
        match word.op.as_ref() {
            "unsubscribed" if !asked.unsubscribed => {}
            "subscribed" if asked.unsubscribed => {}
            "error" => {
                // Which of the two it was about does not matter: nothing is known any more.
                self.figures.refused += 1;
                return false;
            }
            _ => return false,
        }
        let is_about = word.topics.iter().any(|ack| ack.topic == ledger.name(wanted));
        let is_refused = word.topics.iter().any(|ack| ack.error.is_some());
        self.figures.refused += u64::from(is_refused);
        self.figures.astray += u64::from(!is_about && !is_refused);
        if !asked.unsubscribed {
            asked.unsubscribed = true;
            return !is_refused;
        }
        *held = Held { stream: asked.stream, next: self.shared.published(wanted), begun: false };
        self.figures.answered += 1;
        self.figures.latency.saturating_record(now_ns.saturating_sub(asked.intended_ns));
        self.asked[index] = None;
        self.blocked = false;
        !is_refused
    }

    /// Publication `number` of a stream set apart has arrived.
    pub(crate) fn observe(
        &mut self,
        ledger: &mut Ledger,
        connection: u32,
        stream: u16,
        number: u64,
    ) -> Verdict {
        let index = connection as usize;
        let own = (index * self.changing).min(self.held.len());
        let own = own..(own + self.changing).min(self.held.len());
        let held = &mut self.held[own];
        let place = held.iter().position(|held| held.stream == stream);
        // What has been unsubscribed from, and answered.
        let left = self.asked.get(index).copied().flatten().filter(|asked| asked.unsubscribed);
        let place = place.filter(|&place| left.is_none_or(|left| usize::from(left.place) != place));
        let Some(place) = place else {
            ledger.faults.foreign += 1;
            return Verdict::Faulty;
        };
        let held = &mut held[place];
        if !held.begun && number < held.next {
            // Ordered behind the subscribe, and given to the kernel before its answer came.
            *held = Held { next: number + 1, begun: true, ..*held };
            return Verdict::Advanced;
        }
        held.begun = true;
        let Faults { duplicated, reordered, .. } = &mut ledger.faults;
        if number < held.next {
            *(if number + 1 == held.next { duplicated } else { reordered }) += 1;
            return Verdict::Faulty;
        }
        let from = std::mem::replace(&mut held.next, number + 1);
        if number > from {
            ledger.note_missed(Missed { connection, stream, from, to: number - 1 });
        }
        Verdict::Advanced
    }

    /// The connection has all that was published of what it has.
    pub(crate) fn is_complete(&self, connection: u32, published: impl Fn(u16) -> u64) -> bool {
        let index = connection as usize;
        let Some(asked) = self.asked.get(index) else { return true };
        let held = &self.held[index * self.changing..][..self.changing];
        asked.is_none() && held.iter().all(|held| held.next >= published(held.stream))
    }

    /// Counts what the connection has not got by the end.
    pub(crate) fn settle(
        &self,
        ledger: &mut Ledger,
        connection: u32,
        published: impl Fn(u16) -> u64,
    ) {
        let index = connection as usize;
        let Some(asked) = self.asked.get(index) else { return };
        let left = asked.filter(|asked| asked.unsubscribed).map(|asked| usize::from(asked.place));
        let held = &self.held[index * self.changing..][..self.changing];
        for (place, &Held { stream, next, .. }) in held.iter().enumerate() {
            let published = published(stream);
            if Some(place) != left && next < published {
                ledger.note_missed(Missed { connection, stream, from: next, to: published - 1 });
            }
        }
    }
}

impl Default for Figures {
    fn default() -> Self {
        Self { asked: 0, answered: 0, refused: 0, astray: 0, latency: histogram() }
    }
}

impl Figures {
    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.refused += other.refused;
        self.astray += other.astray;
        self.latency.add(&other.latency).expect("all are made by `histogram`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interest::Interest;
    use crate::plan::Role;
    use crate::verify::{StreamKind, Streams};

    /// One connection that watches topic 0, and 2 of 2 to 4 for now.
    fn changes() -> (Changes, Ledger, Arc<Shared>) {
        let shared = Arc::new(Shared::new(1, 5).expect("an eventfd"));
        let lists = Arc::new(vec![vec![0, 2]]);
        let plan = ChangesPlan { per_s: 1000.0, apart: 2..5, lists, seed: 1 };
        let clients = [ClientPlan { role: Role::Subscriber { churns: false }, group: 0 }];
        let changes = Changes::new(&plan, &clients, 1, &shared).expect("it changes");
        let names = (0..5).map(|topic| format!("t.{topic}")).collect();
        let streams = Streams { names, kinds: vec![StreamKind::Event; 5] };
        let interests = Arc::from([Interest::few(vec![0])]);
        let ledger = Ledger::new(Arc::new(streams), interests, [Some(0)].into_iter());
        shared.set_window(1_000_000, 9_000_000);
        (changes, ledger, shared)
    }

    fn answer(changes: &mut Changes, ledger: &Ledger, op: &str, stream: u16) -> bool {
        let text = format!("{{\"op\":\"{op}\",\"topics\":[{{\"topic\":\"t.{stream}\"}}]}}");
        changes.word(ledger, 0, text.as_bytes(), 4_000_000)
    }

    /// Asks once; what is subscribed to.
    fn ask(changes: &mut Changes, ledger: &Ledger) -> u16 {
        let (connection, [unsubscribe, subscribe]) =
            changes.ask(2_000_000, ledger, |_| true).expect("a change is due");
        assert_eq!(connection, 0);
        assert_eq!(unsubscribe, r#"{"op":"unsubscribe","topics":["t.2"]}"#);
        let topic = subscribe.strip_suffix("\"]}").and_then(|text| text.chars().last());
        topic.and_then(|digit| digit.to_digit(10)).expect("a topic") as u16
    }

    #[test]
    fn a_subscriber_is_asked_again_when_it_has_been_answered() {
        let (mut changes, ledger, _) = changes();
        assert!(changes.ask(999_999, &ledger, |_| true).is_none(), "not yet");
        assert!(changes.ask(1_000_000, &ledger, |_| false).is_none(), "nobody is there");
        changes.blocked = false;
        let stream = ask(&mut changes, &ledger);
        assert!(changes.ask(3_000_000, &ledger, |_| true).is_none());
        assert_eq!(changes.due_ns(), NEVER);
        assert!(!changes.is_complete(0, |_| 0));
        assert!(answer(&mut changes, &ledger, "unsubscribed", 2));
        assert!(answer(&mut changes, &ledger, "subscribed", stream));
        assert!(!answer(&mut changes, &ledger, "subscribed", stream), "nothing was asked");
        let figures = &changes.figures;
        assert_eq!(
            (figures.asked, figures.answered, figures.refused, figures.astray),
            (1, 1, 0, 0)
        );
        assert!((2_990_000..3_010_000).contains(&figures.latency.max()), "from its time on");
        assert!(changes.is_complete(0, |_| 0) && changes.due_ns() == 2_000_000);
    }

    #[test]
    fn between_the_answers_everything_must_come_and_nothing_after() {
        let (mut changes, mut ledger, shared) = changes();
        assert_eq!(changes.observe(&mut ledger, 0, 2, 0), Verdict::Advanced);
        let stream = ask(&mut changes, &ledger);
        // Still subscribed, as far as is known; of the other one nothing may come yet.
        assert_eq!(changes.observe(&mut ledger, 0, 2, 1), Verdict::Advanced);
        assert_eq!(changes.observe(&mut ledger, 0, stream, 6), Verdict::Faulty);
        assert!(answer(&mut changes, &ledger, "unsubscribed", 2));
        assert_eq!(changes.observe(&mut ledger, 0, 2, 2), Verdict::Faulty);
        shared.set_published(stream, 8);
        assert!(answer(&mut changes, &ledger, "subscribed", stream));
        assert_eq!(ledger.faults, Faults { foreign: 2, ..Faults::default() });
        // 7 was on its way; 8 and 9 are missing, of which one comes too late, and 11 at the end.
        for number in [7, 10, 10, 9] {
            changes.observe(&mut ledger, 0, stream, number);
        }
        changes.settle(&mut ledger, 0, |of| if of == stream { 12 } else { 0 });
        let faults =
            Faults { foreign: 2, lost: 3, duplicated: 1, reordered: 1, ..Faults::default() };
        assert_eq!(ledger.faults, faults);
    }

    #[test]
    fn what_never_comes_after_a_change_is_lost() {
        let (mut changes, mut ledger, shared) = changes();
        let stream = ask(&mut changes, &ledger);
        shared.set_published(stream, 3);
        answer(&mut changes, &ledger, "unsubscribed", 2);
        answer(&mut changes, &ledger, "subscribed", stream);
        assert!(!changes.is_complete(0, |_| 5));
        changes.settle(&mut ledger, 0, |_| 5);
        assert_eq!(ledger.faults.lost, 2, "those published when it had been answered");
    }

    #[test]
    fn refusals_and_answers_about_something_else_are_counted() {
        let (mut changes, ledger, _) = changes();
        let stream = ask(&mut changes, &ledger);
        assert!(answer(&mut changes, &ledger, "unsubscribed", 3));
        let refusal = format!(
            "{{\"op\":\"subscribed\",\"topics\":[{{\"topic\":\"t.{stream}\",\"error\":\"limit\"}}]}}"
        );
        assert!(!changes.word(&ledger, 0, refusal.as_bytes(), 4_000_000), "to be told as an error");
        assert_eq!((changes.figures.refused, changes.figures.astray), (1, 1));
    }
}
