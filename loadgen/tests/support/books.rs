//! A server of order books with known faults: it takes lines with `pub_seq` and snapshots, and knows
//! history and resume. One lock, a thread per connection.
#![expect(clippy::disallowed_types, reason = "a server for tests, simple rather than fast")]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use uringcast_protocol::handshake::{Switching, parse, write_switching};
use uringcast_protocol::writer::{write_close, write_message};
use uringcast_protocol::{CloseCode, Event, Opcode, Role, Session};

/// What the server does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BookFaults {
    /// The update with this number (from 1) of each depth topic is not delivered to anyone.
    pub(crate) lose: u64,
    /// Before it, its loss is told as a gap, and no snapshot follows.
    pub(crate) lose_told: bool,
    /// Snapshots say that they cover so many more updates than they do.
    pub(crate) covers_more: u64,
    /// The first level of snapshots has another size.
    pub(crate) snapshot_wrong: bool,
    /// Resumes are granted, and the first so many messages left out.
    pub(crate) resume_skips: u64,
    /// Resumes are granted, and begin with what the client has.
    pub(crate) resume_repeats: bool,
    /// Resumes are not granted; the gap is told and a snapshot follows, which is right.
    pub(crate) resume_never: bool,
    /// A snapshot in the middle of the stream that nobody asked for.
    pub(crate) snapshot_at: u64,
    /// No topic is said to be of kind delta.
    pub(crate) kind_wrong: bool,
}

/// What a publisher sends; the payload goes on byte for byte.
#[derive(serde::Deserialize)]
struct Line<'a> {
    topic: &'a str,
    #[serde(borrow)]
    data: &'a serde_json::value::RawValue,
    pub_seq: Option<u64>,
    #[serde(default)]
    snapshot: bool,
}

#[derive(Default)]
struct State {
    topics: HashMap<String, Topic>,
    subscribers: Vec<Subscriber>,
}

#[derive(Default)]
struct Topic {
    log: Vec<(u64, String)>,
    /// The number of the last update that it covers, and its text.
    snapshot: Option<(u64, String)>,
}

struct Subscriber {
    id: u64,
    stream: TcpStream,
    topics: Vec<String>,
}

/// Starts one: where subscribers and publishers connect.
pub(crate) fn start(faults: BookFaults) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let state = Arc::new(Mutex::new(State::default()));
    std::thread::spawn(move || {
        let mut id = 0;
        while let Ok((stream, _)) = listener.accept() {
            id += 1;
            let state = Arc::clone(&state);
            std::thread::spawn(move || serve(stream, id, &state, faults));
        }
    });
    address
}

fn serve(mut stream: TcpStream, id: u64, state: &Mutex<State>, faults: BookFaults) {
    stream.set_nodelay(true).expect("a socket");
    let mut buffer = vec![0; 64 * 1024];
    let mut head = Vec::new();
    let (publishes, mut input) = loop {
        let Ok(bytes @ 1..) = stream.read(&mut buffer) else { return };
        head.extend_from_slice(&buffer[..bytes]);
        if let Some(request) = parse(&head).expect("a legal request") {
            let mut answer = Vec::new();
            let key = request.upgrade().expect("an upgrade").key;
            write_switching(&mut answer, &Switching::new(key));
            stream.write_all(&answer).expect("room for a head");
            break (request.path == "/publish", head[request.head_bytes..].to_vec());
        }
    };
    let mut session = Session::new(Role::Server, 1 << 24);
    let mut message = Vec::new();
    loop {
        let mut left = input.as_slice();
        while let Some(event) = session.receive(&mut left, &mut message).expect("legal frames") {
            match event {
                Event::Message(_) => {
                    let message = std::mem::take(&mut message);
                    let mut state = state.lock().expect("no thread panics with it");
                    if publishes {
                        let line = serde_json::from_slice(&message).expect("JSON");
                        let answer = state.publish(&line, faults);
                        say(&stream, &answer);
                    } else {
                        let told = serde_json::from_slice(&message).expect("JSON");
                        state.subscribe(id, &stream, &told, faults);
                    }
                }
                Event::Close(..) => {
                    let mut state = state.lock().expect("no thread panics with it");
                    state.subscribers.retain(|subscriber| subscriber.id != id);
                    let mut close = Vec::new();
                    write_close(&mut close, Some(CloseCode::NORMAL), "", None);
                    let _ = stream.write_all(&close);
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    return;
                }
                Event::Deflated(_) | Event::Ping(_) | Event::Pong(_) => {}
            }
        }
        let Ok(bytes @ 1..) = stream.read(&mut buffer) else { return };
        input = buffer[..bytes].to_vec();
    }
}

fn say(mut stream: &TcpStream, text: &str) {
    let mut frame = Vec::new();
    write_message(&mut frame, Opcode::Text, text.as_bytes(), None);
    let _ = stream.write_all(&frame);
}

/// The server's own words begin with `op`.
fn word(op: &str, rest: &Value) -> String {
    format!("{{\"op\":\"{op}\",{}", &rest.to_string()[1..])
}

fn framed(topic: &str, seq: u64, snapshot: bool, data: &str) -> String {
    let flag = if snapshot { ",\"snapshot\":true" } else { "" };
    format!("{{\"topic\":\"{topic}\",\"seq\":{seq},\"ts\":1{flag},\"data\":{data}}}")
}

fn is_depth(topic: &str) -> bool {
    topic.ends_with(".depth")
}

impl State {
    fn publish(&mut self, line: &Line<'_>, faults: BookFaults) -> String {
        let name = line.topic;
        let data = line.data.get().to_owned();
        let topic = self.topics.entry(name.to_owned()).or_default();
        if line.snapshot {
            let number = line.pub_seq.expect("a snapshot has one");
            let covers = topic.log.iter().filter(|(own, _)| *own <= number).count() as u64;
            topic.snapshot = Some((covers, data));
            return word("published", &json!({"topic":name,"epoch":"e","seq":covers}));
        }
        topic.log.push((line.pub_seq.unwrap_or(0), data));
        let seq = topic.log.len() as u64;
        let (_, data) = topic.log.last().expect("just pushed");
        let text = framed(name, seq, false, data);
        let snapshot = topic.snapshot_text(name, faults);
        let lost = is_depth(name) && seq == faults.lose;
        for subscriber in &self.subscribers {
            if !subscriber.topics.iter().any(|own| own == name) {
                continue;
            }
            if lost && faults.lose_told {
                let gap = json!({"topic":name,"from":seq,"to":seq,"reason":"slow"});
                say(&subscriber.stream, &word("gap", &gap));
            }
            if !lost {
                say(&subscriber.stream, &text);
            }
            if let Some((_, snapshot)) = snapshot.as_ref().filter(|_| seq == faults.snapshot_at) {
                say(&subscriber.stream, snapshot);
            }
        }
        word("published", &json!({"topic":name,"epoch":"e","seq":seq}))
    }

    fn subscribe(&mut self, id: u64, stream: &TcpStream, told: &Value, faults: BookFaults) {
        assert_eq!((told["op"].as_str(), &told["snapshot"]), (Some("subscribe"), &json!(true)));
        let names = told["topics"].as_array().expect("topics").iter();
        let names: Vec<_> = names.map(|name| name.as_str().expect("a name").to_owned()).collect();
        let (mut acks, mut after) = (Vec::new(), Vec::new());
        for name in &names {
            let topic = self.topics.entry(name.clone()).or_default();
            let kind = match name.rsplit('.').next() {
                Some("depth") if !faults.kind_wrong => "delta",
                Some("bookTicker") => "value",
                _ => "event",
            };
            let seq = topic.log.len() as u64;
            let mut ack = json!({"topic":name,"kind":kind,"epoch":"e","seq":seq});
            let from = told["resume"][name].get("seq").and_then(Value::as_u64);
            match from {
                Some(from) if !faults.resume_never => {
                    assert_eq!(told["resume"][name]["epoch"], "e");
                    ack["recovered"] = json!(true);
                    let from = from - u64::from(faults.resume_repeats).min(from);
                    for number in from + faults.resume_skips..seq {
                        let (_, data) = &topic.log[number as usize];
                        after.push(framed(name, number + 1, false, data));
                    }
                }
                _ => {
                    if let Some(from) = from {
                        ack["recovered"] = json!(false);
                        ack["reason"] = json!("history");
                        after.extend(topic.catch_up(name, from, faults));
                    } else if is_depth(name) {
                        after.extend(topic.begin(name, faults));
                    }
                }
            }
            acks.push(ack);
        }
        say(stream, &word("subscribed", &json!({"id":told["id"],"topics":acks})));
        for text in after {
            say(stream, &text);
        }
        let stream = stream.try_clone().expect("a descriptor");
        self.subscribers.push(Subscriber { id, stream, topics: names });
    }
}

impl Topic {
    /// The seq that the snapshot stands for, and its message.
    fn snapshot_text(&self, name: &str, faults: BookFaults) -> Option<(u64, String)> {
        let (covers, data) = self.snapshot.as_ref().filter(|_| is_depth(name))?;
        let mut data: Value = serde_json::from_str(data).expect("JSON");
        if faults.snapshot_wrong {
            data["bids"][0][1] = json!("77");
        }
        let covers = covers + faults.covers_more;
        Some((covers, framed(name, covers, true, &data.to_string())))
    }

    /// The snapshot and what follows it.
    fn begin(&self, name: &str, faults: BookFaults) -> Vec<String> {
        let Some((covers, text)) = self.snapshot_text(name, faults) else { return Vec::new() };
        let rest = self.log.iter().enumerate().skip(covers as usize);
        let rest = rest.map(|(at, (_, data))| framed(name, at as u64 + 1, false, data));
        std::iter::once(text).chain(rest).collect()
    }

    /// What a subscriber is told that was at `from`, and can't have what it missed.
    fn catch_up(&self, name: &str, from: u64, faults: BookFaults) -> Vec<String> {
        let seq = self.log.len() as u64;
        let gap = |to: u64| {
            word("gap", &json!({"topic":name,"from":from + 1,"to":to,"reason":"history"}))
        };
        match self.snapshot_text(name, faults) {
            // From a snapshot of before, only what the client has would be repeated.
            Some((covers, _)) if covers > from => {
                let mut texts = vec![gap(covers)];
                texts.extend(self.begin(name, faults));
                texts
            }
            _ => {
                // Of values the last one stands for those before it.
                let first = if name.ends_with("bookTicker") {
                    from.max(seq.saturating_sub(1))
                } else {
                    from
                };
                let rest = self.log.iter().enumerate().skip(first.min(seq) as usize);
                rest.map(|(at, (_, data))| framed(name, at as u64 + 1, false, data)).collect()
            }
        }
    }
}
