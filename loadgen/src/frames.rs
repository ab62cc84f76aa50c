//! Bytes of one connection, cut anywhere, into messages and control frames.
//!
//! Knows: frames from a server. Must not know: what messages mean, sockets, time.
//!
//! Frames that lie whole in the receive buffer are handed on where they lie; only a frame cut by
//! the buffer's end is copied, to `partial`.

use thiserror::Error;
use uringcast_protocol::{Header, Opcode, PeerError};

use crate::inflate::InflateError;

/// One thing that a server said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// Close, with its status if it had one.
    Close(Option<u16>),
    /// A whole message whose payload is compressed.
    Deflated(&'a [u8]),
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
    /// A compressed message that can't be inflated.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// RFC 6455 section 5.1: a server must not mask.
    #[error("a masked frame from the server")]
    Masked,
    /// Refused in the header.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// No extension was negotiated that would give RSV1 a meaning.
    #[error("RSV1 without an extension")]
    Reserved,
    /// RFC 7692 section 6.1: RSV1 stands on the first frame of a message and nowhere else.
    #[error("RSV1 on a frame that begins no message")]
    ReservedMisplaced,
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
    /// permessage-deflate was agreed on: RSV1 says that a message is compressed.
    deflate: bool,
}

#[derive(Debug, Default)]
struct Fragments {
    text: bool,
    deflated: bool,
    payload: Vec<u8>,
}

impl Frames {
    /// From now on messages may be compressed.
    pub(crate) fn allow_deflate(&mut self) {
        self.deflate = true;
    }

    /// Whether they may be.
    pub(crate) fn allows_deflate(&self) -> bool {
        self.deflate
    }

    /// Takes all of `input`; calls `visit` for whatever has become complete, until that has an error
    /// of its own.
    ///
    /// # Errors
    /// [`FrameError`]; the connection is of no use after it.
    #[inline]
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        mut visit: impl FnMut(Frame<'_>) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        if !self.partial.is_empty() {
            self.complete_partial(&mut input, &mut visit)?;
        }
        while let Some((header, header_bytes)) = Header::decode(input)? {
            let frame_bytes = header_bytes + self.payload_bytes(&header)?;
            let Some(frame) = input.get(header_bytes..frame_bytes) else {
                break;
            };
            let is_whole = header.fin && !header.rsv1 && !header.opcode.is_control();
            if is_whole && self.fragments.is_none() {
                let text = header.opcode == Opcode::Text;
                if header.opcode == Opcode::Continuation {
                    return Err(FrameError::ContinuationUnexpected);
                }
                visit(Frame::Message { text, payload: frame })?;
            } else {
                self.unusual(header, frame, &mut visit)?;
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
        visit: &mut impl FnMut(Frame<'_>) -> Result<(), FrameError>,
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
        let frame_bytes = header_bytes + self.payload_bytes(&header)?;
        let missing = frame_bytes - self.partial.len();
        let (taken, rest) = input.split_at(missing.min(input.len()));
        if self.partial.capacity() < frame_bytes {
            self.partial.reserve_exact(missing);
        }
        self.partial.extend_from_slice(taken);
        *input = rest;
        if self.partial.len() == frame_bytes {
            let mut whole = std::mem::take(&mut self.partial);
            self.unusual(header, &whole[header_bytes..], visit)?;
            whole.clear();
            if whole.capacity() <= PARTIAL_BYTES_KEPT {
                self.partial = whole;
            }
        }
        Ok(())
    }

    /// By value: a header that is borrowed lies in memory, for every frame, and what is written there
    /// byte by byte and read as a whole makes the processor wait.
    fn unusual(
        &mut self,
        header: Header,
        frame: &[u8],
        visit: &mut impl FnMut(Frame<'_>) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        match (header.opcode, &mut self.fragments) {
            (Opcode::Close, _) => {
                visit(Frame::Close(frame.first_chunk().copied().map(u16::from_be_bytes)))?;
            }
            (Opcode::Ping, _) => visit(Frame::Ping(frame))?,
            (Opcode::Pong, _) => visit(Frame::Pong)?,
            (Opcode::Continuation, None) => return Err(FrameError::ContinuationUnexpected),
            (Opcode::Continuation, Some(fragments)) => {
                if fragments.payload.len() + frame.len() > MESSAGE_BYTES_MAX {
                    return Err(FrameError::TooBig);
                }
                fragments.payload.extend_from_slice(frame);
                if header.fin
                    && let Some(whole) = self.fragments.take()
                {
                    visit(message(whole.text, whole.deflated, &whole.payload))?;
                }
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(FrameError::ContinuationExpected);
            }
            (Opcode::Text | Opcode::Binary, None) => {
                let text = header.opcode == Opcode::Text;
                if header.fin {
                    visit(message(text, header.rsv1, frame))?;
                } else {
                    let (deflated, payload) = (header.rsv1, frame.to_vec());
                    self.fragments = Some(Box::new(Fragments { text, deflated, payload }));
                }
            }
        }
        Ok(())
    }

    /// The payload's length, if the frame is one that a server may send.
    #[inline]
    fn payload_bytes(&self, header: &Header) -> Result<usize, FrameError> {
        if header.mask.is_some() {
            return Err(FrameError::Masked);
        }
        if header.rsv1 {
            self.check_deflated(header.opcode)?;
        }
        match usize::try_from(header.payload_bytes) {
            Ok(bytes) if bytes <= MESSAGE_BYTES_MAX => Ok(bytes),
            _ => Err(FrameError::TooBig),
        }
    }

    /// RSV1 is set: whether it may be.
    fn check_deflated(&self, opcode: Opcode) -> Result<(), FrameError> {
        if !self.deflate {
            return Err(FrameError::Reserved);
        }
        match opcode {
            Opcode::Text | Opcode::Binary => Ok(()),
            Opcode::Close | Opcode::Continuation | Opcode::Ping | Opcode::Pong => {
                Err(FrameError::ReservedMisplaced)
            }
        }
    }
}

fn message(text: bool, deflated: bool, payload: &[u8]) -> Frame<'_> {
    if deflated { Frame::Deflated(payload) } else { Frame::Message { text, payload } }
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
        let fed = frames.feed(input, |frame| {
            into.push(format!("{frame:?}"));
            Ok(())
        });
        fed.expect("legal frames");
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

    /// A frame with RSV1.
    fn compressed(out: &mut Vec<u8>, opcode: Opcode, fin: bool, payload: &[u8]) {
        let start = out.len();
        write_frame(out, opcode, fin, payload, None);
        out[start] |= 0x40;
    }

    #[test]
    fn compressed_messages_are_told_apart_at_every_split() {
        let mut bytes = Vec::new();
        compressed(&mut bytes, Opcode::Text, true, &[1; 20]);
        write_message(&mut bytes, Opcode::Text, b"plain", None);
        compressed(&mut bytes, Opcode::Binary, false, &[2; 130]);
        write_ping(&mut bytes, b"", None);
        write_frame(&mut bytes, Opcode::Continuation, true, &[3; 2], None);
        write_frame(&mut bytes, Opcode::Text, false, b"pl", None);
        write_frame(&mut bytes, Opcode::Continuation, true, b"ain", None);
        for cut in 0..=bytes.len() {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            frames.allow_deflate();
            collect(&mut frames, &bytes[..cut], &mut got);
            collect(&mut frames, &bytes[cut..], &mut got);
            let whole = [&[2; 130][..], &[3; 2]].concat();
            let plain = Frame::Message { text: true, payload: b"plain" };
            let expected = [
                Frame::Deflated(&[1; 20]),
                plain,
                Frame::Ping(b""),
                Frame::Deflated(&whole),
                Frame::Message { text: true, payload: b"plain" },
            ];
            assert_eq!(got, expected.map(|frame| format!("{frame:?}")), "cut at {cut}");
        }
    }

    #[test]
    fn rsv1_stands_on_the_first_frame_of_a_message_only() {
        let refused = |bytes: &[u8]| {
            let mut frames = Frames::default();
            frames.allow_deflate();
            frames.feed(bytes, |_| Ok(())).expect_err("refused")
        };
        for bytes in [&[0x01, 0x00, 0xC0, 0x00][..], &[0xC8, 0x00], &[0xC9, 0x00], &[0xCA, 0x00]] {
            assert!(matches!(refused(bytes), FrameError::ReservedMisplaced), "{bytes:02x?}");
        }
        // The next life of a connection begins without.
        let mut frames = Frames::default();
        frames.allow_deflate();
        frames.clear();
        let error = frames.feed(&[0xC1, 0x00], |_| Ok(())).expect_err("refused");
        assert!(matches!(error, FrameError::Reserved));
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_however_they_are_cut(
            bytes in proptest::collection::vec(prop_oneof![
                Just(0x81u8), Just(0x82), Just(0xC1), Just(0x01), Just(0x80), Just(0x00), Just(0x89), 0u8..20, any::<u8>(),
            ], 0..200),
            cut: proptest::sample::Index,
            deflate: bool,
        ) {
            let feed = |parts: &[&[u8]]| {
                let (mut got, mut error) = (Vec::new(), None);
                let mut frames = Frames { deflate, ..Frames::default() };
                for part in parts {
                    if error.is_none() {
                        let fed = frames.feed(part, |frame| {
                            got.push(format!("{frame:?}"));
                            Ok(())
                        });
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
        let refused =
            |bytes: &[u8]| Frames::default().feed(bytes, |_| Ok(())).expect_err("refused");
        assert!(matches!(refused(&masked), FrameError::Masked));
        assert!(matches!(refused(&[0xC1, 0x00]), FrameError::Reserved));
        assert!(matches!(refused(&[0x80, 0x00]), FrameError::ContinuationUnexpected));
        assert!(matches!(refused(&[0x01, 0x00, 0x81, 0x00]), FrameError::ContinuationExpected));
        let huge = [0x82, 127, 0, 0, 0, 0, 0x10, 0, 0, 0];
        assert!(matches!(refused(&huge), FrameError::TooBig));
    }
}
