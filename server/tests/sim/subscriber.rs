//! Model subscribers: what they ask for, and what they make of what they hear.
//!
//! Knows: the JSON protocol and the raw endpoint as a client sees them. Must not know: how shards
//! work, or when anything happens.

use std::{collections::VecDeque, fmt::Write as _};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use uringcast_protocol::{Opcode, Pattern};

use crate::{
    net::Net,
    oracle::{Begin, Content, Entry, Kind, Seqs, Told, Truth},
    wire::{Heard, Wire},
};

/// What a subscriber is.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) raw: bool,
    pub(crate) log: Vec<Entry>,
    pub(crate) patterns: Vec<String>,
    asked: VecDeque<Asked>,
    asked_last: u64,
    /// Publish commands without an answer: their ids and publications.
    publishing: Vec<(u64, usize)>,
    /// Answered publish commands: publication and number; `None` if refused.
    pub(crate) answers: Vec<(usize, Option<u64>)>,
}

#[derive(Debug)]
struct Asked {
    /// `None` for what the path asked.
    id: Option<u64>,
    what: What,
    seqs: Seqs,
    wish: Wish,
}

/// Where it wants to begin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) snapshot: bool,
    pub(crate) resume: Vec<Resume>,
    pub(crate) from_us: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Resume {
    pub(crate) topic: usize,
    pub(crate) name: String,
    pub(crate) epoch: String,
    pub(crate) seq: u64,
    /// The same as a number that rises from epoch to epoch.
    pub(crate) number: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Hello,
    List,
    Ping,
    Subscribe,
    Unsubscribe,
    Update,
    Wrong,
}

#[derive(Deserialize)]
struct Message<'m> {
    op: Option<String>,
    id: Option<u64>,
    topic: Option<String>,
    seq: Option<u64>,
    ts: Option<u64>,
    from: Option<u64>,
    to: Option<u64>,
    snapshot: Option<bool>,
    #[serde(borrow)]
    data: Option<&'m RawValue>,
    data_base64: Option<String>,
    topics: Option<Vec<Outcome>>,
    code: Option<String>,
    duplicate: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    topic: String,
    epoch: Option<String>,
    recovered: Option<bool>,
    reason: Option<String>,
    seq: Option<u64>,
    error: Option<String>,
    kind: Option<String>,
}

impl Subscriber {
    /// Asks for `/raw/<pattern>`.
    pub(crate) fn raw(wire: &mut Wire, pattern: &str, seqs: Seqs) -> Self {
        wire.ask(&format!("/raw/{}", pattern.replace('>', "%3E")), &[]);
        let mut new = Self::new(true);
        new.patterns.push(pattern.to_owned());
        let wish = Wish::default();
        new.asked.push_back(Asked { id: None, what: What::Subscribe, seqs, wish });
        new
    }

    /// Asks for `/ws`, with these topics on connect.
    pub(crate) fn json(wire: &mut Wire, topics: &[&str], hello: bool, seqs: Seqs) -> Self {
        let mut path = String::from("/ws?x=1");
        let mut new = Self::new(false);
        if hello {
            path.push_str("&hello=1&heartbeat_ms=30000");
            let (seqs, wish) = (Seqs::new(), Wish::default());
            new.asked.push_back(Asked { id: None, what: What::Hello, seqs, wish });
        }
        if !topics.is_empty() {
            let _ = write!(path, "&topics={}", topics.join(",").replace('>', "%3E"));
            let wish = Wish::default();
            new.asked.push_back(Asked { id: None, what: What::Subscribe, seqs, wish });
        }
        wire.ask(&path, &[]);
        new
    }

    fn new(raw: bool) -> Self {
        Self {
            raw,
            log: Vec::new(),
            patterns: Vec::new(),
            asked: VecDeque::new(),
            asked_last: 0,
            publishing: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Everything it asked was answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.asked.is_empty() && self.publishing.is_empty()
    }

    pub(crate) fn subscribe(
        &mut self,
        net: &mut Net,
        wire: &mut Wire,
        topics: &[&str],
        snapshot: bool,
        seqs: Seqs,
    ) {
        let wish = Wish { snapshot, ..Wish::default() };
        self.subscribe_with(net, wire, topics, (wish, seqs));
    }

    pub(crate) fn subscribe_with(
        &mut self,
        net: &mut Net,
        wire: &mut Wire,
        topics: &[&str],
        (wish, seqs): (Wish, Seqs),
    ) {
        let list = serde_json::to_string(topics).expect("strings");
        let snapshot = wish.snapshot;
        let mut command = format!("\"op\":\"subscribe\",\"topics\":{list},\"snapshot\":{snapshot}");
        if let Some(us) = wish.from_us {
            let _ = write!(command, ",\"resume_from\":{{\"ts\":{us}}}");
        }
        let positions: serde_json::Map<_, _> = wish
            .resume
            .iter()
            .map(|Resume { name, epoch, seq, .. }| {
                (name.clone(), serde_json::json!({ "epoch": epoch, "seq": seq }))
            })
            .collect();
        if !positions.is_empty() {
            let positions = serde_json::Value::Object(positions);
            let _ = write!(command, ",\"resume\":{positions}");
        }
        self.ask_with(net, wire, &command, What::Subscribe, (wish, seqs));
    }

    pub(crate) fn unsubscribe(
        &mut self,
        net: &mut Net,
        wire: &mut Wire,
        topics: &[&str],
        seqs: Seqs,
    ) {
        let list = serde_json::to_string(topics).expect("strings");
        let command = format!("\"op\":\"unsubscribe\",\"topics\":{list}");
        self.ask(net, wire, &command, What::Unsubscribe, seqs);
    }

    pub(crate) fn list(&mut self, net: &mut Net, wire: &mut Wire) {
        self.ask(net, wire, "\"op\":\"list\"", What::List, Seqs::new());
    }

    pub(crate) fn chat(&mut self, net: &mut Net, wire: &mut Wire) {
        let (command, what) = match net.dice.below(5) {
            0 => return self.list(net, wire),
            4 => {
                let topics = self.patterns.iter().take(3).cloned().collect::<Vec<_>>();
                if topics.is_empty() {
                    return self.list(net, wire);
                }
                let list = serde_json::to_string(&topics).expect("strings");
                let command = format!("\"op\":\"update\",\"topics\":{list},\"sample_ms\":null");
                return self.ask(net, wire, &command, What::Update, Seqs::new());
            }
            1 => ("\"op\":\"ping\"", What::Ping),
            2 => ("\"op\":\"dance\"", What::Wrong),
            _ => ("\"op\":\"subscribe\",\"topics\":7", What::Wrong),
        };
        self.ask(net, wire, command, what, Seqs::new());
    }

    pub(crate) fn publish(
        &mut self,
        net: &mut Net,
        wire: &mut Wire,
        truth: &Truth,
        publication: usize,
    ) {
        let id = self.asked_last + 1;
        let published = &truth.published[publication];
        let data = data_of(published.content, &published.payload);
        let topic = &truth.names[published.topic];
        let mut command = format!("{{\"op\":\"publish\",\"id\":{id},\"topic\":\"{topic}\",{data}");
        if truth.kind(published.topic) == Kind::Delta {
            let _ = write!(command, ",\"pub_seq\":{publication}");
        }
        command.push('}');
        if wire.say(net, Opcode::Text, command.as_bytes()) {
            self.asked_last = id;
            self.publishing.push((id, publication));
        }
    }

    fn ask(&mut self, net: &mut Net, wire: &mut Wire, command: &str, what: What, seqs: Seqs) {
        self.ask_with(net, wire, command, what, (Wish::default(), seqs));
    }

    fn ask_with(
        &mut self,
        net: &mut Net,
        wire: &mut Wire,
        command: &str,
        what: What,
        (wish, seqs): (Wish, Seqs),
    ) {
        let id = self.asked_last + 1;
        let command = format!("{{\"id\":{id},{command}}}");
        if wire.say(net, Opcode::Text, command.as_bytes()) {
            self.asked_last = id;
            self.asked.push_back(Asked { id: Some(id), what, seqs, wish });
        }
    }

    /// Takes in what was heard; `now` are its shard's numbers.
    pub(crate) fn hear(&mut self, heard: Heard, truth: &mut Truth, now: &Seqs) {
        match heard {
            Heard::Switched if self.raw => {
                let asked = self.asked.pop_front().expect("asked by the path");
                let pattern = self.patterns[0].clone();
                let entry = Entry::Subscribed {
                    pattern,
                    asked: asked.seqs,
                    told: now.clone(),
                    exact: None,
                    begin: Begin::Now,
                };
                self.log.push(entry);
            }
            Heard::Text(text) if self.raw => {
                let content = if uringcast_protocol::json::is_json(&text) {
                    Content::Json
                } else {
                    Content::Text
                };
                self.payload(truth, content, &text);
            }
            Heard::Binary(bytes) => {
                assert!(self.raw, "a binary message on /ws");
                self.payload(truth, Content::Binary, &bytes);
            }
            Heard::Text(text) => self.message(&text, truth, now),
            Heard::Switched | Heard::Plain | Heard::Pong | Heard::Close | Heard::Over => {}
        }
    }

    fn payload(&mut self, truth: &mut Truth, content: Content, payload: &[u8]) {
        let id = truth.recognize(content, payload);
        truth.delivered += 1;
        self.log.push(Entry::Message { id, snapshot: false });
    }

    fn message(&mut self, text: &[u8], truth: &mut Truth, now: &Seqs) {
        let message: Message<'_> = serde_json::from_slice(text).unwrap_or_else(|error| {
            panic!("not the protocol's JSON ({error}): {}", String::from_utf8_lossy(text))
        });
        match message.op.as_deref() {
            None => self.live(&message, truth),
            Some("gap") => {
                let topic = truth.topic(message.topic.as_deref().expect("a topic"));
                let from = truth.number(topic, message.from.expect("a number"));
                let to = truth.number(topic, message.to.expect("a number"));
                self.log.push(Entry::Told { topic, told: Told::Gap { from, to } });
            }
            Some("error") if message.topic.is_some() => {
                assert_eq!(message.code.as_deref(), Some("snapshot_unavailable"));
                let topic = truth.topic(message.topic.as_deref().expect("a topic"));
                self.log.push(Entry::Told { topic, told: Told::Unavailable });
            }
            Some("subscribed" | "unsubscribed" | "list" | "pong" | "hello" | "updated") => {
                self.answered(&message, truth, now);
            }
            Some("published") => {
                let at = self.publishing.iter().position(|&(id, _)| Some(id) == message.id);
                let (_, publication) = self.publishing.remove(at.expect("asked"));
                let topic = truth.published[publication].topic;
                if message.duplicate == Some(true) {
                    let kind = truth.kind(topic);
                    assert_eq!(kind, Kind::Delta, "without pub_seq nothing is a duplicate");
                    return self.answers.push((publication, None));
                }
                let seq = truth.number(topic, message.seq.expect("a number"));
                self.answers.push((publication, Some(seq)));
            }
            Some("error") => {
                let at = self.publishing.iter().position(|&(id, _)| Some(id) == message.id);
                if let Some(at) = at {
                    let (_, publication) = self.publishing.remove(at);
                    return self.answers.push((publication, None));
                }
                let asked = self.asked.pop_front().expect("an error nobody asked for");
                assert_eq!(asked.id, message.id, "answers out of order");
                let code = message.code.as_deref().expect("errors have codes");
                let fits = match asked.what {
                    What::Wrong => matches!(code, "op_unknown" | "bad_request"),
                    What::Subscribe | What::Unsubscribe => matches!(code, "busy" | "limit"),
                    What::List => code == "busy",
                    What::Hello | What::Ping | What::Update => false,
                };
                assert!(fits, "{code} in answer to {:?}", asked.what);
            }
            Some("heartbeat" | "goaway") => {}
            Some(other) => panic!("unknown op {other}"),
        }
    }

    fn live(&mut self, message: &Message<'_>, truth: &mut Truth) {
        let topic = truth.topic(message.topic.as_deref().expect("a topic"));
        let seq = message.seq.expect("a number");
        let (content, payload) = match (message.data, &message.data_base64) {
            (Some(raw), None) if raw.get().starts_with('"') => {
                let text: String = serde_json::from_str(raw.get()).expect("a JSON string");
                (Content::Text, text.into_bytes())
            }
            (Some(raw), None) => (Content::Json, raw.get().as_bytes().to_vec()),
            (None, Some(encoded)) => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(encoded);
                (Content::Binary, bytes.expect("base64"))
            }
            _ => panic!("data and data_base64, or neither"),
        };
        let id = truth.recognize(content, &payload);
        let snapshot = message.snapshot == Some(true);
        if truth.published[id].snapshot {
            assert!(snapshot, "a publisher's snapshot came as a message");
            let seq = truth.number(topic, seq);
            return self.log.push(Entry::Snapshot { id, seq });
        }
        truth.ordered(topic, seq, message.ts.expect("a time"), id);
        truth.delivered += u64::from(!snapshot);
        self.log.push(Entry::Message { id, snapshot });
    }

    fn answered(&mut self, message: &Message<'_>, truth: &mut Truth, now: &Seqs) {
        let asked = self.asked.pop_front().expect("an answer nobody asked for");
        assert_eq!(asked.id, message.id, "answers out of order");
        let op = match asked.what {
            What::Hello => "hello",
            What::List => "list",
            What::Ping => "pong",
            What::Subscribe => "subscribed",
            What::Unsubscribe => "unsubscribed",
            What::Update => "updated",
            What::Wrong => "error",
        };
        assert_eq!(message.op.as_deref(), Some(op), "answers out of order");
        for outcome in message.topics.iter().flatten() {
            let pattern = outcome.topic.clone();
            if let Some(code) = &outcome.error {
                let known = self.patterns.contains(&pattern);
                match asked.what {
                    What::Subscribe => assert!(
                        matches!(code.as_str(), "limit" | "topic_invalid" | "snapshot_unavailable"),
                        "{code} for {pattern}"
                    ),
                    _ => assert!(!known, "{code} for {pattern}, which it has"),
                }
                continue;
            }
            match asked.what {
                What::Subscribe => {
                    let exact = Pattern::parse(&pattern).is_ok_and(|p| p.is_exact());
                    assert!(outcome.kind.is_some() || !exact, "the kind of {pattern}");
                    if !self.patterns.contains(&pattern) {
                        self.patterns.push(pattern.clone());
                    }
                    let known = truth.names.iter().position(|name| *name == pattern);
                    let topic = known.filter(|_| exact);
                    let exact = topic.map(|topic| truth.number(topic, outcome.seq.unwrap_or(0)));
                    if let (Some(topic), Some(epoch)) = (topic, &outcome.epoch) {
                        truth.epoch(topic, epoch);
                    }
                    let begin = begin(&asked.wish, topic, outcome);
                    let (asked, told) = (asked.seqs.clone(), now.clone());
                    self.log.push(Entry::Subscribed { pattern, asked, told, exact, begin });
                }
                What::Unsubscribe => {
                    let at = self.patterns.iter().position(|known| *known == pattern);
                    self.patterns.remove(at.expect("it had it"));
                    self.log.push(Entry::Unsubscribed { pattern, asked: asked.seqs.clone() });
                }
                _ => assert!(self.patterns.contains(&pattern), "{pattern} in its list"),
            }
        }
        if asked.what == What::List {
            let count = message.topics.as_ref().map_or(0, Vec::len);
            assert_eq!(count, self.patterns.len(), "its list is {:?}", self.patterns);
        }
    }
}

/// What an answer says of where one begins.
fn begin(wish: &Wish, topic: Option<usize>, outcome: &Outcome) -> Begin {
    let resume = wish.resume.iter().find(|resume| Some(resume.topic) == topic);
    if let Some(&Resume { ref epoch, seq, number, .. }) = resume {
        let there = outcome.epoch.as_ref() == Some(epoch);
        let ahead = seq > outcome.seq.unwrap_or(0);
        let known = match (outcome.recovered, outcome.reason.as_deref()) {
            (Some(true), None) => true,
            (Some(false), Some("history")) => true,
            (Some(false), Some("epoch")) => {
                assert!(!there, "the epoch is right");
                return Begin::Behind { seq: number, known: false };
            }
            (Some(false), Some("seq")) => false,
            other => panic!("{other:?} of a resume"),
        };
        assert!(there && known != ahead, "{outcome:?} for {resume:?}");
        return Begin::Behind { seq: number, known };
    }
    match wish.from_us {
        Some(us) => {
            let fits = matches!(
                (outcome.recovered, outcome.reason.as_deref()),
                (Some(true), None) | (Some(false), Some("history"))
            );
            assert!(fits, "{outcome:?} from a time");
            Begin::From { us }
        }
        None if wish.snapshot => Begin::Snapshot,
        None => Begin::Now,
    }
}

/// `"data":…` or `"data_base64":…` of a payload.
pub(crate) fn data_of(content: Content, payload: &[u8]) -> String {
    match content {
        Content::Json => format!("\"data\":{}", String::from_utf8_lossy(payload)),
        Content::Binary => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(payload);
            format!("\"data_base64\":\"{encoded}\"")
        }
        Content::Text => unreachable!("text is published on sockets of one topic only"),
    }
}
