//! One connection of a thread, from its upgrade to its end.
//!
//! Knows: its state, what it has yet to send, frames cut by a receive. Must not know: the ring,
//! other connections, what messages mean.

use uringcast_protocol::client_handshake::{ResponseError, encode_key, parse_answer};
use uringcast_protocol::deflate::Offer;

use crate::frames::Frames;
use crate::layers::Layers;
use crate::plan::{Group, Role};

/// Where a connection is in its life.
#[derive(Debug)]
pub(crate) enum State {
    /// Not begun, or to be begun again.
    Waiting,
    /// The upgrade has been sent; what has come of its answer.
    Handshaking { head: Vec<u8> },
    /// Frames may flow.
    Open,
    /// We have sent a close.
    Leaving,
    /// Over, for good.
    Ended,
}

/// One connection; it has one slot of the ring's table for all its lives.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) role: Role,
    pub(crate) group: u16,
    pub(crate) state: State,
    /// Which of its lives this is: counts the uses of its slot.
    pub(crate) generation: u32,
    /// A receive is armed.
    pub(crate) receiving: bool,
    /// A send is in flight.
    pub(crate) sending: bool,
    /// Output that waits for the send in flight.
    pub(crate) pending: Vec<u8>,
    pub(crate) frames: Frames,
    /// When the connection was begun, ns.
    pub(crate) begun_ns: u64,
    /// From when on it has been silent, ns.
    heard_ns: u64,
    /// The longest that it was, ns.
    silence_ns: u64,
    /// The upgrade is in the kernel.
    asked: bool,
    /// The status of the close that the server sent.
    pub(crate) close_code: Option<u16>,
    /// And we have answered it.
    pub(crate) answered: bool,
    /// TLS or HTTP, if it is not a plain WebSocket.
    pub(crate) layers: Option<Box<Layers>>,
}

impl Client {
    pub(crate) fn new(role: Role, group: u16) -> Self {
        Self {
            role,
            group,
            state: State::Waiting,
            generation: 0,
            receiving: false,
            sending: false,
            pending: Vec::new(),
            frames: Frames::default(),
            begun_ns: 0,
            heard_ns: 0,
            silence_ns: 0,
            asked: false,
            close_code: None,
            answered: false,
            layers: None,
        }
    }

    /// A new life of the connection with this number begins: returns the upgrade request, or nothing
    /// where publications are posted.
    pub(crate) fn begin(
        &mut self,
        group: &Group,
        number: u32,
        nonce: [u8; 16],
        deflate: bool,
        now_ns: u64,
    ) -> Vec<u8> {
        self.state = State::Handshaking { head: Vec::new() };
        self.receiving = false;
        self.sending = false;
        self.pending = Vec::new();
        self.frames.clear();
        self.begun_ns = now_ns;
        self.asked = false;
        self.close_code = None;
        self.answered = false;
        let mut request = Vec::new();
        if !group.dial.posts {
            request.reserve(256);
            let key = encode_key(nonce);
            let offer = self.offer(deflate).map(|offer| offer.to_string());
            group.dial.write_upgrade(group, number, &key, offer.as_deref(), &mut request);
        }
        request
    }

    /// Takes a piece of the answer to the upgrade; when it is complete and right, returns what
    /// came after it.
    ///
    /// # Errors
    /// The answer is no upgrade.
    pub(crate) fn answer(
        &mut self,
        bytes: &[u8],
        nonce: [u8; 16],
        deflate: bool,
        protocols: &[&str],
    ) -> Result<Option<Vec<u8>>, ResponseError> {
        let offer = self.offer(deflate);
        let State::Handshaking { head } = &mut self.state else { return Ok(None) };
        head.extend_from_slice(bytes);
        let Some(answer) = parse_answer(head, &encode_key(nonce), protocols, offer.as_ref())?
        else {
            return Ok(None);
        };
        let rest = head[answer.head_bytes..].to_vec();
        if answer.deflate.is_some() {
            self.frames.allow_deflate();
        }
        self.state = State::Open;
        Ok(Some(rest))
    }

    /// A send has ended: whether it was the first of this life, so that the TCP connection stands.
    pub(crate) fn connected(&mut self) -> bool {
        !std::mem::replace(&mut self.asked, true)
    }

    /// A message has come.
    #[inline]
    pub(crate) fn heard(&mut self, now_ns: u64) {
        self.silence_ns = self.silence_ns.max(now_ns.saturating_sub(self.heard_ns));
        self.heard_ns = now_ns.max(self.heard_ns);
    }

    /// From now on it should not be silent.
    pub(crate) fn listen(&mut self, from_ns: u64) {
        self.heard_ns = from_ns;
        self.silence_ns = 0;
    }

    /// The longest time without a message, until `end_ns`.
    pub(crate) fn silence_ns(&self, end_ns: u64) -> u64 {
        self.silence_ns.max(end_ns.saturating_sub(self.heard_ns))
    }

    /// What goes over the wire for `plain`.
    #[inline]
    pub(crate) fn seal(&mut self, plain: Vec<u8>) -> Vec<u8> {
        match &mut self.layers {
            None => plain,
            Some(layers) => layers.seal(plain),
        }
    }

    /// What is offered, if `deflate` shall be. Compression is for what comes from the server, and
    /// publishers send.
    pub(crate) fn offer(&self, deflate: bool) -> Option<Offer> {
        (deflate && !matches!(self.role, Role::Publisher(_))).then_some(OFFER)
    }

    /// A subscriber whose deliveries are checked.
    pub(crate) fn is_checked(&self) -> bool {
        matches!(self.role, Role::Subscriber { .. } | Role::Slow)
    }

    /// A subscriber that stays from beginning to end.
    pub(crate) fn is_steady(&self) -> bool {
        matches!(self.role, Role::Subscriber { churns: false } | Role::Slow)
    }

    /// A subscriber that comes and goes.
    pub(crate) fn churns(&self) -> bool {
        self.role == Role::Subscriber { churns: true }
    }
}

/// Both sides without context takeover: the server's, because one inflater serves all connections;
/// ours, because nothing that is compressed is sent.
const OFFER: Offer = Offer {
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    server_max_window_bits: None,
    client_max_window_bits: None,
};

/// The handshake's nonce: different for each life of each connection, and not kept.
pub(crate) fn nonce(seed: u64, number: u32, generation: u32) -> [u8; 16] {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&seed.to_le_bytes());
    nonce[8..12].copy_from_slice(&number.to_le_bytes());
    nonce[12..].copy_from_slice(&generation.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_takes_little_memory() {
        assert!(size_of::<Client>() <= 192, "{} bytes", size_of::<Client>());
    }

    #[test]
    fn silence_is_the_longest_time_without_a_message() {
        let mut client = Client::new(Role::Idle, 0);
        client.heard(5);
        client.listen(1000);
        assert_eq!(client.silence_ns(1500), 500);
        client.heard(1100);
        client.heard(1700);
        client.heard(1800);
        assert_eq!(client.silence_ns(1900), 600);
        assert_eq!(client.silence_ns(2900), 1100);
        // Publishing had ended before the last message came.
        assert_eq!(client.silence_ns(1750), 600);
    }

    #[test]
    fn no_two_lives_share_a_nonce() {
        let nonces = [nonce(1, 0, 0), nonce(1, 0, 1), nonce(1, 1, 0), nonce(2, 0, 0)];
        let different: std::collections::HashSet<_> = nonces.iter().collect();
        assert_eq!(different.len(), nonces.len());
    }
}
