//! A control plane under test: the real one on its thread, shards made up beside it.
//!
//! Knows: what a shard owes the control plane over the mesh. Must not know: rings, real shards.

#![allow(dead_code, reason = "each test file is a crate of its own and uses a part of this")]

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::Release},
    thread::JoinHandle,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use uringcast::{
    control::{self, ControlInput, Outcome},
    journal::Journal,
    mail::{
        Answer, ConnectionReport, ConnectionState, Ingest, JournalEntry, Mail, Publisher, Question,
        Refusal, TopicReport,
    },
    publication,
    settings::Settings,
    shared::{Shared, Stage},
};
use uringcast_mesh::{Node, Wake, capacity_for, grid};
use uringcast_protocol::command::ErrorCode;
use uringcast_ring::WakeHandle;

/// How the made-up shards behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// They answer.
    Good,
    /// They read their mail and say nothing, but end when told to.
    Silent,
    /// They do not even end.
    Stuck,
}

/// A running control plane.
pub(crate) struct Rig {
    /// Its admin port.
    pub(crate) admin: SocketAddr,
    /// What all threads share.
    pub(crate) shared: Arc<Shared>,
    /// The shards' bells.
    pub(crate) bells: Vec<WakeHandle>,
    control: JoinHandle<Outcome>,
    shards: Vec<JoinHandle<Vec<Ordered>>>,
}

/// A publication that a shard gave a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ordered {
    /// Its topic.
    pub(crate) topic: String,
    /// `Json`, `Text`, `Binary`.
    pub(crate) content: String,
    /// Its payload's size.
    pub(crate) bytes: usize,
    /// Its number.
    pub(crate) seq: u64,
}

impl Rig {
    /// Starts it with so many shards and waits until it is ready.
    pub(crate) fn start(shards: usize, settings: Settings, manner: Manner) -> Self {
        Self::start_with(shards, settings, manner, None)
    }

    /// The same, with a journal.
    pub(crate) fn start_with(
        shards: usize,
        settings: Settings,
        manner: Manner,
        journal: Option<Journal>,
    ) -> Self {
        let shared = Arc::new(Shared::new(shards, 42).with_rules(&settings.rules));
        let mut nodes = grid::<Mail>(shards + 1, capacity_for::<Mail>(shards + 1));
        let control_node = nodes.pop().expect("one more than shards");
        let bell = control::bell().expect("an eventfd");
        let to_control = WakeHandle::eventfd_only(bell.try_clone().expect("a descriptor"));
        let (mut bells, mut threads) = (Vec::new(), Vec::new());
        for node in nodes {
            let bell = control::bell().expect("an eventfd");
            bells.push(WakeHandle::eventfd_only(bell.try_clone().expect("a descriptor")));
            let shard = Shard {
                node,
                bell,
                control: shards,
                to_control: to_control.clone(),
                shared: Arc::clone(&shared),
                topics: BTreeMap::new(),
                ordered: Vec::new(),
                manner,
            };
            threads.push(std::thread::spawn(move || shard.run()));
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let admin = listener.local_addr().expect("it is bound");
        let input = ControlInput {
            node: control_node,
            bells: bells.clone(),
            bell,
            shared: Arc::clone(&shared),
            settings,
            admin: listener,
            admin_hosts: Vec::new(),
            data_port: 9_001,
            lines_dropped: None,
            journal,
        };
        let control = std::thread::spawn(move || control::run(input).expect("it starts"));
        let rig = Self { admin, shared, bells, control, shards: threads };
        rig.wait_for("ready", || rig.shared.stage() == Stage::Ready);
        rig
    }

    /// Ends it as a signal would, and gives what the shards ordered.
    pub(crate) fn end(self) -> (Outcome, Vec<Ordered>) {
        self.shared.advance(Stage::Draining);
        self.bells.iter().for_each(WakeHandle::ring_bell);
        self.join()
    }

    /// Waits for its end.
    pub(crate) fn join(self) -> (Outcome, Vec<Ordered>) {
        let outcome = self.control.join().expect("the control plane does not panic");
        if !outcome.shards_ended() {
            return (outcome, Vec::new());
        }
        let ordered = self.shards.into_iter().flat_map(|shard| shard.join().expect("no panic"));
        (outcome, ordered.collect())
    }

    /// One request on a connection of its own.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n",
            self.admin
        );
        self.raw(&[head.as_bytes(), body].concat())
    }

    /// A request without a body.
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.request("GET", path, "", b"")
    }

    /// These very bytes.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = TcpStream::connect(self.admin).expect("the admin port listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
        // A server that has heard enough may close before all was written.
        let _ = stream.write_all(bytes);
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        Reply::parse(&String::from_utf8_lossy(&text))
    }

    /// Waits at most five seconds.
    pub(crate) fn wait_for(&self, what: &str, is: impl Fn() -> bool) {
        for _ in 0..1_000 {
            if is() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("not {what} within five seconds");
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: u16,
    /// Its head, in small letters.
    pub(crate) head: String,
    /// Its body.
    pub(crate) body: String,
}

impl Reply {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole answer");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.expect("a status");
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error's code.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("an error").to_owned()
    }
}

struct Shard {
    node: Node<Mail>,
    bell: OwnedFd,
    control: usize,
    to_control: WakeHandle,
    shared: Arc<Shared>,
    topics: BTreeMap<String, (u64, Option<u64>)>,
    ordered: Vec<Ordered>,
    manner: Manner,
}

impl Shard {
    fn run(mut self) -> Vec<Ordered> {
        let id = self.node.id();
        self.shared.ready[id].store(true, Release);
        loop {
            let mut mail = Vec::new();
            self.node.receive(64, |_, one| mail.push(one));
            mail.into_iter().for_each(|one| self.handle(one));
            if self.shared.stage() >= Stage::Draining && self.manner != Manner::Stuck {
                self.shared.ended[id].store(true, Release);
                return self.ordered;
            }
            if self.node.prepare_sleep() {
                self.sleep();
                self.node.awake();
            }
        }
    }

    /// Long enough that a test which relies on a bell that nobody rings fails.
    fn sleep(&self) {
        let mut fds = [PollFd::new(&self.bell, PollFlags::IN)];
        let long = Timespec { tv_sec: 20, tv_nsec: 0 };
        if poll(&mut fds, Some(&long)).is_ok_and(|ready| ready > 0) {
            rustix::io::read(&self.bell, &mut [0; 8]).expect("it was rung");
        }
    }

    fn handle(&mut self, mail: Mail) {
        let answer = match mail {
            Mail::Ingest(ingest) => {
                let topic = publication::draft_topic(&ingest.lease).0.into();
                let answer = self.ingest(&ingest);
                // Homes say this of a topic's first publication; of the others it changes nothing.
                self.send(Mail::Journal(JournalEntry::Topic { topic, epoch: 7, first_seq: 1 }));
                answer
            }
            Mail::DeleteTopic { topic, ticket } => {
                let answer = Answer::Deleted(self.topics.remove(&*topic).is_some());
                Mail::Answer { ticket, answer }
            }
            Mail::Ask { ticket, question } => {
                Mail::Answer { ticket, answer: self.answer(&question) }
            }
            other => panic!("{other:?}"),
        };
        if self.manner == Manner::Good {
            self.send(answer);
        }
    }

    fn send(&mut self, mail: Mail) {
        let wake = self.node.send(self.control, mail).expect("the ring has room");
        if wake == Wake::Needed {
            self.to_control.ring_bell();
        }
    }

    fn ingest(&mut self, ingest: &Ingest) -> Mail {
        let Publisher::Request { ticket } = ingest.origin.publisher else {
            panic!("{:?}", ingest.origin)
        };
        let (topic, _) = publication::draft_topic(&ingest.lease);
        let (content, bytes) = publication::draft_payload(&ingest.lease);
        if topic == "full" {
            let refusal = Refusal::Code(ErrorCode::Limit);
            return Mail::Refused { origin: ingest.origin, refusal };
        }
        let (seq, pub_seq) = self.topics.entry(topic.to_owned()).or_default();
        if ingest.pub_seq.is_some() && ingest.pub_seq <= *pub_seq {
            let refusal = Refusal::Duplicate { epoch: 7, seq: *seq };
            return Mail::Refused { origin: ingest.origin, refusal };
        }
        *seq += 1;
        *pub_seq = ingest.pub_seq.or(*pub_seq);
        self.ordered.push(Ordered {
            topic: topic.to_owned(),
            content: format!("{content:?}"),
            bytes,
            seq: *seq,
        });
        Mail::Published { ticket, epoch: 7, seq: *seq, snapshot_wanted: false }
    }

    fn answer(&self, question: &Question) -> Answer {
        let report = |(topic, &(seq, _)): (&String, &(u64, Option<u64>))| TopicReport {
            topic: topic.clone(),
            kind: "event",
            epoch: format!("{:016x}", 7),
            seq,
            ts: seq,
            last_bytes: 1,
            subscribers: 2,
            rule: "(none)".to_owned(),
            history_messages: 1,
            history_bytes: 1,
            first_seq: Some(seq),
            snapshot_seq: None,
            snapshot_usable: false,
            stale_since: None,
        };
        match question {
            Question::Connections { limit, .. } => {
                let id = self.node.id() as u64;
                let report = ConnectionReport {
                    connection: format!("c{id}"),
                    peer: "127.0.0.1:5".to_owned(),
                    proxied: false,
                    path: "/ws",
                    subscriptions: 1,
                    backlog_bytes: 10 * id,
                    behind_messages: id,
                    state: ConnectionState::Live,
                    since: None,
                    lagging: false,
                    blocked: false,
                };
                Answer::Connections(vec![report; (*limit).min(1) as usize])
            }
            Question::Topic { topic } => Answer::Topics(
                self.topics.get_key_value(&**topic).into_iter().map(report).collect(),
            ),
            Question::Topics { after, limit } => {
                let after = after.as_deref().unwrap_or_default();
                let later = self.topics.iter().filter(|(name, _)| name.as_str() > after);
                Answer::Topics(later.map(report).take(*limit as usize).collect())
            }
        }
    }
}
