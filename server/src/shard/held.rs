//! Topics whose last publication is out at the helper, and what waits behind it, in order.
//!
//! Knows: which publication of which topic is out, since when, and how much waits. Must not know:
//! how anything is compressed, ordered or published.

use std::collections::{HashMap, VecDeque};

use crate::{
    ids::TopicId,
    mail::{Ingest, Origin},
    publication::Publication,
};

/// What waits until a topic's publication is back.
#[derive(Debug)]
pub(super) enum Waiting {
    /// To be deleted.
    Delete {
        /// The topic's name.
        topic: Box<str>,
        /// The control thread's number of the request.
        ticket: u64,
    },
    /// To be ordered.
    Ingest(Ingest),
}

impl Waiting {
    fn bytes(&self) -> usize {
        match self {
            Self::Delete { topic, .. } => topic.len(),
            Self::Ingest(ingest) => ingest.lease.len(),
        }
    }
}

/// A publication that is out.
#[derive(Debug)]
pub(super) struct Job {
    number: u64,
    /// Ordered, and not yet published.
    pub(super) publication: Publication,
    /// Whose it is.
    pub(super) origin: Origin,
    /// What came for the topic since.
    pub(super) queue: VecDeque<Waiting>,
}

/// When a job began; it may be over already.
#[derive(Debug)]
struct Start {
    topic: TopicId,
    number: u64,
    at_ns: u64,
}

/// All that is out or waits.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// At most one per topic.
    jobs: HashMap<TopicId, Job>,
    starts: VecDeque<Start>,
    /// Of the last job.
    number: u64,
    out_bytes: usize,
    waiting: usize,
    waiting_bytes: usize,
}

impl Held {
    /// Whether a publication of this topic is out. Of a topic that another took the number of it
    /// can't be: topics are deleted in order, too.
    pub(super) fn has(&self, topic: TopicId) -> bool {
        !self.jobs.is_empty() && self.jobs.contains_key(&topic)
    }

    /// Publications out and what waits behind them.
    pub(super) fn count(&self) -> usize {
        self.jobs.len() + self.waiting
    }

    /// The number of the job begun last.
    pub(super) fn last_number(&self) -> u64 {
        self.number
    }

    /// Whether one more of so many bytes may go out, where `bytes_max` may be out. A single one
    /// always may.
    pub(super) fn has_room(&self, bytes: usize, bytes_max: usize) -> bool {
        self.jobs.is_empty() || self.out_bytes + bytes <= bytes_max
    }

    /// Whether publishers are to be slowed.
    pub(super) fn is_slow(&self) -> bool {
        self.waiting >= WAITING_SLOW || self.waiting_bytes >= WAITING_BYTES_SLOW
    }

    /// Whether no more publications may wait.
    pub(super) fn is_full(&self) -> bool {
        self.waiting >= WAITING_MAX || self.waiting_bytes >= WAITING_BYTES_MAX
    }

    /// A publication goes out, with the number after [`Self::last_number`].
    pub(super) fn begin(
        &mut self,
        topic: TopicId,
        publication: Publication,
        origin: Origin,
        now_ns: u64,
    ) {
        self.number += 1;
        let number = self.number;
        self.out_bytes += publication.block_bytes();
        self.starts.push_back(Start { topic, number, at_ns: now_ns });
        let job = Job { number, publication, origin, queue: VecDeque::new() };
        let before = self.jobs.insert(topic, job);
        debug_assert!(before.is_none(), "what comes after one that is out waits");
    }

    /// Something waits behind what is out of this topic. It must be out.
    pub(super) fn wait(&mut self, topic: TopicId, waiting: Waiting) {
        let Some(job) = self.jobs.get_mut(&topic) else {
            debug_assert!(false, "it only waits for what is out");
            return;
        };
        self.waiting += 1;
        self.waiting_bytes += waiting.bytes();
        job.queue.push_back(waiting);
    }

    /// The first of a queue waits no more.
    pub(super) fn next(&mut self, queue: &mut VecDeque<Waiting>) -> Option<Waiting> {
        let waiting = queue.pop_front()?;
        self.waiting -= 1;
        self.waiting_bytes -= waiting.bytes();
        Some(waiting)
    }

    /// The rest of a queue waits for the job begun last, behind which nothing waits yet.
    pub(super) fn hand_down(&mut self, queue: VecDeque<Waiting>) {
        let last = self.starts.back().and_then(|start| self.jobs.get_mut(&start.topic));
        debug_assert!(last.is_some(), "just begun");
        if let Some(job) = last {
            debug_assert!(job.queue.is_empty(), "just begun");
            job.queue = queue;
        }
    }

    /// The job of this number is answered; `None` if it was given up before.
    pub(super) fn end(&mut self, topic: TopicId, number: u64) -> Option<Job> {
        if self.jobs.get(&topic)?.number != number {
            return None;
        }
        let job = self.jobs.remove(&topic)?;
        self.out_bytes -= job.publication.block_bytes();
        while let Some(start) = self.starts.front()
            && !self.is_out(start)
        {
            self.starts.pop_front();
        }
        Some(job)
    }

    /// Gives up the oldest job if it began at `since_ns` or before.
    pub(super) fn give_up(&mut self, since_ns: u64) -> Option<(TopicId, Job)> {
        let &Start { topic, number, at_ns } = self.starts.front()?;
        if at_ns > since_ns {
            return None;
        }
        // The first of the starts is of a job that is out.
        Some((topic, self.end(topic, number)?))
    }

    /// When the oldest job began, ns.
    pub(super) fn oldest_ns(&self) -> Option<u64> {
        self.starts.front().map(|start| start.at_ns)
    }

    /// When the oldest publication that is out was ordered, µs UTC.
    pub(super) fn oldest_us(&self) -> Option<u64> {
        let start = self.starts.front()?;
        Some(self.jobs.get(&start.topic)?.publication.ts_us())
    }

    fn is_out(&self, start: &Start) -> bool {
        self.jobs.get(&start.topic).is_some_and(|job| job.number == start.number)
    }
}

/// With so many publications waiting publishers are slowed …
const WAITING_SLOW: usize = 1 << 10;
/// … or so many bytes of them.
const WAITING_BYTES_SLOW: usize = 8 << 20;
/// More may not wait: what is on its way when publishers are slowed must have room.
const WAITING_MAX: usize = 1 << 14;
const WAITING_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use uringcast_protocol::opcode::Opcode;
    use uringcast_ring::pool::Pool;

    use super::*;
    use crate::{
        ids::NodeId,
        mail::Publisher,
        publication::{self, Order, PayloadContent},
    };

    const ORIGIN: Origin = Origin { node: NodeId(0), publisher: Publisher::Request { ticket: 0 } };

    fn publication(bytes: usize) -> Publication {
        let pool = &mut Pool::unregistered();
        let payload = vec![b'1'; bytes];
        let lease = publication::draft(pool, "t", 1, PayloadContent::Json, Opcode::Text, &payload)
            .expect("room");
        let order = Order { epoch: 1, seq: 1, ts_us: 0, pub_seq: None, snapshot: false };
        publication::order(pool, lease, order, &mut Vec::new()).expect("room")
    }

    fn delete(ticket: u64) -> Waiting {
        Waiting::Delete { topic: "t".into(), ticket }
    }

    #[test]
    fn what_is_given_up_is_not_answered_later_and_the_next_is_another() {
        let (mut held, topic) = (Held::default(), TopicId(3));
        held.begin(topic, publication(10), ORIGIN, 100);
        held.wait(topic, delete(1));
        assert_eq!((held.count(), held.oldest_ns()), (2, Some(100)));
        assert!(held.give_up(99).is_none());
        let (given_up, mut job) = held.give_up(100).expect("due");
        assert_eq!((given_up, held.has(topic)), (topic, false));
        assert!(held.next(&mut job.queue).is_some());
        held.begin(topic, publication(10), ORIGIN, 200);
        assert!(held.end(topic, 1).is_none(), "late");
        assert!(held.end(topic, 2).is_some());
        assert!(held.end(topic, 2).is_none(), "twice");
        assert_eq!((held.count(), held.oldest_ns(), held.out_bytes), (0, None, 0));
    }

    #[test]
    fn the_oldest_is_known_whatever_comes_back_first() {
        let mut held = Held::default();
        for topic in 0..4 {
            held.begin(TopicId(topic), publication(10), ORIGIN, u64::from(topic));
        }
        assert!(held.end(TopicId(1), 2).is_some());
        assert_eq!(held.oldest_ns(), Some(0));
        assert!(held.end(TopicId(0), 1).is_some());
        assert_eq!(held.oldest_ns(), Some(2));
    }

    #[test]
    fn one_is_always_let_out_and_more_within_the_bound() {
        let mut held = Held::default();
        assert!(held.has_room(1 << 30, 1_000));
        held.begin(TopicId(0), publication(10), ORIGIN, 0);
        let out = held.out_bytes;
        assert!(held.has_room(1_000, out + 1_000));
        assert!(!held.has_room(1_001, out + 1_000));
    }

    #[test]
    fn a_queue_is_handed_down_whole() {
        let (mut held, topic) = (Held::default(), TopicId(0));
        held.begin(topic, publication(10), ORIGIN, 0);
        (0..3).for_each(|ticket| held.wait(topic, delete(ticket)));
        let mut job = held.end(topic, 1).expect("out");
        assert!(held.next(&mut job.queue).is_some());
        held.begin(TopicId(7), publication(10), ORIGIN, 0);
        held.hand_down(job.queue);
        assert_eq!(held.count(), 3);
        let job = held.end(TopicId(7), 2).expect("out");
        assert!(matches!(job.queue[0], Waiting::Delete { ticket: 1, .. }));
    }
}
