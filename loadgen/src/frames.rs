//! Bytes of one connection, cut anywhere, into messages and control frames.
//!
//! Knows: frames from a server. Must not know: what messages mean, sockets, time.
//!
//! Frames that lie whole in the receive buffer are handed on where they lie; only a frame cut by
//! the buffer's end is copied, to `partial`.

use thiserror::Error;
use uringcast_protocol::{Header, Opcode, PeerError};

/// One thing that a server said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// Close, with its status if it had one.
    Close(Option<u16>),
    /// A whole message.
    Message { text: bool, payload: &'a [u8] },
    /// To be answered with the same payload.
    Ping(&'a [u8]),
    /// An answer, or unasked.
    Pong,
}

/// What the server did wrong.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    /// A message began inside another.
    #[error("a new message inside a fragmented one")]
    ContinuationExpected,
    /// A continuation of nothing.
    #[error("a continuation of no message")]
    ContinuationUnexpected,
    /// RFC 6455 section 5.1: a server must not mask.
    #[error("a masked frame from the server")]
    Masked,
    /// Refused in the header.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// No extension was negotiated that would give RSV1 a meaning.
    #[error("RSV1 without an extension")]
    Reserved,
    /// Over [`MESSAGE_BYTES_MAX`].
    #[error("a message of more than {MESSAGE_BYTES_MAX} bytes")]
    TooBig,
}

/// What one connection keeps between two receives.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The beginning of a frame; empty between frames.
    partial: Vec<u8>,
    /// A fragmented message so far. Boxed: most connections never have one.
    fragments: Option<Box<Fragments>>,
}

#[derive(Debug, Default)]
struct Fragments {
    text: bool,
    payload: Vec<u8>,
}

impl Frames {
    /// Takes all of `input`; calls `visit` for whatever has become complete.
    ///
    /// # Errors
    /// [`FrameError`]; the connection is of no use after it.
    #[inline]
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        mut visit: impl FnMut(Frame<'_>),
    ) -> Result<(), FrameError> {
        if !self.partial.is_empty() {
            self.complete_partial(&mut input, &mut visit)?;
        }
        while let Some((header, header_bytes)) = Header::decode(input)? {
            let frame_bytes = header_bytes + payload_bytes(&header)?;
            let Some(frame) = input.get(header_bytes..frame_bytes) else {
                break;
            };
            if header.fin && self.fragments.is_none() && !header.opcode.is_control() {
                let text = header.opcode == Opcode::Text;
                if header.opcode == Opcode::Continuation {
                    return Err(FrameError::ContinuationUnexpected);
                }
                visit(Frame::Message { text, payload: frame });
            } else {
                self.unusual(&header, frame, &mut visit)?;
            }
            input = &input[frame_bytes..];
        }
        self.partial.extend_from_slice(input);
        Ok(())
    }

    /// Frees what an ended connection no longer needs.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn complete_partial(
        &mut self,
        input: &mut &[u8],
        visit: &mut impl FnMut(Frame<'_>),
    ) -> Result<(), FrameError> {
        let (header, header_bytes) = loop {
            if let Some(found) = Header::decode(&self.partial)? {
                break found;
            }
            let Some((first, rest)) = input.split_first() else {
                return Ok(());
            };
            self.partial.push(*first);
            *input = rest;
        };
        let frame_bytes = header_bytes + payload_bytes(&header)?;
        let missing = frame_bytes - self.partial.len();
        let (taken, rest) = input.split_at(missing.min(input.len()));
        if self.partial.capacity() < frame_bytes {
            self.partial.reserve_exact(missing);
        }
        self.partial.extend_from_slice(taken);
        *input = rest;
        if self.partial.len() == frame_bytes {
            let mut whole = std::mem::take(&mut self.partial);
            self.unusual(&header, &whole[header_bytes..], visit)?;
            whole.clear();
            if whole.capacity() <= PARTIAL_BYTES_KEPT {
                self.partial = whole;
            }
        }
        Ok(())
    }

    fn unusual(
        &mut self,
        header: &Header,
        frame: &[u8],
        visit: &mut impl FnMut(Frame<'_>),
    ) -> Result<(), FrameError> {
        match (header.opcode, &mut self.fragments) {
            (Opcode::Close, _) => {
                visit(Frame::Close(frame.first_chunk().copied().map(u16::from_be_bytes)));
            }
            (Opcode::Ping, _) => visit(Frame::Ping(frame)),
            (Opcode::Pong, _) => visit(Frame::Pong),
            (Opcode::Continuation, None) => return Err(FrameError::ContinuationUnexpected),
            (Opcode::Continuation, Some(fragments)) => {
                if fragments.payload.len() + frame.len() > MESSAGE_BYTES_MAX {
                    return Err(FrameError::TooBig);
                }
                fragments.payload.extend_from_slice(frame);
                if header.fin
                    && let Some(whole) = self.fragments.take()
                {
                    visit(Frame::Message { text: whole.text, payload: &whole.payload });
                }
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(FrameError::ContinuationExpected);
            }
            (Opcode::Text | Opcode::Binary, None) => {
                let text = header.opcode == Opcode::Text;
                if header.fin {
                    visit(Frame::Message { text, payload: frame });
                } else {
                    self.fragments = Some(Box::new(Fragments { text, payload: frame.to_vec() }));
                }
            }
        }
        Ok(())
    }
}

/// The payload's length, if the frame is one that a server may send.
#[inline]
fn payload_bytes(header: &Header) -> Result<usize, FrameError> {
    if header.mask.is_some() {
        return Err(FrameError::Masked);
    }
    if header.rsv1 {
        return Err(FrameError::Reserved);
    }
    match usize::try_from(header.payload_bytes) {
        Ok(bytes) if bytes <= MESSAGE_BYTES_MAX => Ok(bytes),
        _ => Err(FrameError::TooBig),
    }
}

/// The longest message taken from a server, bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// A partial frame's buffer is kept for the next one up to this size, bytes.
const PARTIAL_BYTES_KEPT: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uringcast_protocol::CloseCode;
    use uringcast_protocol::writer::{write_close, write_frame, write_message, write_ping};

    use super::*;

    fn collect(frames: &mut Frames, input: &[u8], into: &mut Vec<String>) {
        frames.feed(input, |frame| into.push(format!("{frame:?}"))).expect("legal frames");
    }

    #[test]
    fn every_split_gives_the_same_frames() {
        let mut bytes = Vec::new();
        write_message(&mut bytes, Opcode::Text, b"", None);
        write_message(&mut bytes, Opcode::Text, &[b'a'; 126], None);
        write_frame(&mut bytes, Opcode::Binary, false, &[1; 30], None);
        write_ping(&mut bytes, b"in between", None);
        write_frame(&mut bytes, Opcode::Continuation, false, &[2; 200], None);
        write_frame(&mut bytes, Opcode::Continuation, true, &[], None);
        write_message(&mut bytes, Opcode::Binary, &[9; 700], None);
        write_close(&mut bytes, Some(CloseCode::GOING_AWAY), "bye", None);
        let mut whole = Vec::new();
        collect(&mut Frames::default(), &bytes, &mut whole);
        assert_eq!(whole.len(), 6);
        assert_eq!(whole[5], "Close(Some(1001))");
        for first in 0..bytes.len() {
            for second in [first, first + 1, first + 15, bytes.len()] {
                let second = second.min(bytes.len());
                let mut frames = Frames::default();
                let mut got = Vec::new();
                for part in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                    collect(&mut frames, part, &mut got);
                }
                assert_eq!(got, whole, "split at {first} and {second}");
                assert!(frames.partial.is_empty() && frames.fragments.is_none());
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_however_they_are_cut(
            bytes in proptest::collection::vec(prop_oneof![
                Just(0x81u8), Just(0x82), Just(0x01), Just(0x80), Just(0x00), Just(0x89), 0u8..20, any::<u8>(),
            ], 0..200),
            cut: proptest::sample::Index,
        ) {
            let feed = |parts: &[&[u8]]| {
                let (mut frames, mut got, mut error) = (Frames::default(), Vec::new(), None);
                for part in parts {
                    if error.is_none() {
                        let fed = frames.feed(part, |frame| got.push(format!("{frame:?}")));
                        error = fed.err().map(|error| error.to_string());
                    }
                }
                (got, error)
            };
            let cut = cut.index(bytes.len() + 1);
            let (whole, parts) = (feed(&[&bytes]), feed(&[&bytes[..cut], &bytes[cut..]]));
            prop_assert_eq!(whole, parts);
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_refused() {
        let mut masked = Vec::new();
        write_message(&mut masked, Opcode::Text, b"x", Some([1, 2, 3, 4]));
        let refused = |bytes: &[u8]| Frames::default().feed(bytes, |_| ()).expect_err("refused");
        assert!(matches!(refused(&masked), FrameError::Masked));
        assert!(matches!(refused(&[0xC1, 0x00]), FrameError::Reserved));
        assert!(matches!(refused(&[0x80, 0x00]), FrameError::ContinuationUnexpected));
        assert!(matches!(refused(&[0x01, 0x00, 0x81, 0x00]), FrameError::ContinuationExpected));
        let huge = [0x82, 127, 0, 0, 0, 0, 0x10, 0, 0, 0];
        assert!(matches!(refused(&huge), FrameError::TooBig));
    }
}
