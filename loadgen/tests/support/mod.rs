//! A small push server with known faults, to show that the load generator finds them.
//!
//! Plain threads: one per publisher and per connection that sends frames, one hub that writes to
//! all subscribers. It is slow and simple on purpose.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use uringcast_protocol::handshake::{Request, Switching, parse, write_switching};
use uringcast_protocol::topic_name::Pattern;
use uringcast_protocol::writer::{write_close, write_message};
use uringcast_protocol::{CloseCode, Event, MessageKind, Opcode, Role, Session};

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
}

/// A running server; its threads end with the test's process.
pub(crate) struct Server {
    /// Where subscribers connect.
    pub(crate) data: SocketAddr,
    /// Where publishers connect.
    pub(crate) publish: SocketAddr,
}

enum Word {
    Join { stream: TcpStream, patterns: Vec<Pattern>, json: bool },
    Publish { topic: String, text: bool, payload: Vec<u8> },
}

struct Subscriber {
    stream: TcpStream,
    patterns: Vec<Pattern>,
    json: bool,
    deliveries: u64,
    held: Vec<u8>,
}

impl Server {
    /// Starts one on free ports.
    pub(crate) fn start(faults: Faults) -> Self {
        // Bounded to one word: a stalled hub stalls the publishers.
        let (hub, words) = sync_channel(1);
        let data = listen(hub.clone());
        let publish = listen(hub);
        std::thread::spawn(move || run_hub(&words, faults));
        Self { data, publish }
    }
}

fn listen(hub: SyncSender<Word>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let hub = hub.clone();
            std::thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn(move || serve(stream, &hub))
                .expect("a thread");
        }
    });
    address
}

fn serve(mut stream: TcpStream, hub: &SyncSender<Word>) {
    stream.set_nodelay(true).expect("a socket");
    let mut head = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let (path, query, rest) = loop {
        let Ok(bytes @ 1..) = stream.read(&mut buffer) else { return };
        head.extend_from_slice(&buffer[..bytes]);
        if let Some(request) = parse(&head).expect("a legal request") {
            let mut answer = Vec::new();
            let (path, query) = upgrade(&request, &mut answer);
            stream.write_all(&answer).expect("room for a head");
            break (path, query, head[request.head_bytes..].to_vec());
        }
    };
    let mut publishes_to = None;
    if let Some(pattern) = path.strip_prefix("/raw/") {
        let patterns = vec![Pattern::parse(pattern).expect("a pattern")];
        join(hub, &stream, patterns, false);
    } else if path == "/ws" {
        let patterns = query.split(',').map(|text| Pattern::parse(text).expect("a pattern"));
        join(hub, &stream, patterns.collect(), true);
    } else if let Some(topic) = path.strip_prefix("/publish/") {
        publishes_to = Some(topic.to_owned());
    }
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
                    publish(hub, publishes_to.as_deref(), text, payload);
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

fn upgrade(request: &Request<'_>, answer: &mut Vec<u8>) -> (String, String) {
    let upgrade = request.upgrade().expect("an upgrade");
    write_switching(answer, &Switching::new(upgrade.key));
    let topics = request.query().find(|(key, _)| key.as_ref() == "topics");
    (request.path.to_string(), topics.map(|(_, value)| value.into_owned()).unwrap_or_default())
}

fn join(hub: &SyncSender<Word>, stream: &TcpStream, patterns: Vec<Pattern>, json: bool) {
    let stream = stream.try_clone().expect("a descriptor");
    hub.send(Word::Join { stream, patterns, json }).expect("the hub lives");
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

fn run_hub(words: &Receiver<Word>, faults: Faults) {
    let mut subscribers: Vec<Subscriber> = Vec::new();
    let mut publications = 0;
    let mut seqs = std::collections::HashMap::<String, u64>::new();
    while let Ok(word) = words.recv() {
        match word {
            Word::Join { stream, patterns, json } => {
                subscribers.push(Subscriber {
                    stream,
                    patterns,
                    json,
                    deliveries: 0,
                    held: Vec::new(),
                });
            }
            Word::Publish { topic, text, payload } => {
                publications += 1;
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
    fn deliver(
        &mut self,
        topic: &str,
        seq: u64,
        text: bool,
        payload: &[u8],
        faults: Faults,
    ) -> bool {
        self.deliveries += 1;
        let nth = |every| is_nth(self.deliveries, every);
        let payload = if nth(faults.damage_every) { &payload[1..] } else { payload };
        let mut frame = Vec::new();
        let opcode = if text { Opcode::Text } else { Opcode::Binary };
        if self.json {
            let head = format!(r#"{{"topic":"{topic}","seq":{seq},"ts":1,"data":"#);
            let whole = [head.as_bytes(), payload, b"}"].concat();
            write_message(&mut frame, Opcode::Text, &whole, None);
        } else {
            write_message(&mut frame, opcode, payload, None);
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
}

fn is_nth(count: u64, every: u64) -> bool {
    every > 0 && count.is_multiple_of(every)
}
