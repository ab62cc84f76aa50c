//! The floors, as the load generator sees them: what is published arrives at every subscriber, once
//! and in order, also at one that does not read for a while; and who connects is answered.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use uringcast_protocol::{
    Header, Opcode,
    client_handshake::{Ask, encode_key, parse_response, write_request},
    limits::HEADER_BYTES_MAX,
};

#[test]
fn plain_delivers() {
    delivers(env!("CARGO_BIN_EXE_floor_plain"));
}

#[test]
fn lane_delivers() {
    delivers(env!("CARGO_BIN_EXE_floor_lane"));
}

fn delivers(program: &str) {
    let server = Server::start(program);
    let mut readers: Vec<Client> = (0..3).map(|_| server.client("/raw/bench")).collect();
    let mut lazy = server.client("/");
    let mut leaver = server.client("/ws");
    let mut publisher = server.client("/publish/bench");

    // More than the kernel keeps for the one that does not read; beyond 125 bytes the header grows.
    let sizes = (0..MESSAGES).map(|n| if n % 2 == 0 { 100 } else { 6_000 });
    let mut expected = Vec::new();
    for (n, size) in sizes.enumerate() {
        let mut payload = format!("{n:08}").into_bytes();
        payload.resize(size, b'.');
        publisher.send(Opcode::Text, &payload);
        expected.push(payload);
        if n == MESSAGES / 2 {
            // With much on its way to it.
            leaver.send(Opcode::Close, &[0x03, 0xE8]);
        }
        // So that the readers' sockets do not fill up in this one thread.
        for reader in &mut readers {
            assert_eq!(reader.receive(), (Opcode::Text, expected[n].clone()));
        }
    }
    for payload in expected {
        assert_eq!(lazy.receive(), (Opcode::Text, payload));
    }

    // A newcomer gets what comes, not what was.
    let mut newcomer = server.client("/new");
    publisher.send(Opcode::Binary, b"last");
    for client in readers.iter_mut().chain([&mut lazy, &mut newcomer]) {
        assert_eq!(client.receive(), (Opcode::Binary, b"last".to_vec()));
    }
    publisher.close();
}

#[test]
fn accept_answers_and_holds() {
    let server = Server::start(env!("CARGO_BIN_EXE_floor_accept"));
    // One that sends no key, and one whose request comes in pieces.
    let mut keyless = server.connect();
    keyless.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    assert_eq!(keyless.read(&mut [0; 1]).expect("closed"), 0);
    let mut slow = server.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: AAAA").expect("sent");
    // Slots are given out again: more than there are at once.
    for _ in 0..3 {
        let mut clients: Vec<Client> = (0..40).map(|_| server.client("/ws")).collect();
        for client in &mut clients {
            client.send(Opcode::Ping, b"still there?");
            assert_eq!(client.receive(), (Opcode::Pong, b"still there?".to_vec()));
            client.close();
            assert_eq!(client.stream.read(&mut [0; 1]).expect("closed"), 0);
        }
    }
    slow.write_all(b"AAAAAAAAAAAAAAAAAA==\r\n\r\n").expect("sent");
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 101");
}

#[test]
fn accept_pings_whom_it_holds_however_it_waits() {
    for held in ["poll", "wait", "multishot"] {
        let flags = ["--ping-interval-ms", "200", "--held", held];
        let server = Server::start_with(env!("CARGO_BIN_EXE_floor_accept"), &flags);
        let mut silent = server.client("/ws");
        // Slots are given out again, whatever was armed.
        for _ in 0..2 {
            let mut clients: Vec<Client> = (0..20).map(|_| server.client("/ws")).collect();
            for client in &mut clients {
                for _ in 0..2 {
                    assert_eq!(client.receive(), (Opcode::Ping, Vec::new()), "{held}");
                    client.send(Opcode::Pong, b"");
                }
                client.close();
                assert_eq!(client.stream.read(&mut [0; 1]).expect("closed"), 0);
            }
        }
        assert_eq!(silent.receive(), (Opcode::Ping, Vec::new()));
    }
}

#[test]
fn a_refusal_is_answered() {
    let server = Server::start(env!("CARGO_BIN_EXE_floor_plain"));
    let mut stream = server.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered and closed");
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
}

/// Ends with the test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(program: &str) -> Self {
        Self::start_with(program, &[])
    }

    fn start_with(program: &str, flags: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(["--port", "0", "--connections-max", "64"])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the floor starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned))
            .expect("it says where it listens");
        Self { child, address: address.parse().expect("an address") }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_nodelay(true).expect("TCP");
        // A message that does not come fails the test instead of hanging it.
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
        stream
    }

    fn client(&self, path: &str) -> Client {
        let mut stream = self.connect();
        let key = encode_key([7; 16]);
        let mut request = Vec::new();
        let host = self.address.to_string();
        write_request(&mut request, &Ask { path, host: &host, key: &key, ..Ask::default() });
        stream.write_all(&request).expect("sent");
        let mut client = Client { stream, rest: Vec::new() };
        let head_bytes = loop {
            client.read();
            if let Some(answer) = parse_response(&client.rest, &key, &[]).expect("upgraded") {
                break answer;
            }
        };
        client.rest.drain(..head_bytes);
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; the test says so then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Client {
    fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        let key = [9, 8, 7, 6];
        let payload_bytes = payload.len() as u64;
        let header = Header { fin: true, rsv1: false, opcode, mask: Some(key), payload_bytes };
        let mut out = [0; HEADER_BYTES_MAX];
        let header_bytes = header.encode(&mut out);
        let mut frame = out[..header_bytes].to_vec();
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        self.stream.write_all(&frame).expect("sent");
    }

    fn receive(&mut self) -> (Opcode, Vec<u8>) {
        loop {
            if let Some((header, header_bytes)) = Header::decode(&self.rest).expect("a frame") {
                assert_eq!(header.mask, None);
                let end = header_bytes + header.payload_bytes as usize;
                if end <= self.rest.len() {
                    let payload = self.rest[header_bytes..end].to_vec();
                    self.rest.drain(..end);
                    return (header.opcode, payload);
                }
            }
            self.read();
        }
    }

    fn close(&mut self) {
        self.send(Opcode::Close, &[0x03, 0xE8]);
        loop {
            let (opcode, payload) = self.receive();
            if opcode == Opcode::Close {
                assert_eq!(payload, [0x03, 0xE8]);
                return;
            }
        }
    }

    fn read(&mut self) {
        let mut bytes = [0; 16 << 10];
        let count = self.stream.read(&mut bytes).expect("something comes");
        assert!(count > 0, "the server has closed");
        self.rest.extend_from_slice(&bytes[..count]);
    }
}

/// Three megabytes in all.
const MESSAGES: usize = 1_000;
