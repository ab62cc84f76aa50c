//! What was asked of shards and not yet answered.
//!
//! Knows: tickets, who waits for which, and how many may. Must not know: HTTP, or how mail travels.

use std::collections::HashMap;

use tokio::sync::oneshot;
use uringcast_protocol::command::ErrorCode;

use crate::mail::{Answer, Refusal};

/// A publication's place in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    /// Its `pub_seq` was seen before; this is where the topic stands.
    pub(super) duplicate: bool,
    /// The publisher is to send a snapshot.
    pub(super) snapshot_wanted: bool,
}

/// One shard's answer.
#[derive(Debug)]
pub(super) struct FromShard {
    pub(super) shard: usize,
    pub(super) answer: Answer,
}

/// The outstanding requests. Whoever asked may have given up; such requests are swept out.
#[derive(Debug, Default)]
pub(super) struct Asks {
    /// Never given twice: at a million a second, for half a million years.
    next_ticket: u64,
    waiting: HashMap<u64, Waiting>,
}

#[derive(Debug)]
enum Waiting {
    Gather { missing: usize, answers: Vec<FromShard>, reply: oneshot::Sender<Vec<FromShard>> },
    Publish { reply: oneshot::Sender<Result<Published, ErrorCode>> },
}

impl Asks {
    /// Waits for the home shard's verdict. `None`: too much is outstanding, and dropping the sender
    /// tells whoever asked.
    pub(super) fn publish(
        &mut self,
        reply: oneshot::Sender<Result<Published, ErrorCode>>,
    ) -> Option<u64> {
        self.has_room().then(|| self.insert(Waiting::Publish { reply }))
    }

    /// Waits for an answer of each of `shards`; `None` as above.
    pub(super) fn gather(
        &mut self,
        shards: usize,
        reply: oneshot::Sender<Vec<FromShard>>,
    ) -> Option<u64> {
        let answers = Vec::with_capacity(shards);
        self.has_room().then(|| self.insert(Waiting::Gather { missing: shards, answers, reply }))
    }

    /// A publication was ordered. False: nobody waits for it any more.
    pub(super) fn published(&mut self, ticket: u64, published: Published) -> bool {
        self.verdict(ticket, Ok(published))
    }

    /// A publication was refused, or ordered before. False: nobody waits for it any more.
    pub(super) fn refused(&mut self, ticket: u64, refusal: Refusal) -> bool {
        self.verdict(
            ticket,
            match refusal {
                Refusal::Code(code) => Err(code),
                Refusal::Duplicate { epoch, seq } => {
                    Ok(Published { epoch, seq, duplicate: true, snapshot_wanted: false })
                }
                Refusal::Uncovered { epoch, seq } => {
                    Ok(Published { epoch, seq, duplicate: false, snapshot_wanted: true })
                }
            },
        )
    }

    /// A shard answered. False: nobody waits for it any more.
    pub(super) fn answered(&mut self, ticket: u64, shard: usize, answer: Answer) -> bool {
        let Some(Waiting::Gather { missing, answers, .. }) = self.waiting.get_mut(&ticket) else {
            return false;
        };
        answers.push(FromShard { shard, answer });
        *missing -= 1;
        if *missing > 0 {
            return true;
        }
        match self.waiting.remove(&ticket) {
            Some(Waiting::Gather { answers, reply, .. }) => reply.send(answers).is_ok(),
            _ => false,
        }
    }

    /// Forgets the requests of those who gave up.
    pub(super) fn sweep(&mut self) {
        self.waiting.retain(|_, waiting| match waiting {
            Waiting::Gather { reply, .. } => !reply.is_closed(),
            Waiting::Publish { reply } => !reply.is_closed(),
        });
    }

    fn verdict(&mut self, ticket: u64, verdict: Result<Published, ErrorCode>) -> bool {
        match self.waiting.remove(&ticket) {
            Some(Waiting::Publish { reply }) => reply.send(verdict).is_ok(),
            Some(other) => {
                self.waiting.insert(ticket, other);
                false
            }
            None => false,
        }
    }

    fn has_room(&mut self) -> bool {
        if self.waiting.len() >= ASKS_MAX {
            self.sweep();
        }
        self.waiting.len() < ASKS_MAX
    }

    fn insert(&mut self, waiting: Waiting) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, waiting);
        ticket
    }
}

/// Requests outstanding at most, for all of the admin port.
pub(super) const ASKS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_has_one_verdict() {
        let mut asks = Asks::default();
        let (reply, mut verdict) = oneshot::channel();
        let ticket = asks.publish(reply).expect("room");
        assert!(!asks.answered(ticket, 0, Answer::Deleted(true)));
        let published = Published { epoch: 7, seq: 1, duplicate: false, snapshot_wanted: false };
        assert!(asks.published(ticket, published));
        assert!(!asks.published(ticket, published));
        let published = Published { epoch: 7, seq: 1, duplicate: false, snapshot_wanted: false };
        assert_eq!(verdict.try_recv(), Ok(Ok(published)));
    }

    #[test]
    fn a_repeat_is_no_error() {
        let mut asks = Asks::default();
        let (reply, mut verdict) = oneshot::channel();
        let ticket = asks.publish(reply).expect("room");
        assert!(asks.refused(ticket, Refusal::Duplicate { epoch: 7, seq: 3 }));
        let published = Published { epoch: 7, seq: 3, duplicate: true, snapshot_wanted: false };
        assert_eq!(verdict.try_recv(), Ok(Ok(published)));
    }

    #[test]
    fn a_question_waits_for_every_shard() {
        let mut asks = Asks::default();
        let (reply, mut answers) = oneshot::channel();
        let ticket = asks.gather(2, reply).expect("room");
        assert!(asks.answered(ticket, 1, Answer::Deleted(false)));
        assert!(answers.try_recv().is_err());
        assert!(asks.answered(ticket, 0, Answer::Deleted(true)));
        let shards: Vec<_> =
            answers.try_recv().expect("complete").iter().map(|from| from.shard).collect();
        assert_eq!(shards, [1, 0]);
        assert!(!asks.answered(ticket, 0, Answer::Deleted(true)));
    }

    #[test]
    fn there_is_a_bound_and_those_who_gave_up_do_not_count() {
        let mut asks = Asks::default();
        let mut waiting = Vec::new();
        for _ in 0..ASKS_MAX {
            let (reply, verdict) = oneshot::channel();
            asks.publish(reply).expect("room");
            waiting.push(verdict);
        }
        assert!(asks.gather(1, oneshot::channel().0).is_none());
        waiting.pop();
        assert!(asks.gather(1, oneshot::channel().0).is_some());
    }
}
