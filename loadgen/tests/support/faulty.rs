//! A fan-out server that does one thing wrong, and keeps book of it: what the report must say.
//!
//! Plain threads, one per connection, and a hub that writes to all subscribers. It reads stamps with a
//! reader of its own: a fault that the load generator makes twice must not hide itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};
use uringcast_protocol::handshake::{Switching, parse, write_switching};
use uringcast_protocol::writer::{write_close, write_message};
use uringcast_protocol::{CloseCode, Event, Opcode, Role, Session};

/// What it does wrong. One delivery in so many is hit, picked without a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// A bit is wrong, or the last byte is missing.
    Damage {
        one_in: u64,
    },
    /// Every so many-th publication is kept for 20 ms; those behind it are not.
    Delay {
        every: u64,
    },
    /// Delivered twice.
    Double {
        one_in: u64,
    },
    /// Not delivered.
    Lose {
        one_in: u64,
    },
    /// Each of the four above, and order, one in so many.
    Mixed {
        one_in: u64,
    },
    /// Delivered after the next one.
    Reorder {
        one_in: u64,
    },
    /// All deliveries wait for a second from this publication on (from 1), while publishers are read.
    StallDelivery {
        at: u64,
    },
    /// The publisher is not read for a second behind this publication.
    StallIntake {
        at: u64,
    },
}

/// What it did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// As they were read.
    pub(crate) publications: Vec<Publication>,
    /// Messages written, whatever they were.
    pub(crate) written: u64,
    pub(crate) damaged: u64,
    pub(crate) delayed: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    /// Never delivered as they were: connection, stream, number.
    pub(crate) lost: BTreeSet<(u64, u64, u64)>,
    /// Of each delivery that was right, how long it took at least, ns: from its intended time, and
    /// from its sending, until just before it was written.
    pub(crate) corrected_ns: Vec<u64>,
    pub(crate) uncorrected_ns: Vec<u64>,
    /// When the stall began and ended, ns.
    pub(crate) stall_ns: (u64, u64),
    /// Subscribers by the address that they came from.
    pub(crate) sources: BTreeMap<IpAddr, u32>,
}

/// What a publication's stamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) stream: u64,
    pub(crate) number: u64,
    pub(crate) intended_ns: u64,
    pub(crate) sent_ns: u64,
}

/// A running server; its threads end with the test's process.
pub(crate) struct FaultyServer {
    /// Where subscribers connect, at `/raw/…?n=<number>`.
    pub(crate) data: SocketAddr,
    /// Where publishers connect: their windows are small, so that they feel it when they are not read.
    pub(crate) publish: SocketAddr,
    hub: Sender<Word>,
}

enum Word {
    Join { stream: TcpStream, number: u64, answer: Vec<u8> },
    Leave { number: u64 },
    Publish { opcode: Opcode, payload: Vec<u8> },
    Stalled { from_ns: u64, to_ns: u64 },
    Report(Sender<Book>),
}

impl FaultyServer {
    pub(crate) fn start(fault: Fault) -> Self {
        let (hub, words) = channel();
        let (data, publish) = (listener(None), listener(Some(PUBLISHER_BUFFER_BYTES)));
        let addresses = [&data, &publish].map(|listener| listener.local_addr().expect("bound"));
        for listener in [data, publish] {
            let hub = hub.clone();
            std::thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    let hub = hub.clone();
                    std::thread::spawn(move || serve(stream, &hub, fault));
                }
            });
        }
        std::thread::spawn(move || Hub::new(fault).run(&words));
        Self { data: addresses[0], publish: addresses[1], hub }
    }

    /// What it has done up to now.
    pub(crate) fn book(&self) -> Book {
        let (answer, book) = channel();
        self.hub.send(Word::Report(answer)).expect("the hub lives");
        book.recv().expect("the hub lives")
    }
}

fn listener(buffer_bytes: Option<usize>) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    if let Some(bytes) = buffer_bytes {
        socket.set_recv_buffer_size(bytes).expect("a socket");
        // Else a single segment would be more than that.
        socket.set_tcp_mss(PUBLISHER_SEGMENT_BYTES).expect("a socket");
    }
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket.listen(128).expect("a bound socket");
    socket.into()
}

fn serve(mut stream: TcpStream, hub: &Sender<Word>, fault: Fault) {
    stream.set_nodelay(true).expect("a socket");
    let (mut head, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    let (number, answer, mut input) = loop {
        let Ok(bytes @ 1..) = stream.read(&mut buffer) else { return };
        head.extend_from_slice(&buffer[..bytes]);
        if let Some(request) = parse(&head).expect("a legal request") {
            let mut answer = Vec::new();
            let key = request.upgrade().expect("an upgrade").key;
            write_switching(&mut answer, &Switching::new(key));
            let number = request.query().find(|(name, _)| name.as_ref() == "n");
            let number = number.map(|(_, value)| value.parse().expect("a number"));
            break (number, answer, head[request.head_bytes..].to_vec());
        }
    };
    if let Some(number) = number {
        let stream = stream.try_clone().expect("a descriptor");
        hub.send(Word::Join { stream, number, answer }).expect("the hub lives");
    } else {
        stream.write_all(&answer).expect("room for a head");
    }
    let mut session = Session::new(Role::Server, 1 << 20);
    let (mut message, mut published) = (Vec::new(), 0);
    loop {
        let mut left = input.as_slice();
        while let Some(event) = session.receive(&mut left, &mut message).expect("legal frames") {
            match event {
                Event::Message(kind) => {
                    let text = matches!(kind, uringcast_protocol::MessageKind::Text);
                    let opcode = if text { Opcode::Text } else { Opcode::Binary };
                    let payload = std::mem::take(&mut message);
                    hub.send(Word::Publish { opcode, payload }).expect("the hub lives");
                    published += 1;
                    if fault == (Fault::StallIntake { at: published }) {
                        let from_ns = now_ns();
                        std::thread::sleep(STALL);
                        let to_ns = now_ns();
                        hub.send(Word::Stalled { from_ns, to_ns }).expect("the hub lives");
                    }
                }
                Event::Close(..) => {
                    if let Some(number) = number {
                        hub.send(Word::Leave { number }).expect("the hub lives");
                    }
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

struct Hub {
    fault: Fault,
    book: Book,
    subscribers: Vec<Subscriber>,
    /// What is kept, and until when.
    kept: VecDeque<(u64, Opcode, Vec<u8>)>,
    /// Deliveries begun, for picking.
    deliveries: u64,
}

struct Subscriber {
    stream: TcpStream,
    number: u64,
    /// To be delivered after the next one.
    held: Option<(Publication, Vec<u8>)>,
}

impl Hub {
    fn new(fault: Fault) -> Self {
        let (book, subscribers, kept) = (Book::default(), Vec::new(), VecDeque::new());
        Self { fault, book, subscribers, kept, deliveries: 0 }
    }

    fn run(mut self, words: &Receiver<Word>) {
        loop {
            let wait_ns =
                self.kept.front().map_or(u64::MAX, |(at_ns, ..)| at_ns.saturating_sub(now_ns()));
            match words.recv_timeout(Duration::from_nanos(wait_ns.min(1_000_000_000))) {
                Ok(word) => self.word(word),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while self.kept.front().is_some_and(|(at_ns, ..)| *at_ns <= now_ns()) {
                if let Some((_, opcode, payload)) = self.kept.pop_front() {
                    self.deliver(opcode, &payload);
                }
            }
        }
    }

    fn word(&mut self, word: Word) {
        match word {
            Word::Join { mut stream, number, answer } => {
                let peer = stream.peer_addr().expect("connected");
                *self.book.sources.entry(peer.ip()).or_default() += 1;
                stream.write_all(&answer).expect("room for a head");
                self.subscribers.push(Subscriber { stream, number, held: None });
            }
            Word::Leave { number } => {
                let place = self.subscribers.iter().position(|other| other.number == number);
                let left = self.subscribers.swap_remove(place.expect("it has joined"));
                if let Some((publication, _)) = left.held {
                    // Nothing came after which it could have been delivered.
                    self.book.reordered -= 1;
                    self.book.lost.insert((number, publication.stream, publication.number));
                }
            }
            Word::Publish { opcode, payload } => {
                let publication = Publication::read(&payload);
                self.book.publications.push(publication);
                let count = self.book.publications.len() as u64;
                match self.fault {
                    Fault::Delay { every } if count.is_multiple_of(every) => {
                        self.book.delayed += 1;
                        self.kept.push_back((now_ns() + DELAY_NS, opcode, payload));
                        return;
                    }
                    Fault::StallDelivery { at } if at == count => {
                        let from_ns = now_ns();
                        std::thread::sleep(STALL);
                        self.book.stall_ns = (from_ns, now_ns());
                    }
                    _ => {}
                }
                let is_behind = |(_, _, kept): &(u64, Opcode, Vec<u8>)| {
                    Publication::read(kept).stream == publication.stream
                };
                if self.kept.iter().any(is_behind) {
                    // A publisher that was late makes up for it: it must not overtake itself.
                    self.kept.push_back((now_ns(), opcode, payload));
                    return;
                }
                self.deliver(opcode, &payload);
            }
            Word::Stalled { from_ns, to_ns } => self.book.stall_ns = (from_ns, to_ns),
            Word::Report(answer) => answer.send(self.book.clone()).expect("who asks waits"),
        }
    }

    fn deliver(&mut self, opcode: Opcode, payload: &[u8]) {
        let publication = Publication::read(payload);
        for subscriber in &mut self.subscribers {
            self.deliveries += 1;
            let fault = pick(self.fault, self.deliveries);
            subscriber.deliver(publication, opcode, payload, fault, &mut self.book);
        }
    }
}

/// What is done wrong with this delivery.
fn pick(fault: Fault, delivery: u64) -> Fault {
    let chance = mix(delivery);
    match fault {
        Fault::Damage { one_in }
        | Fault::Double { one_in }
        | Fault::Lose { one_in }
        | Fault::Reorder { one_in }
            if chance.is_multiple_of(one_in) =>
        {
            fault
        }
        Fault::Mixed { one_in } => match chance % one_in {
            0 => Fault::Damage { one_in },
            1 => Fault::Double { one_in },
            2 => Fault::Lose { one_in },
            3 => Fault::Reorder { one_in },
            _ => Fault::None,
        },
        _ => Fault::None,
    }
}

impl Subscriber {
    fn deliver(
        &mut self,
        publication: Publication,
        opcode: Opcode,
        payload: &[u8],
        fault: Fault,
        book: &mut Book,
    ) {
        let place = (self.number, publication.stream, publication.number);
        let mut frame = Vec::new();
        write_message(&mut frame, opcode, payload, None);
        let mut is_right = true;
        match fault {
            Fault::Lose { .. } => {
                book.lost.insert(place);
                return;
            }
            // One at a time: what is behind a held one goes as it should.
            Fault::Reorder { .. } if self.held.is_none() => {
                book.reordered += 1;
                self.held = Some((publication, frame));
                return;
            }
            Fault::Damage { .. } => {
                frame.clear();
                let damaged = damage(payload, mix(book.written));
                write_message(&mut frame, opcode, &damaged, None);
                book.damaged += 1;
                book.lost.insert(place);
                is_right = false;
            }
            Fault::Double { .. } => {
                frame.extend_from_within(..);
                book.doubled += 1;
                book.written += 1;
            }
            _ => {}
        }
        // Only behind one of its own stream is it out of order, and a damaged one is none.
        let passes = |held: &mut (Publication, Vec<u8>)| held.0.stream == publication.stream;
        if is_right && let Some((_, held)) = self.held.take_if(passes) {
            frame.extend_from_slice(&held);
            book.written += 1;
        }
        book.written += 1;
        if is_right {
            let at_ns = now_ns();
            book.corrected_ns.push(at_ns - publication.intended_ns);
            book.uncorrected_ns.push(at_ns - publication.sent_ns);
        }
        self.stream.write_all(&frame).expect("the load generator lives");
    }
}

/// One bit of any byte changed, or one byte less.
fn damage(payload: &[u8], chance: u64) -> Vec<u8> {
    let mut damaged = payload.to_vec();
    let at = (chance >> 8) as usize % payload.len();
    match chance % 8 {
        0 => drop(damaged.pop()),
        _ => damaged[at] ^= 1 << (chance % 7),
    }
    damaged
}

impl Publication {
    /// Reads what `loadgen/README.md` describes.
    fn read(payload: &[u8]) -> Self {
        let text = std::str::from_utf8(payload).expect("text");
        let digits = text.strip_prefix(r#"{"uc":""#).expect("a stamp");
        let halves = |from: usize| {
            let digits = digits[from..from + 8].bytes().rev();
            digits.fold(0, |value: u64, digit| value << 8 | u64::from(digit - b'@'))
        };
        let [place, intended, sent] = [0, 16, 32].map(|from| halves(from) | halves(from + 8) << 4);
        Self {
            stream: place >> 48,
            number: place & ((1 << 40) - 1),
            intended_ns: intended & ((1 << 60) - 1),
            sent_ns: sent & ((1 << 60) - 1),
        }
    }
}

/// Well stirred (splitmix64).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// How long a stall is.
const STALL: Duration = Duration::from_secs(1);
const DELAY_NS: u64 = 20_000_000;
const PUBLISHER_BUFFER_BYTES: usize = 32 * 1024;
const PUBLISHER_SEGMENT_BYTES: u32 = 4000;
