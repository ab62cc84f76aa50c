//! What a completion is of: 64 bits that the kernel carries for us.
//!
//! Knows: how kind, generation and index share the bits. Must not know: what they name.

use crate::io::{Operation, Token};

/// The first 8 bits of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Nobody waits for it: a cancellation that found nothing.
    Ignored = 1,
    /// One of a batch; index: into the batch; generation: the batch.
    Send,
    /// Index: listener in the high half, place of the accept in the low.
    Accept,
    PollReadable,
    PollWritable,
    Receive,
    Close,
    /// The poll of our own eventfd.
    Bell,
    /// A message from another ring. Its sender chose these bits for us.
    Wake,
    /// A message to another ring that did not go through; index: the peer.
    WakeFailed,
    /// The poll that comes before a receive by hand.
    ReceivePoll,
}

/// A decoded `user_data`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    pub(crate) kind: Kind,
    pub(crate) token: Token,
}

impl Tag {
    pub(crate) const fn new(kind: Kind, token: Token) -> Self {
        Self { kind, token }
    }

    pub(crate) const fn index(kind: Kind, index: u32) -> Self {
        Self { kind, token: Token { index, generation: 0 } }
    }

    pub(crate) const fn of(operation: Operation, token: Token) -> Self {
        let kind = match operation {
            Operation::PollReadable => Kind::PollReadable,
            Operation::PollWritable => Kind::PollWritable,
            Operation::Receive => Kind::Receive,
        };
        Self { kind, token }
    }

    pub(crate) const fn bits(self) -> u64 {
        (self.kind as u64) << 56
            | ((self.token.generation & GENERATION_MASK) as u64) << 32
            | self.token.index as u64
    }

    /// `None`: not one of ours.
    pub(crate) fn decode(bits: u64) -> Option<Self> {
        let kind = match (bits >> 56) as u8 {
            1 => Kind::Ignored,
            2 => Kind::Send,
            3 => Kind::Accept,
            4 => Kind::PollReadable,
            5 => Kind::PollWritable,
            6 => Kind::Receive,
            7 => Kind::Close,
            8 => Kind::Bell,
            9 => Kind::Wake,
            10 => Kind::WakeFailed,
            11 => Kind::ReceivePoll,
            _ => return None,
        };
        let generation = (bits >> 32) as u32 & GENERATION_MASK;
        Some(Self { kind, token: Token { index: bits as u32, generation } })
    }
}

/// Generations are carried in 24 bits.
pub(crate) const GENERATION_MASK: u32 = (1 << 24) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back() {
        for kind in [
            Kind::Ignored,
            Kind::Send,
            Kind::Accept,
            Kind::PollReadable,
            Kind::PollWritable,
            Kind::Receive,
            Kind::Close,
            Kind::Bell,
            Kind::Wake,
            Kind::WakeFailed,
            Kind::ReceivePoll,
        ] {
            let token = Token { index: 0xfedc_ba98, generation: 0xff12_3456 };
            let tag = Tag::decode(Tag::new(kind, token).bits()).expect("just encoded");
            assert_eq!(tag.kind, kind);
            assert_eq!(tag.token, Token { index: 0xfedc_ba98, generation: 0x12_3456 });
        }
        assert!(Tag::decode(0).is_none());
        assert!(Tag::decode(u64::MAX).is_none());
    }
}
