//! What the servers of this package share: how they are started, and what they do with a message.
//!
//! Knows: arguments, one pinned thread, the table of last values. Must not know: WebSocket.

#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    env,
    io::{Error, ErrorKind, Result},
    net::SocketAddr,
};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};
use tokio::net::TcpListener;

/// Counts messages and keeps the last payload of each topic: the least that a server which hands
/// messages on must do with one, and enough that reading them is not optimised away.
///
/// No numbers, no history, no check that text is JSON, nobody to send it to: our server does all that.
#[derive(Debug)]
pub struct Table<P> {
    last: HashMap<Box<str>, P>,
    messages: u64,
}

impl<P> Default for Table<P> {
    fn default() -> Self {
        Self { last: HashMap::new(), messages: 0 }
    }
}

impl<P> Table<P> {
    /// A message has come in for this topic.
    pub fn take(&mut self, topic: &str, payload: P) {
        self.messages += 1;
        match self.last.get_mut(topic) {
            Some(last) => *last = payload,
            None => drop(self.last.insert(topic.into(), payload)),
        }
    }

    /// Messages so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }
}

impl Table<Vec<u8>> {
    /// The same where the payload is only lent.
    pub fn copy(&mut self, topic: &str, payload: &[u8]) {
        self.messages += 1;
        match self.last.get_mut(topic) {
            Some(last) => {
                last.clear();
                last.extend_from_slice(payload);
            }
            None => drop(self.last.insert(topic.into(), payload.to_vec())),
        }
    }
}

/// Runs a server of one thread, as `NAME --port PORT [--cpu CPU]` says: pinned, as many descriptors
/// as are allowed, one runtime.
///
/// # Errors
/// Wrong arguments, a port that is taken, or what the server ends with.
pub fn run<F: Future<Output = Result<()>>>(serve: impl FnOnce(TcpListener) -> F) -> Result<()> {
    let (port, cpu) = arguments()?;
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus)?;
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async move {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(4096)?;
        println!("listening on {address}");
        serve(listener).await
    })
}

fn arguments() -> Result<(u16, usize)> {
    let usage = || Error::new(ErrorKind::InvalidInput, "usage: --port PORT [--cpu CPU]");
    let (mut port, mut cpu) = (None, 0);
    let mut arguments = env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(usage)?;
        match name.as_str() {
            "--port" => port = Some(value.parse().map_err(|_| usage())?),
            "--cpu" => cpu = value.parse().map_err(|_| usage())?,
            _ => return Err(usage()),
        }
    }
    Ok((port.ok_or_else(usage)?, cpu))
}
