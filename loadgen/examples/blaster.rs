//! How much can the load generator take? A server that does nothing but write.
//!
//! Usage: `blaster PORT CONNECTIONS [CHUNK_BYTES] [ROUNDS_PER_S]`, then on another processor
//! `loadgen fanout --url ws://127.0.0.1:PORT/raw/x --publish-url ws://127.0.0.1:PORT/publish/x
//! --subscribers CONNECTIONS --rate 1 --cpus 1`. When all have connected and the first publication
//! comes, every subscriber is sent the same stamped 128-byte messages, a chunk at a time, as fast
//! as it goes or so many times a second. The report's deliveries per second, and whether its own
//! thread was the limit, is the answer. Latencies in it mean little: a chunk's messages share one time.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use uringcast_loadgen::bench::messages;
use uringcast_protocol::handshake::{Switching, parse, write_switching};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default: usize| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (port, connections) = (number(9101), number(2000));
    let (chunk_bytes, rounds_per_s) = (number(64 * 1024), number(0));
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })?;
    let port = u16::try_from(port).map_err(std::io::Error::other)?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let mut subscribers = Vec::new();
    let mut publisher = None;
    while subscribers.len() < connections || publisher.is_none() {
        let (stream, _) = listener.accept()?;
        let (stream, path) = upgrade(stream)?;
        if path.starts_with("/publish") {
            publisher = Some(stream)
        } else {
            subscribers.push(stream)
        }
    }
    let Some(mut publisher) = publisher else { return Ok(()) };
    publisher.read_exact(&mut [0])?;
    println!("{} subscribers; writing chunks of {chunk_bytes} bytes", subscribers.len());
    let per_chunk = (chunk_bytes / FRAME_BYTES).max(1) as u64;
    let (begun_ns, mut sequence, mut round) = (now_ns(), 0, 0);
    while !subscribers.is_empty() {
        if let Some(offset_ns) = (round * 1_000_000_000_u64).checked_div(rounds_per_s as u64) {
            let left_ns = (begun_ns + offset_ns).saturating_sub(now_ns());
            std::thread::sleep(Duration::from_nanos(left_ns));
        }
        let chunk = messages(sequence, per_chunk, MESSAGE_BYTES);
        subscribers.retain_mut(|subscriber| subscriber.write_all(&chunk).is_ok());
        sequence += per_chunk;
        round += 1;
    }
    Ok(())
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn upgrade(mut stream: TcpStream) -> std::io::Result<(TcpStream, String)> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let bytes = stream.read(&mut buffer)?;
        head.extend_from_slice(&buffer[..bytes]);
        let refused = |_| std::io::Error::other("not an upgrade");
        if let Some(request) = parse(&head).map_err(refused)? {
            let mut answer = Vec::new();
            write_switching(&mut answer, &Switching::new(request.upgrade().map_err(refused)?.key));
            stream.write_all(&answer)?;
            return Ok((stream, request.path.to_string()));
        }
    }
}

const MESSAGE_BYTES: usize = 128;
const FRAME_BYTES: usize = MESSAGE_BYTES + 4;
