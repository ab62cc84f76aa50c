//! A server that does nothing but write, in threads of its own: as little work as possible for each
//! message, so that receiving is the limit.
//!
//! Knows: blocking sockets, the phases of the run. Must not know: what receiving costs, reports.

use std::io::{Error, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use uringcast_protocol::Opcode;
use uringcast_protocol::handshake::{Switching, parse, write_switching};
use uringcast_protocol::writer::write_message;

use crate::clock::now_ns;
use crate::shared::{Phase, Shared};
use crate::stamp::{DIGITS_OFFSET, Stamp, template};
use crate::targets::Target;

/// One that listens.
pub(super) struct Blaster {
    listener: TcpListener,
    target: Target,
    payload_bytes: usize,
    coalesced: bool,
}

impl Blaster {
    /// On a free port.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn listen(payload_bytes: usize, coalesced: bool) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let url = format!("ws://{}/raw/selftest", listener.local_addr()?);
        let target = url.parse().map_err(Error::other)?;
        Ok(Self { listener, target, payload_bytes, coalesced })
    }

    /// Where to connect.
    pub(super) fn target(&self) -> Target {
        self.target.clone()
    }

    /// Reads what a publisher sends, and no more.
    pub(super) fn swallow(self) {
        let swallow = move || -> std::io::Result<()> {
            let (stream, _) = self.listener.accept()?;
            let mut stream = upgraded(stream)?;
            let mut buffer = [0; 64 * 1024];
            // A close need not be read as one: the end of the run does not wait long for its answer.
            while stream.read(&mut buffer)? > 0 {}
            Ok(())
        };
        std::thread::spawn(swallow);
    }

    /// Takes so many connections, and from the run's start to its end writes to them, in `threads`
    /// threads.
    pub(super) fn start(self, connections: u32, threads: u16, shared: &Arc<Shared>) {
        let shared = Arc::clone(shared);
        let serve = move || -> std::io::Result<()> {
            let streams = (0..connections).map(|_| upgraded(self.listener.accept()?.0));
            let mut streams = streams.collect::<std::io::Result<Vec<_>>>()?;
            while shared.phase() == Phase::Connecting {
                std::thread::sleep(Duration::from_millis(1));
            }
            let each = streams.len().div_ceil(usize::from(threads));
            let outstanding_max = if self.coalesced { u64::MAX } else { streams.len() as u64 };
            std::thread::scope(|scope| {
                for streams in streams.chunks_mut(each) {
                    let window = outstanding_max / u64::from(threads);
                    let (shared, blaster) = (&shared, &self);
                    scope.spawn(move || blaster.write(streams, shared, window, threads));
                }
            });
            // An end before the run's own would be a fault of the server.
            while shared.phase() < Phase::Closing {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        };
        std::thread::spawn(serve);
    }

    fn write(&self, streams: &mut [TcpStream], shared: &Shared, window: u64, threads: u16) {
        let per_chunk = match self.coalesced {
            true => (CHUNK_BYTES / (self.payload_bytes + 4)).max(1) as u64,
            false => 1,
        };
        let mut payload = template(self.payload_bytes);
        let mut chunk = Vec::with_capacity(2 * CHUNK_BYTES);
        let (mut number, mut written) = (0, 0);
        while shared.phase() == Phase::Running {
            let now = now_ns();
            chunk.clear();
            for number in number..number + per_chunk {
                let stamp = Stamp { stream: 0, number, intended_ns: now, sent_ns: now };
                stamp.write(&mut payload[DIGITS_OFFSET..]);
                write_message(&mut chunk, Opcode::Text, &payload, None);
            }
            number += per_chunk;
            for stream in &mut *streams {
                let received = || shared.sum(|progress| &progress.received) / u64::from(threads);
                // One by one: the next only when about so many others have been received.
                while window != u64::MAX
                    && written - received().min(written) > window
                    && shared.phase() == Phase::Running
                {
                    std::thread::yield_now();
                }
                written += per_chunk;
                if stream.write_all(&chunk).is_err() {
                    return;
                }
            }
        }
    }
}

fn upgraded(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let bytes = stream.read(&mut buffer)?;
        if bytes == 0 {
            return Err(Error::from(std::io::ErrorKind::UnexpectedEof));
        }
        head.extend_from_slice(&buffer[..bytes]);
        let refused = |_| Error::other("not an upgrade");
        if let Some(request) = parse(&head).map_err(refused)? {
            let mut answer = Vec::new();
            write_switching(&mut answer, &Switching::new(request.upgrade().map_err(refused)?.key));
            stream.write_all(&answer)?;
            return Ok(stream);
        }
    }
}

const CHUNK_BYTES: usize = 64 * 1024;
