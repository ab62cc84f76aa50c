//! Model publishers on the publish port.
//!
//! Knows: what they send and which answers they wait for. Must not know: who is subscribed.

use std::collections::BTreeSet;

use serde::Deserialize;
use uringcast_protocol::Opcode;

use crate::{
    net::Net,
    oracle::{Content, Kind, Truth},
    subscriber::data_of,
    wire::{Heard, Wire},
};

/// A publisher.
#[derive(Debug)]
pub(crate) struct Publisher {
    me: usize,
    /// `None`: each line names its own.
    topic: Option<usize>,
    ack: bool,
    /// Its publications, in the order sent.
    sent: Vec<usize>,
    /// Numbers that answers gave: (topic, seq).
    acked: BTreeSet<(usize, u64)>,
    errors: usize,
    duplicates: usize,
    /// What it published to delta topics, snapshots and repeats among it, and the answers to that.
    deltas: usize,
    delta_answers: usize,
}

#[derive(Deserialize)]
struct Answer {
    op: String,
    topic: Option<String>,
    seq: Option<u64>,
    duplicate: Option<bool>,
    code: Option<String>,
}

impl Publisher {
    pub(crate) fn new(
        wire: &mut Wire,
        truth: &Truth,
        me: usize,
        topic: Option<usize>,
        ack: bool,
    ) -> Self {
        let name = topic.map_or_else(String::new, |topic| format!("/{}", truth.names[topic]));
        wire.ask(&format!("/publish{name}?ack={}", u8::from(ack)), &[]);
        Self {
            me,
            topic,
            ack,
            sent: Vec::new(),
            acked: BTreeSet::new(),
            errors: 0,
            duplicates: 0,
            deltas: 0,
            delta_answers: 0,
        }
    }

    /// Publishes one message, of one or more publications. `pub_seq` counts up for the process.
    pub(crate) fn publish(
        &mut self,
        net: &mut Net,
        wire: &mut Wire,
        truth: &mut Truth,
        pad_max: usize,
    ) {
        if let Some(topic) = self.topic {
            let content = *net.dice.pick(&[Content::Json, Content::Text, Content::Binary]);
            let pad = net.dice.scale(1, pad_max);
            let id = truth.publish(topic, content, pad, self.me);
            let opcode = if content == Content::Binary { Opcode::Binary } else { Opcode::Text };
            let payload = truth.published[id].payload.clone();
            if wire.say(net, opcode, &payload) {
                self.sent.push(id);
            }
            return;
        }
        let mut message = String::new();
        let (mut ids, mut deltas) = (Vec::new(), 0);
        for _ in 0..net.dice.between(1, 4) {
            let topic = net.dice.below(truth.names.len());
            if truth.kind(topic) == Kind::Delta {
                deltas += 1;
                self.delta(net, truth, topic, pad_max, &mut message);
                continue;
            }
            let content = *net.dice.pick(&[Content::Json, Content::Binary]);
            let pad = net.dice.scale(1, pad_max / 8 + 1);
            let id = truth.publish(topic, content, pad, self.me);
            ids.push(id);
            let data = data_of(content, &truth.published[id].payload);
            let name = &truth.names[topic];
            let mut pub_seq = String::new();
            if self.ack && net.dice.chance(300) {
                // Sometimes a number that was there before.
                let number = if net.dice.chance(300) { id.saturating_sub(20) } else { id };
                pub_seq = format!(",\"pub_seq\":{number}");
            }
            message.push_str(&format!("{{\"topic\":\"{name}\",{data}{pub_seq}}}\n"));
        }
        if wire.say(net, Opcode::Text, message.as_bytes()) {
            self.sent.extend(ids);
            self.deltas += deltas;
        }
    }

    /// A line for a delta topic: a delta, or a snapshot of what was published, or was once.
    fn delta(
        &self,
        net: &mut Net,
        truth: &mut Truth,
        topic: usize,
        pad_max: usize,
        message: &mut String,
    ) {
        let name = truth.names[topic].clone();
        if truth.has_snapshots[topic] && net.dice.chance(200) {
            let covers = some_covered(net, truth, topic);
            let id = truth.snapshot(topic, covers, net.dice.scale(1, pad_max), self.me);
            let data = data_of(Content::Json, &truth.published[id].payload);
            message.push_str(&format!(
                "{{\"topic\":\"{name}\",\"snapshot\":true,{data},\"pub_seq\":{covers}}}\n"
            ));
        } else {
            let content = *net.dice.pick(&[Content::Json, Content::Binary]);
            let id = truth.publish(topic, content, net.dice.scale(1, pad_max / 8 + 1), self.me);
            let data = data_of(content, &truth.published[id].payload);
            message.push_str(&format!("{{\"topic\":\"{name}\",{data},\"pub_seq\":{id}}}\n"));
        }
    }

    pub(crate) fn hear(&mut self, heard: Heard, truth: &Truth) {
        let Heard::Text(text) = heard else { return };
        let answer: Answer = serde_json::from_slice(&text).expect("the protocol's JSON");
        match answer.op.as_str() {
            "published" => {
                assert!(self.ack, "an acknowledgement nobody asked for");
                let topic = truth.topic(answer.topic.as_deref().expect("a topic"));
                if truth.kind(topic) == Kind::Delta {
                    self.delta_answers += 1;
                    return;
                }
                if answer.duplicate == Some(true) {
                    self.duplicates += 1;
                    return;
                }
                let seq = truth.number(topic, answer.seq.expect("a number"));
                let new = self.acked.insert((topic, seq));
                assert!(new, "a number acknowledged twice");
            }
            "error" => {
                let code = answer.code.as_deref().expect("errors have codes");
                assert!(matches!(code, "busy" | "limit"), "{code} for a good publication");
                self.errors += 1;
            }
            other => panic!("{other} to a publisher"),
        }
    }

    /// Every answer it may wait for is there.
    pub(crate) fn is_answered(&self) -> bool {
        let answers = self.acked.len() + self.errors + self.duplicates + self.delta_answers;
        !self.ack || answers == self.sent.len() + self.deltas
    }

    /// The answers fit what became of the publications.
    pub(crate) fn check(&self, truth: &Truth, whole: bool) {
        for &(topic, seq) in &self.acked {
            let id = truth.order[topic].get(&seq);
            let id = *id.unwrap_or_else(|| panic!("{seq} was acknowledged and never sent"));
            assert_eq!(truth.published[id].by, self.me, "another's publication acknowledged");
        }
        if whole && self.deltas == 0 {
            let there = self.sent.iter().filter(|&&id| truth.published[id].seq.is_some()).count();
            let gone = self.sent.len() - there;
            assert_eq!(
                gone,
                self.errors + self.duplicates,
                "publisher {}: {gone} of {} went nowhere, {} errors, {} duplicates",
                self.me,
                self.sent.len(),
                self.errors,
                self.duplicates
            );
            if self.ack {
                assert_eq!(self.acked.len(), there, "acknowledgements of what was published");
            }
        }
    }
}

/// The publication up to which a snapshot of a delta topic stands: mostly one of the last.
pub(crate) fn some_covered(net: &mut Net, truth: &Truth, topic: usize) -> usize {
    let era = truth.deleted[topic] << 32;
    let known: Vec<usize> = truth.order[topic].range(era..).map(|(_, &id)| id).collect();
    let back = net.dice.scale(1, 20) - 1;
    match known.len().checked_sub(back + 1) {
        Some(at) => known[at],
        // One of another topic perhaps, or none that was ever published.
        None => net.dice.below(truth.published.len().max(1)),
    }
}
