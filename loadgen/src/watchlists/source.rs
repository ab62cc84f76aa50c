//! Publications to many topics in turn, over few connections.
//!
//! Knows: the round of topics, lines of JSON. Must not know: sockets, who watches what.

use std::sync::Arc;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng as _;
use uringcast_protocol::Opcode;
use uringcast_protocol::writer::write_message;

use crate::rate::{Rate, first_not};
use crate::shared::Shared;
use crate::source::{NEVER, SEND_BYTES_MAX, Source, Tally, masks};
use crate::stamp::{DIGITS_OFFSET, Stamp, template};

/// Topics are published to one after another, evenly spaced, again and again; each publisher has every
/// so many-th topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) topics: u64,
    pub(crate) publishers: u64,
    pub(crate) publisher: u64,
    /// Of all publishers together.
    pub(crate) rate_per_s: f64,
}

impl Round {
    /// The topic of this publisher's publication `place`, and its number within the topic.
    fn at(&self, place: u64) -> (u64, u64) {
        let own = (self.topics - self.publisher).div_ceil(self.publishers);
        (place % own * self.publishers + self.publisher, place / own)
    }

    /// When it is due, ns after the start.
    fn offset_ns(&self, place: u64) -> u64 {
        let (topic, number) = self.at(place);
        Rate::constant(self.rate_per_s).offset_ns(number * self.topics + topic)
    }
}

/// One connection's publications.
pub(crate) struct WatchedSource {
    round: Round,
    shared: Arc<Shared>,
    topics: Arc<[String]>,
    payload: Vec<u8>,
    masks: Pcg32,
    /// Publications so far.
    next: u64,
    line: Vec<u8>,
    tally: Tally,
}

impl WatchedSource {
    pub(crate) fn new(
        round: Round,
        topics: Arc<[String]>,
        shared: Arc<Shared>,
        payload_bytes: usize,
    ) -> Self {
        Self {
            round,
            shared,
            topics,
            payload: template(payload_bytes),
            masks: masks(round.publisher),
            next: 0,
            line: Vec::with_capacity(payload_bytes + 64),
            tally: Tally::default(),
        }
    }

    fn intended_ns(&self) -> u64 {
        self.shared.start_ns().saturating_add(self.round.offset_ns(self.next))
    }
}

impl Source for WatchedSource {
    fn due_ns(&mut self, _now_ns: u64) -> u64 {
        let intended_ns = self.intended_ns();
        if intended_ns < self.shared.end_ns() { intended_ns } else { NEVER }
    }

    fn fill(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        while out.len() < SEND_BYTES_MAX {
            let intended_ns = self.due_ns(now_ns);
            if intended_ns > now_ns {
                break;
            }
            let (topic, number) = self.round.at(self.next);
            let stream = topic as u16;
            let stamp = Stamp { stream, number, intended_ns, sent_ns: now_ns };
            stamp.write(&mut self.payload[DIGITS_OFFSET..]);
            self.line.clear();
            // Names of topics need no escapes.
            let name = self.topics[usize::from(stream)].as_bytes();
            for part in [b"{\"topic\":\"", name, b"\",\"data\":", &self.payload, b"}"] {
                self.line.extend_from_slice(part);
            }
            let mask = self.masks.next_u32().to_ne_bytes();
            write_message(out, Opcode::Text, &self.line, Some(mask));
            self.tally.note(intended_ns, now_ns);
            self.next += 1;
            self.shared.set_published(stream, number + 1);
        }
    }

    fn is_done(&self, _now_ns: u64) -> bool {
        self.shared.start_ns() != NEVER && self.intended_ns() >= self.shared.end_ns()
    }

    fn tally(&self, now_ns: u64) -> Tally {
        let due_by = now_ns.min(self.shared.end_ns());
        let start_ns = self.shared.start_ns();
        let is_due = |place| start_ns.saturating_add(self.round.offset_ns(place)) < due_by;
        Tally { unsent: first_not(self.next, is_due) - self.next, ..self.tally.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_its_turn_whoever_publishes_it() {
        let round = |publisher| Round { topics: 7, publishers: 3, publisher, rate_per_s: 700.0 };
        let mut all = Vec::new();
        for publisher in 0..3 {
            let own = if publisher == 0 { 3 } else { 2 };
            for place in 0..own * 4 {
                let (topic, number) = round(publisher).at(place);
                all.push((round(publisher).offset_ns(place) / 1000, number, topic));
            }
        }
        all.sort_unstable();
        let places: Vec<_> = all.iter().map(|&(_, number, topic)| number * 7 + topic).collect();
        assert_eq!(places, (0..28).collect::<Vec<_>>());
        assert_eq!((all[0].0, all[7].0, all[14].0), (0, 10_000, 20_000));
    }

    #[test]
    fn lines_are_json_and_what_is_due_and_unsent_is_told() {
        let shared = Arc::new(Shared::new(1, 3).expect("an eventfd"));
        let topics: Arc<[String]> = Arc::from(["a", "b", "c"].map(str::to_owned));
        let round = Round { topics: 3, publishers: 1, publisher: 0, rate_per_s: 1000.0 };
        let mut source = WatchedSource::new(round, topics, Arc::clone(&shared), 128);
        assert_eq!(source.due_ns(5), NEVER);
        shared.set_window(1_000_000, 6_000_000);
        assert_eq!((source.due_ns(5), source.tally(3_500_000).unsent), (1_000_000, 3));
        let mut out = Vec::new();
        source.fill(4_500_000, &mut out);
        assert_eq!([0, 1, 2].map(|stream| shared.published(stream)), [2, 1, 1]);
        let line: serde_json::Value = serde_json::from_slice(&source.line).expect("JSON");
        assert_eq!((line["topic"].as_str(), line["data"].to_string().len()), (Some("a"), 128));
        assert_eq!(source.tally(99_000_000).unsent, 1);
        source.fill(99_000_000, &mut out);
        assert!(source.is_done(99_000_000) && source.due_ns(99_000_000) == NEVER);
    }
}
