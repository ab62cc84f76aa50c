//! The least that receiving a stream of messages can cost: a multishot receive, a ring of buffers, and
//! the bytes thrown away.
//!
//! Knows: as much of WebSocket as it takes to be sent messages. Must not know: what is in them. What the
//! load generator needs for a message is compared with what this needs (`scripts/compare_clients.py`).

#![forbid(unsafe_code)]

use std::{
    error::Error,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use clap::Parser;
use uringcast_benches::clock::{monotonic_ns, thread_cpu_ns};
use uringcast_loadgen::bench::Sink;
use uringcast_ring::pin::pin_current_thread;

/// Receives what a server sends to subscribers, and throws it away.
#[derive(Debug, Parser)]
struct Flags {
    /// The server's port on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// Subscribers.
    #[arg(long, default_value_t = 200)]
    connections: u32,
    /// A message on the wire, bytes: to divide by.
    #[arg(long, default_value_t = 132)]
    message_bytes: u64,
    /// Not measured at the beginning, seconds.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Measured, seconds.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Keeps the thread on this CPU.
    #[arg(long)]
    cpu: Option<usize>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    if let Some(cpu) = flags.cpu {
        pin_current_thread(cpu)?;
    }
    let connect = |path: &str| -> Result<TcpStream, Box<dyn Error>> {
        let mut stream = TcpStream::connect(("127.0.0.1", flags.port))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(stream)
    };
    let sockets = (0..flags.connections).map(|_| connect("/raw/x").map(Into::into));
    let mut sink = Sink::new(sockets.collect::<Result<_, _>>()?)?;
    // The server begins with the first publication.
    let mut publisher = connect("/publish/x")?;
    publisher.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'x'])?;
    sink.run((flags.warmup * 1e9) as u64)?;
    let (cpu_ns, wall_ns) = (thread_cpu_ns(), monotonic_ns());
    let (bytes, receives) = sink.run((flags.duration * 1e9) as u64)?;
    let (cpu_ns, wall_ns) = (thread_cpu_ns() - cpu_ns, monotonic_ns() - wall_ns);
    let messages = bytes / flags.message_bytes;
    println!(
        r#"{{"messages":{messages},"receives":{receives},"cpu_ns":{cpu_ns},"wall_ns":{wall_ns},"ended":{}}}"#,
        sink.ended()
    );
    Ok(())
}
