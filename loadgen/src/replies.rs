//! What is answered to words of a server's own protocol, such as its pings.
//!
//! Knows: words and their replies. Must not know: who asks, publications.

use std::borrow::Cow;
use std::sync::Arc;

use uringcast_protocol::Opcode;
use uringcast_protocol::writer::write_message;

/// Words, and what is replied to them.
pub(crate) type Pairs = Arc<[(Vec<u8>, Vec<u8>)]>;

/// One thread's.
#[derive(Debug)]
pub(crate) struct Replies {
    pairs: Pairs,
    /// Frames that the connection that is being fed has to send.
    due: Vec<u8>,
}

impl Replies {
    pub(crate) fn new(pairs: &Pairs) -> Self {
        Self { pairs: Arc::clone(pairs), due: Vec::new() }
    }

    /// A connection has been told something that is no publication.
    pub(crate) fn hear(&mut self, message: &[u8]) {
        for (word, reply) in self.pairs.iter() {
            if memchr::memmem::find(message, word).is_some() {
                let is_text = matches!(String::from_utf8_lossy(reply), Cow::Borrowed(_));
                let opcode = if is_text { Opcode::Text } else { Opcode::Binary };
                write_message(&mut self.due, opcode, reply, Some(MASK));
            }
        }
    }

    /// Moves what is to be sent to the end of `out`.
    pub(crate) fn take(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.due);
    }
}

/// The replies are ours, so no script chose them.
const MASK: [u8; 4] = [0x2B, 0x91, 0x4C, 0xE6];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_in_a_message_is_answered_once() {
        let pair = |word: &str, reply: &[u8]| (word.into(), reply.to_vec());
        let mut replies = Replies::new(&Arc::from([pair("PING", b"PONG"), pair("?", b"\xFF")]));
        let mut out = Vec::new();
        replies.hear(b"INFO");
        replies.take(&mut out);
        assert!(out.is_empty());
        replies.hear(b"? PING PING");
        replies.take(&mut out);
        let mut expected = Vec::new();
        write_message(&mut expected, Opcode::Text, b"PONG", Some(MASK));
        write_message(&mut expected, Opcode::Binary, b"\xFF", Some(MASK));
        assert_eq!(out, expected);
        replies.take(&mut out);
        assert_eq!(out, expected);
    }
}
