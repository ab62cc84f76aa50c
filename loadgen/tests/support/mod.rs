//! A small push server with known faults, to show that the load generator finds them.
//!
//! Plain threads: one per publisher and per connection that sends frames, one hub that writes to
//! all subscribers. It is slow and simple on purpose.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress};
use uringcast_protocol::deflate::{Policy, agree};
use uringcast_protocol::handshake::{Request, Switching, parse, write_switching};
use uringcast_protocol::limits::HEADER_BYTES_MAX;
use uringcast_protocol::topic_name::Pattern;
use uringcast_protocol::writer::{write_close, write_message};
use uringcast_protocol::{CloseCode, Event, Header, MessageKind, Opcode, Role, Session};

/// What the server does wrong. Every `n`-th means the n-th, 2n-th, … delivery of each connection;
/// 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Not delivered.
    pub(crate) lose_every: u64,
    /// Delivered twice.
    pub(crate) double_every: u64,
    /// Delivered after the next one.
    pub(crate) reorder_every: u64,
    /// Payload one byte short.
    pub(crate) damage_every: u64,
    /// Every n-th publication waits for 20 ms.
    pub(crate) delay_every: u64,
    /// This publication (from 1) waits for a second, and the publisher with it.
    pub(crate) stall_at: u64,
    /// Every subscriber is closed with 1013 after so many deliveries.
    pub(crate) close_after: u64,
    /// Messages of value topics (`bookTicker`) are delivered only every n-th time.
    pub(crate) conflate: u64,
    /// permessage-deflate is agreed on with whoever offers it (which is no fault): every second
    /// message is compressed, and every fourth in two frames.
    pub(crate) deflate: bool,
    /// The answer leaves out what the client made a condition of it.
    pub(crate) takes_over: bool,
    /// Compressed messages come without their last byte.
    pub(crate) cut_every: u64,
    /// Plain frames have RSV1 set.
    pub(crate) mark_every: u64,
    /// Every publication takes the server so long, whoever it is for, µs: more than so many a second
    /// wait for ever longer.
    pub(crate) publication_us: u64,
    /// After the answer to a subscribe the first so many deliveries of its topic are left out.
    pub(crate) lose_after_subscribe: u64,
    /// An unsubscribe is answered, and its topic delivered on.
    pub(crate) keeps_unsubscribed: bool,
    /// Every n-th publication of each publisher is not taken; told if the URL has ack=1.
    pub(crate) refuse_every: u64,
}

/// A running server; its threads end with the test's process.
pub(crate) struct Server {
    /// Where subscribers connect.
    pub(crate) data: SocketAddr,
    /// Where publishers connect.
    pub(crate) publish: SocketAddr,
}

enum Word {
    /// With the answer to its upgrade: whoever has that misses nothing from then on.
    Join {
        subscriber: Subscriber,
        answer: Vec<u8>,
    },
    /// Of the subscriber with this address.
    Change {
        peer: SocketAddr,
        unsubscribes: bool,
        topic: String,
    },
    Publish {
        topic: String,
        text: bool,
        payload: Vec<u8>,
    },
}

struct Subscriber {
    stream: TcpStream,
    patterns: Vec<Pattern>,
    json: bool,
    /// Has agreed to permessage-deflate.
    deflate: bool,
    deliveries: u64,
    held: Vec<u8>,
    /// Subscribed to with a command: what is still left out of it.
    lost: std::collections::HashMap<String, u64>,
}

impl Server {
    /// Starts one on free ports.
    pub(crate) fn start(faults: Faults) -> Self {
        // Bounded to one word: a stalled hub stalls the publishers.
        let (hub, words) = sync_channel(1);
        let data = listen(hub.clone(), faults);
        let publish = listen(hub, faults);
        std::thread::spawn(move || run_hub(&words, faults));
        Self { data, publish }
    }
}

fn listen(hub: SyncSender<Word>, faults: Faults) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let hub = hub.clone();
            std::thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn(move || serve(stream, &hub, faults))
                .expect("a thread");
        }
    });
    address
}

fn serve(mut stream: TcpStream, hub: &SyncSender<Word>, faults: Faults) {
    stream.set_nodelay(true).expect("a socket");
    let mut head = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let (path, query, deflate, answer, rest) = loop {
        let Ok(bytes @ 1..) = stream.read(&mut buffer) else { return };
        head.extend_from_slice(&buffer[..bytes]);
        if let Some(request) = parse(&head).expect("a legal request") {
            let mut answer = Vec::new();
            let (path, query, deflate) = upgrade(&request, faults, &mut answer);
            break (path, query, deflate, answer, head[request.head_bytes..].to_vec());
        }
    };
    let mut publishes_to = None;
    let patterns = path.strip_prefix("/raw/").or_else(|| (path == "/ws").then_some(&query));
    if let Some(patterns) = patterns {
        let patterns = patterns.split(',').map(|text| Pattern::parse(text).expect("a pattern"));
        let subscriber = Subscriber {
            stream: stream.try_clone().expect("a descriptor"),
            patterns: patterns.collect(),
            json: path == "/ws",
            deflate,
            deliveries: 0,
            held: Vec::new(),
            lost: std::collections::HashMap::new(),
        };
        hub.send(Word::Join { subscriber, answer }).expect("the hub lives");
    } else {
        publishes_to = path.strip_prefix("/publish/").map(str::to_owned);
        stream.write_all(&answer).expect("room for a head");
    }
    let answers = head.windows(5).any(|bytes| bytes == b"ack=1");
    let mut published = 0;
    let mut session = Session::new(Role::Server, 1 << 24);
    let mut message = Vec::new();
    let mut input = rest;
    loop {
        let mut left = input.as_slice();
        while let Some(event) = session.receive(&mut left, &mut message).expect("legal frames") {
            match event {
                Event::Message(kind) => {
                    let text = matches!(kind, MessageKind::Text);
                    let payload = std::mem::take(&mut message);
                    published += 1;
                    let refused = is_nth(published, faults.refuse_every);
                    if answers {
                        acknowledge(&mut stream, refused);
                    }
                    if refused {
                        continue;
                    }
                    if path == "/ws" {
                        change(hub, stream.peer_addr().expect("connected"), &payload);
                    } else {
                        publish(hub, publishes_to.as_deref(), text, payload);
                    }
                }
                Event::Close(..) => {
                    let mut close = Vec::new();
                    write_close(&mut close, Some(CloseCode::NORMAL), "", None);
                    let _ = stream.write_all(&close);
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    return;
                }
                Event::Deflated(_) => panic!("this server agreed to no extension"),
                Event::Ping(_) | Event::Pong(_) => {}
            }
        }
        let Ok(bytes @ 1..) = stream.read(&mut buffer) else { return };
        input = buffer[..bytes].to_vec();
    }
}

/// Path, topics, and whether deflate is agreed on.
fn upgrade(request: &Request<'_>, faults: Faults, answer: &mut Vec<u8>) -> (String, String, bool) {
    let upgrade = request.upgrade().expect("an upgrade");
    let agreement = agree(upgrade.extensions, &Policy::default()).filter(|_| faults.deflate);
    let extensions = agreement.map(|agreement| match faults.takes_over {
        true => "permessage-deflate".to_owned(),
        false => agreement.to_string(),
    });
    let extensions = extensions.as_deref();
    write_switching(answer, &Switching { extensions, ..Switching::new(upgrade.key) });
    let topics = request.query().find(|(key, _)| key.as_ref() == "topics");
    let topics = topics.map(|(_, value)| value.into_owned()).unwrap_or_default();
    (request.path.to_string(), topics, extensions.is_some())
}

fn acknowledge(stream: &mut TcpStream, refused: bool) {
    let text = match refused {
        true => r#"{"op":"error","code":"rate_limited","message":"no","retry":true}"#,
        false => r#"{"op":"published","topic":"bench","seq":1}"#,
    };
    let mut frame = Vec::new();
    write_message(&mut frame, Opcode::Text, text.as_bytes(), None);
    // A publisher that is gone needs no answer.
    let _ = stream.write_all(&frame);
}

/// A message of a publisher: one topic's payload, or lines of many.
fn publish(hub: &SyncSender<Word>, topic: Option<&str>, text: bool, payload: Vec<u8>) {
    if let Some(topic) = topic {
        let word = Word::Publish { topic: topic.to_owned(), text, payload };
        hub.send(word).expect("the hub lives");
        return;
    }
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        topic: &'a str,
        #[serde(borrow)]
        data: &'a serde_json::value::RawValue,
    }
    for line in payload.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Line<'_> = serde_json::from_slice(line).expect("a line of JSON");
        let payload = line.data.get().as_bytes().to_vec();
        hub.send(Word::Publish { topic: line.topic.to_owned(), text: true, payload })
            .expect("the hub lives");
    }
}

/// A command: one topic each.
fn change(hub: &SyncSender<Word>, peer: SocketAddr, payload: &[u8]) {
    let command: serde_json::Value = serde_json::from_slice(payload).expect("a command");
    let topic = command["topics"][0].as_str().expect("a topic").to_owned();
    let unsubscribes = match command["op"].as_str() {
        Some("subscribe") => false,
        Some("unsubscribe") => true,
        other => panic!("this server knows no {other:?}"),
    };
    hub.send(Word::Change { peer, unsubscribes, topic }).expect("the hub lives");
}

fn run_hub(words: &Receiver<Word>, faults: Faults) {
    let mut subscribers: Vec<Subscriber> = Vec::new();
    let mut publications = 0;
    let mut seqs = std::collections::HashMap::<String, u64>::new();
    while let Ok(word) = words.recv() {
        match word {
            Word::Join { mut subscriber, answer } => {
                if subscriber.stream.write_all(&answer).is_ok() {
                    subscribers.push(subscriber);
                }
            }
            Word::Change { peer, unsubscribes, topic } => {
                let is_it = |one: &&mut Subscriber| one.stream.peer_addr().ok() == Some(peer);
                if let Some(subscriber) = subscribers.iter_mut().find(is_it) {
                    subscriber.change(unsubscribes, &topic, faults);
                }
            }
            Word::Publish { topic, text, payload } => {
                publications += 1;
                std::thread::sleep(Duration::from_micros(faults.publication_us));
                if is_nth(publications, faults.delay_every) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                if publications == faults.stall_at {
                    std::thread::sleep(Duration::from_secs(1));
                }
                let seq = seqs.entry(topic.clone()).or_default();
                *seq += 1;
                if topic.ends_with("bookTicker")
                    && faults.conflate > 0
                    && !seq.is_multiple_of(faults.conflate)
                {
                    continue;
                }
                subscribers.retain_mut(|subscriber| {
                    !subscriber.patterns.iter().any(|pattern| pattern.matches(&topic))
                        || subscriber.deliver(&topic, *seq, text, &payload, faults)
                });
            }
        }
    }
}

impl Subscriber {
    fn change(&mut self, unsubscribes: bool, topic: &str, faults: Faults) {
        let op = if unsubscribes {
            if !faults.keeps_unsubscribed {
                self.patterns.retain(|pattern| !pattern.matches(topic));
            }
            "unsubscribed"
        } else {
            self.patterns.push(Pattern::parse(topic).expect("a topic"));
            self.lost.insert(topic.to_owned(), faults.lose_after_subscribe);
            "subscribed"
        };
        let text = format!(r#"{{"op":"{op}","topics":[{{"topic":"{topic}"}}]}}"#);
        let mut frame = Vec::new();
        write_message(&mut frame, Opcode::Text, text.as_bytes(), None);
        // Who is gone needs no answer.
        let _ = self.stream.write_all(&frame);
    }

    fn deliver(
        &mut self,
        topic: &str,
        seq: u64,
        text: bool,
        payload: &[u8],
        faults: Faults,
    ) -> bool {
        if let Some(lost @ 1..) = self.lost.get_mut(topic) {
            *lost -= 1;
            return true;
        }
        self.deliveries += 1;
        let nth = |every| is_nth(self.deliveries, every);
        let payload = if nth(faults.damage_every) { &payload[1..] } else { payload };
        let opcode = if text || self.json { Opcode::Text } else { Opcode::Binary };
        let wrapped;
        let message = if self.json {
            let head = format!(r#"{{"topic":"{topic}","seq":{seq},"ts":1,"data":"#);
            wrapped = [head.as_bytes(), payload, b"}"].concat();
            &wrapped
        } else {
            payload
        };
        let mut frame = self.frames(opcode, message, nth(faults.cut_every));
        if nth(faults.mark_every) {
            frame[0] |= 0x40;
        }
        if nth(faults.lose_every) {
            return true;
        }
        if nth(faults.reorder_every) {
            self.held = frame;
            return true;
        }
        if nth(faults.double_every) {
            frame.extend_from_within(..);
        }
        frame.append(&mut self.held);
        if self.deliveries == faults.close_after {
            write_close(&mut frame, Some(CloseCode::TRY_AGAIN_LATER), "", None);
        }
        self.stream.write_all(&frame).is_ok() && self.deliveries != faults.close_after
    }

    /// One message: plain, compressed, or compressed in two frames.
    fn frames(&self, opcode: Opcode, message: &[u8], cut: bool) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.deflate || self.deliveries % 2 == 1 {
            write_message(&mut out, opcode, message, None);
            return out;
        }
        let mut compressed = compress(message);
        if cut {
            compressed.pop();
        }
        if self.deliveries.is_multiple_of(4) {
            let (first, second) = compressed.split_at(compressed.len() / 2);
            write_frame(&mut out, opcode, false, true, first);
            write_frame(&mut out, Opcode::Continuation, true, false, second);
        } else {
            write_frame(&mut out, opcode, true, true, &compressed);
        }
        out
    }
}

fn compress(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() * 2 + 64);
    let mut compress = Compress::new(Compression::fast(), false);
    compress.compress_vec(message, &mut out, FlushCompress::Sync).expect("room");
    out.truncate(out.len() - 4);
    out
}

fn write_frame(out: &mut Vec<u8>, opcode: Opcode, fin: bool, rsv1: bool, payload: &[u8]) {
    let header = Header { fin, rsv1, opcode, mask: None, payload_bytes: payload.len() as u64 };
    let mut bytes = [0; HEADER_BYTES_MAX];
    let length = header.encode(&mut bytes);
    out.extend_from_slice(&bytes[..length]);
    out.extend_from_slice(payload);
}

fn is_nth(count: u64, every: u64) -> bool {
    every > 0 && count.is_multiple_of(every)
}
