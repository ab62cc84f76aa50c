//! Connections whose bytes are not a WebSocket's as they come: over TLS, or requests of HTTP.
//!
//! Knows: the order of layers, when a publisher's connection is opened anew. Must not know: records,
//! HTTP's heads.

use std::os::fd::OwnedFd;

use super::{Worker, WorkerError};
use crate::client::State;
use crate::dial::Dial;
use crate::driver::{Chunk, SocketId, wait_connected};
use crate::layers::Layers;
use crate::plan::Role;
use crate::shared::Phase;

impl Worker {
    /// Bytes of a connection with layers have arrived.
    pub(super) fn receive_layered(
        &mut self,
        socket: SocketId,
        chunk: &Chunk,
        now: u64,
    ) -> Result<(), WorkerError> {
        let Some(layers) = &mut self.clients[socket.slot as usize].layers else { return Ok(()) };
        let posts = layers.answers.is_some();
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let opened = layers.open(self.ring.bytes(chunk), &mut plain);
        let taken = match &opened {
            Err(error) => self.end(socket, &reason(error)),
            Ok(_) if posts => self.take_answers(socket, &plain, now),
            Ok(_) => self.take(socket, &plain, now),
        };
        self.plain = plain;
        taken?;
        if opened == Ok(true) {
            return self.end(socket, "TLS ended without a close (1006)");
        }
        let client = &mut self.clients[socket.slot as usize];
        if !client.sending && client.layers.as_ref().is_some_and(|layers| layers.wants_seal()) {
            client.sending = true;
            let records = client.seal(Vec::new());
            self.ring.send(socket, records)?;
        }
        Ok(())
    }

    /// Answers to what a publisher has posted.
    fn take_answers(
        &mut self,
        socket: SocketId,
        bytes: &[u8],
        now: u64,
    ) -> Result<(), WorkerError> {
        let client = &self.clients[socket.slot as usize];
        let is_opening = matches!(client.state, State::Handshaking { .. });
        if is_opening && client.layers.as_ref().is_some_and(|layers| !layers.is_handshaking()) {
            self.opened_for_posts(socket, now)?;
        }
        let client = &mut self.clients[socket.slot as usize];
        let Role::Publisher(source) = client.role else { return Ok(()) };
        let Some(answers) = client.layers.as_mut().and_then(|layers| layers.answers.as_mut())
        else {
            return Ok(());
        };
        let (posts, source) = (&mut self.outcome.posts, &mut self.sources[usize::from(source)]);
        let mut closes = false;
        let fed = answers.feed(bytes, |answer| {
            *posts.by_status.entry(answer.status).or_default() += 1;
            source.answered();
            closes |= answer.closes;
        });
        self.publish_due_ns = self.publish_due_ns.min(now);
        match fed {
            Err(error) => {
                // Not to be tried again.
                client.layers = None;
                self.end(socket, &error.to_string())
            }
            Ok(()) if closes => self.end(socket, "the server ends it"),
            Ok(()) => self.rearm(socket),
        }
    }

    /// A connection to post over is ready: there is no upgrade.
    pub(super) fn opened_for_posts(
        &mut self,
        socket: SocketId,
        now: u64,
    ) -> Result<(), WorkerError> {
        self.clients[socket.slot as usize].state = State::Open;
        self.publish_due_ns = self.publish_due_ns.min(now);
        self.opened(socket, now)
    }

    /// Whether the end of this connection is none: servers end connections of HTTP after a time or a
    /// number of requests, and the next request opens one.
    pub(super) fn is_reopened(&self, index: u32) -> bool {
        let client = &self.clients[index as usize];
        let posts = client.layers.as_ref().is_some_and(|layers| layers.answers.is_some());
        posts && matches!(client.state, State::Open) && self.phase < Phase::Closing
    }

    /// A connection to post over waits for its next life.
    pub(super) fn reopen(&mut self, socket: SocketId) -> Result<(), WorkerError> {
        let client = &mut self.clients[socket.slot as usize];
        client.state = State::Waiting;
        client.layers = None;
        if let Role::Publisher(source) = client.role {
            self.outcome.posts.unanswered += self.sources[usize::from(source)].abandon();
        }
        self.open -= 1;
        self.outcome.posts.reopened += 1;
        if client.receiving {
            self.ring.receive_cancel(socket)?;
        }
        Ok(self.ring.close(socket)?)
    }
}

/// A new socket with what its connection needs: where nothing tells that it is connected, as the answer
/// to an upgrade or TLS does, it is waited for.
pub(super) fn prepare(fd: OwnedFd, dial: &Dial) -> Result<(OwnedFd, Option<Box<Layers>>), String> {
    if dial.posts && dial.tls.is_none() {
        wait_connected(&fd).map_err(|error| format!("connecting: {error}"))?;
    }
    let layers = Layers::new(dial).map_err(|error| error.to_string())?;
    Ok((fd, layers))
}

fn reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(_) => format!("{error} (see --ca and --insecure)"),
        _ => format!("TLS: {error}"),
    }
}
