//! Publishing by requests of HTTP: the same schedule, with a bound on what is unanswered.
//!
//! Knows: how many requests of one connection wait for their answers. Must not know: sockets, HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use uringcast_protocol::Opcode;

use crate::flags::PublisherFlags;
use crate::payload::Payload;
use crate::plan::Group;
use crate::shared::Shared;
use crate::source::{NEVER, Pace, Source, StampedSource, Tally};

/// One connection's requests.
pub(crate) struct PostSource {
    inner: StampedSource,
    /// So many may be without an answer; one: the next waits for the answer.
    pipeline: u64,
    unanswered: u64,
}

/// What a publisher of the group sends, with its number and payloads of so many bytes.
pub(crate) fn publisher(
    pace: Pace,
    number: u16,
    shared: Arc<Shared>,
    (bytes, opcode): (usize, Opcode),
    group: &Group,
    flags: &PublisherFlags,
) -> Box<dyn Source> {
    let template = flags.template.as_ref();
    if !group.scheme.is_http() {
        let payload = Payload::message(bytes, template, opcode);
        return Box::new(StampedSource::new(pace, number, shared, payload));
    }
    let payload = Payload::post(bytes, template, opcode, group, u32::from(number));
    let inner = StampedSource::new(pace, number, shared, payload);
    Box::new(PostSource::new(inner, flags.pipeline))
}

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub(crate) struct Posts {
    /// Answers by status code.
    pub(crate) by_status: BTreeMap<u16, u64>,
    /// Requests without an answer when their connection ended, or the run did.
    pub(crate) unanswered: u64,
    /// Connections that the server ended and that were opened anew.
    pub(crate) reopened: u64,
}

impl PostSource {
    pub(crate) fn new(inner: StampedSource, pipeline: u16) -> Self {
        Self { inner, pipeline: u64::from(pipeline.max(1)), unanswered: 0 }
    }
}

impl Source for PostSource {
    fn due_ns(&mut self, now_ns: u64) -> u64 {
        // An answer asks again.
        if self.unanswered >= self.pipeline { NEVER } else { self.inner.due_ns(now_ns) }
    }

    fn fill(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        let most = self.pipeline.saturating_sub(self.unanswered);
        self.unanswered += self.inner.fill_up_to(now_ns, out, most);
    }

    fn is_done(&self, now_ns: u64) -> bool {
        self.inner.is_done(now_ns)
    }

    fn tally(&self, now_ns: u64) -> Tally {
        self.inner.tally(now_ns)
    }

    fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    fn abandon(&mut self) -> u64 {
        std::mem::take(&mut self.unanswered)
    }
}

impl Posts {
    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (status, count) in &other.by_status {
            *self.by_status.entry(*status).or_default() += count;
        }
        self.unanswered += other.unanswered;
        self.reopened += other.reopened;
    }

    /// What was wrong, in sentences.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let refused = self.by_status.iter().filter(|(status, _)| !(200..300).contains(*status));
        let mut wrong: Vec<_> = refused
            .map(|(status, count)| {
                format!("{count} requests to publish were answered with {status}")
            })
            .collect();
        if self.unanswered > 0 {
            wrong.push(format!("{} requests to publish were not answered", self.unanswered));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uringcast_protocol::Opcode;

    use super::*;
    use crate::burst::Burst;
    use crate::payload::Payload;
    use crate::plan::Schedule;
    use crate::rate::Rate;
    use crate::shared::Shared;
    use crate::source::Pace;

    #[test]
    fn no_more_are_sent_than_may_be_unanswered_and_they_keep_their_times() {
        let schedule = Schedule {
            rate: Rate::constant(1000.0),
            burst: Burst::NONE,
            count: None,
            publishers: 1,
            publisher: 0,
        };
        let shared = Arc::new(Shared::new(1, 1).expect("an eventfd"));
        let payload = Payload::message(128, None, Opcode::Text);
        let inner = StampedSource::new(Pace::Open(schedule), 0, Arc::clone(&shared), payload);
        let mut source = PostSource::new(inner, 2);
        shared.set_window(1_000_000, 11_000_000);
        assert_eq!(source.due_ns(0), 1_000_000);
        source.fill(5_500_000, &mut Vec::new());
        assert_eq!((shared.published(0), source.due_ns(6_000_000)), (2, NEVER));
        source.answered();
        assert_eq!(source.due_ns(6_000_000), 3_000_000);
        source.fill(6_000_000, &mut Vec::new());
        assert_eq!((shared.published(0), source.due_ns(6_000_000)), (3, NEVER));
        assert_eq!((source.abandon(), source.abandon()), (2, 0));
        assert_eq!(source.due_ns(6_000_000), 4_000_000);
        assert!(!source.is_done(99_000_000));
        assert_eq!(source.tally(99_000_000).unsent, 7);
    }

    #[test]
    fn what_is_not_accepted_is_wrong() {
        let mut posts = Posts::default();
        assert!(posts.wrong().is_empty());
        let other = Posts {
            by_status: BTreeMap::from([(200, 5), (202, 1), (413, 2)]),
            unanswered: 3,
            reopened: 1,
        };
        posts.merge(&other);
        posts.merge(&other);
        assert_eq!(posts.by_status.values().sum::<u64>(), 16);
        assert_eq!(
            posts.wrong(),
            [
                "4 requests to publish were answered with 413",
                "6 requests to publish were not answered",
            ]
        );
    }
}
