//! One connection's receiving side: bytes in, messages and control frames out.
//!
//! Knows: roles, limits, what of a frame is still to come. Must not know: sockets, the clock,
//! who gets the messages. The transitions are in [`crate::state`], the layouts in
//! [`crate::header`].

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::control::ControlPayload;
use crate::error::PeerError;
use crate::header::{FIN_BIT, Header, MASK_BIT, RSV1_BIT};
use crate::limits::HEADER_BYTES_MAX;
use crate::mask::mask_into;
use crate::opcode::{CloseCode, Opcode};
use crate::state::{Assembly, State, Step};
use crate::utf8::Utf8Checker;

/// Which side of the connection this is: the other one's frames are judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We opened the connection; the peer does not mask.
    Client,
    /// We accepted it; the peer masks.
    Server,
}

/// Where a message's bytes go: the caller's buffer, so that they are copied once.
pub trait Sink {
    /// A frame with so many bytes of payload begins; its bytes follow as they come in.
    fn expect(&mut self, frame_bytes: usize) {
        let _ = frame_bytes;
    }

    /// Makes the buffer longer by `bytes` and gives out that part, exactly so long.
    ///
    /// # Errors
    /// If there is no room; the connection is then closed with 1013.
    fn extend(&mut self, bytes: usize) -> Result<&mut [u8], SinkFull>;
}

/// A [`Sink`] has no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for the message")]
pub struct SinkFull;

impl Sink for Vec<u8> {
    fn expect(&mut self, frame_bytes: usize) {
        // What a header promises costs its sender nothing: reserve a bounded part of it.
        self.reserve(frame_bytes.min(RESERVE_BYTES_MAX));
    }

    #[inline]
    fn extend(&mut self, bytes: usize) -> Result<&mut [u8], SinkFull> {
        let start = self.len();
        self.resize(start + bytes, 0);
        Ok(&mut self[start..])
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// UTF-8, checked.
    Text,
    /// Any bytes.
    Binary,
}

/// What has come in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "events live on the stack for one step; a box would be an allocation per ping"
)]
pub enum Event {
    /// A message is complete: its bytes are in the sink. Take them and empty the sink before the
    /// next call.
    Message(MessageKind),
    /// A compressed message is complete: its bytes, still compressed, are in the sink, and of text
    /// nobody has checked that it is UTF-8. Only after [`Session::with_deflate`].
    Deflated(MessageKind),
    /// To be answered with a pong of the same payload.
    Ping(ControlPayload),
    /// An answer to a ping, or unsolicited.
    Pong(ControlPayload),
    /// The peer's close, with its code if it gave one, and its reason (UTF-8, checked). Nothing
    /// more is read.
    Close(Option<CloseCode>, ControlPayload),
}

/// One connection's receiving side; at most 64 bytes, and when [`Session::is_idle`] as good as a
/// new one.
#[derive(Debug)]
pub struct Session {
    /// Bytes of the unfinished message in all its frames so far, as their headers say; 0 between
    /// messages. 0 ≤ `message_bytes` ≤ `message_bytes_max`, or what that is for a compressed one.
    message_bytes: u64,
    message_bytes_max: u64,
    pending: Pending,
    utf8: Utf8Checker,
    role: Role,
    state: State,
    /// During a data frame: what the message is. Between frames: what is unfinished.
    assembly: Assembly,
    /// permessage-deflate was negotiated.
    deflate: bool,
}

/// What has begun and not ended.
#[derive(Debug)]
enum Pending {
    /// The first `have` bytes of a header, not yet all of it; 0: between frames.
    Header { bytes: [u8; HEADER_BYTES_MAX], have: u8 },
    /// A data frame of which `remaining` bytes are to come; `phase` is its place in the key.
    Data { remaining: u64, mask: Option<[u8; 4]>, phase: u8, fin: bool },
    /// A control frame cut by the end of the input: rare, so it may cost an allocation.
    Control(Box<Control>),
}

#[derive(Debug)]
struct Control {
    header: Header,
    /// Unmasked; shorter than `header.payload_bytes`.
    payload: ControlPayload,
}

impl Session {
    /// A session at its beginning. Messages of more than `message_bytes_max` bytes, over all
    /// their frames, are refused.
    pub const fn new(role: Role, message_bytes_max: u64) -> Self {
        Self {
            message_bytes: 0,
            message_bytes_max,
            pending: BETWEEN_FRAMES,
            utf8: Utf8Checker::new(),
            role,
            state: State::Open,
            assembly: Assembly::None,
            deflate: false,
        }
    }

    /// The same where permessage-deflate was negotiated: a message may be compressed, which its first
    /// frame says by RSV1 (RFC 7692 section 6). As it may grow by that, a compressed one is refused
    /// only beyond `message_bytes_max` and an eighth more; the bound of what it stands for is the
    /// caller's.
    #[must_use]
    pub const fn with_deflate(mut self) -> Self {
        self.deflate = true;
        self
    }

    /// Takes what it can from the front of `input` and gives back an event as soon as one is
    /// complete; `None`: the input is used up. Call it until then.
    ///
    /// Payloads of messages go unmasked into `sink`, text checked on the way; control frames
    /// between fragments come out at once. After the peer's close, or an error, all further input
    /// is taken and ignored (RFC 6455 section 5.5.1).
    ///
    /// # Errors
    /// The peer's first offence, as early as the bytes show it. Then close with
    /// [`PeerError::close_code`].
    pub fn receive<S: Sink>(
        &mut self,
        input: &mut &[u8],
        sink: &mut S,
    ) -> Result<Option<Event>, PeerError> {
        if !self.state.reads() {
            *input = &[];
            return Ok(None);
        }
        let outcome = match Lone::at(input, self.role).filter(|lone| self.takes_at_once(lone)) {
            Some(lone) => self.receive_lone(lone, input, sink),
            None => self.receive_frames(input, sink),
        };
        if outcome.is_err() {
            self.offended();
        }
        outcome
    }

    /// Notes an offence that only the caller can see, such as a compressed message that does not
    /// decompress: from now on it is as after an error of [`Session::receive`].
    pub fn offended(&mut self) {
        if let Some(next) = self.state.after(Step::Offend) {
            self.state = next;
        }
    }

    /// Notes that a close has been sent. A second one must not be: see [`State::sends`].
    pub fn close_sent(&mut self) {
        if let Some(next) = self.state.after(Step::SendClose) {
            self.state = next;
        }
    }

    /// How far the closing has come.
    #[inline]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Open, and nothing of a frame or message is pending: a new session would do as well.
    #[inline]
    pub const fn is_idle(&self) -> bool {
        matches!(self.state, State::Open)
            && matches!(self.assembly, Assembly::None)
            && matches!(self.pending, Pending::Header { have: 0, .. })
    }

    /// Whether this frame is the next thing to come and may be as long as it is.
    #[inline]
    fn takes_at_once(&self, lone: &Lone<'_>) -> bool {
        matches!(self.pending, Pending::Header { have: 0, .. })
            && self.assembly == Assembly::None
            && lone.payload.len() as u64 <= self.message_bytes_max
    }

    /// The frequent case: a message that is one frame, all of it in the input. Nothing of it is noted
    /// on the way, since nothing is left of it: its header stays in registers.
    #[inline]
    fn receive_lone<'i, S: Sink>(
        &self,
        lone: Lone<'i>,
        input: &mut &'i [u8],
        sink: &mut S,
    ) -> Result<Option<Event>, PeerError> {
        *input = lone.rest;
        sink.expect(lone.payload.len());
        let room = sink.extend(lone.payload.len()).map_err(|SinkFull| PeerError::SinkFull)?;
        match lone.key {
            Some(key) => {
                mask_into(lone.payload, room, key, 0);
            }
            None => room.copy_from_slice(lone.payload),
        }
        if lone.kind == MessageKind::Text {
            let mut utf8 = Utf8Checker::new();
            utf8.check(room).and_then(|()| utf8.finish()).map_err(|_| PeerError::InvalidUtf8)?;
        }
        Ok(Some(Event::Message(lone.kind)))
    }

    #[inline]
    fn receive_frames<S: Sink>(
        &mut self,
        input: &mut &[u8],
        sink: &mut S,
    ) -> Result<Option<Event>, PeerError> {
        loop {
            let header = match self.pending {
                Pending::Header { have: 0, .. } => self.header_whole(input)?,
                Pending::Header { .. } => self.header_resumed(input)?,
                Pending::Data { .. } => None,
                Pending::Control(_) => return self.control_resumed(input),
            };
            match header {
                Some(header) if header.opcode.is_control() => return self.control(header, input),
                Some(header) => self.begin_data(&header, sink)?,
                None => {}
            }
            if let Some(event) = self.data(input, sink)? {
                return Ok(Some(event));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// The frequent case: the header lies whole in the input.
    #[inline]
    fn header_whole(&mut self, input: &mut &[u8]) -> Result<Option<Header>, PeerError> {
        match Header::decode(input).map_err(|late| self.first_offence(input, late))? {
            Some((header, header_bytes)) => {
                self.judge(&header).map_err(|late| self.first_offence(input, late))?;
                *input = &input[header_bytes..];
                Ok(Some(header))
            }
            None => {
                // Less than a header, so it fits.
                let mut bytes = [0; HEADER_BYTES_MAX];
                bytes[..input.len()].copy_from_slice(input);
                self.judge_prefix(input)?;
                self.pending = Pending::Header { bytes, have: input.len() as u8 };
                *input = &[];
                Ok(None)
            }
        }
    }

    /// The rest of a header cut by the end of an earlier input, byte by byte.
    #[cold]
    fn header_resumed(&mut self, input: &mut &[u8]) -> Result<Option<Header>, PeerError> {
        while let Some((&byte, rest)) = input.split_first() {
            let Pending::Header { bytes, have } = &mut self.pending else {
                break;
            };
            // A header is complete with its 14th byte at the latest, so `have` is below 14 here.
            bytes[usize::from(*have)] = byte;
            *have += 1;
            *input = rest;
            let (bytes, have) = (*bytes, usize::from(*have));
            if let Some((header, _)) = Header::decode(&bytes[..have])? {
                self.judge(&header)?;
                self.pending = BETWEEN_FRAMES;
                return Ok(Some(header));
            }
            self.judge_prefix(&bytes[..have])?;
        }
        Ok(None)
    }

    /// What a header alone cannot say: whether this peer may send it.
    #[inline]
    fn judge(&self, header: &Header) -> Result<(), PeerError> {
        if header.rsv1 {
            self.judge_rsv1(header.opcode)?;
        }
        self.judge_masked(header.mask.is_some())
    }

    /// permessage-deflate, once negotiated, gives this bit a meaning on the first frame of a message
    /// and nowhere else (RFC 7692 section 6.1).
    #[cold]
    const fn judge_rsv1(&self, opcode: Opcode) -> Result<(), PeerError> {
        match opcode {
            Opcode::Text | Opcode::Binary if self.deflate => Ok(()),
            _ => Err(PeerError::ReservedBits),
        }
    }

    /// The same of a header's first bytes, so that an offence is not waited upon.
    #[cold]
    fn judge_prefix(&self, bytes: &[u8]) -> Result<(), PeerError> {
        if let Some(&first) = bytes.first()
            && let Some(opcode) = Opcode::from_bits(first & 0x0F)
        {
            if first & RSV1_BIT != 0 {
                self.judge_rsv1(opcode)?;
            }
            self.assembly.after(opcode, true)?;
        }
        bytes.get(1).map_or(Ok(()), |second| self.judge_masked(second & MASK_BIT != 0))
    }

    /// Of several offences in one header that which the earliest byte shows, so that it is the same
    /// in however many pieces the header comes; `found` if no byte before its end shows any.
    #[cold]
    fn first_offence(&self, input: &[u8], found: PeerError) -> PeerError {
        (1..=input.len().min(HEADER_BYTES_MAX))
            .map(|have| &input[..have])
            .find_map(|front| Header::decode(front).and_then(|_| self.judge_prefix(front)).err())
            .unwrap_or(found)
    }

    /// RFC 6455 section 5.1: clients mask, servers do not.
    #[inline]
    const fn judge_masked(&self, masked: bool) -> Result<(), PeerError> {
        match (self.role, masked) {
            (Role::Server, false) => Err(PeerError::Unmasked),
            (Role::Client, true) => Err(PeerError::Masked),
            (Role::Server, true) | (Role::Client, false) => Ok(()),
        }
    }

    #[inline]
    fn begin_data<S: Sink>(&mut self, header: &Header, sink: &mut S) -> Result<(), PeerError> {
        let (mut during, _) = self.assembly.after(header.opcode, header.fin)?;
        if header.rsv1 {
            during = during.deflated();
        }
        // A plain message's bytes are at most max; of a compressed one more is judged apart.
        if header.payload_bytes > self.message_bytes_max.saturating_sub(self.message_bytes) {
            self.judge_large(header, during)?;
        }
        self.message_bytes += header.payload_bytes;
        self.assembly = during;
        self.pending = Pending::Data {
            remaining: header.payload_bytes,
            mask: header.mask,
            phase: 0,
            fin: header.fin,
        };
        sink.expect(usize::try_from(header.payload_bytes).unwrap_or(usize::MAX));
        Ok(())
    }

    /// A frame that makes its message larger than a plain one may be.
    #[cold]
    const fn judge_large(&self, header: &Header, during: Assembly) -> Result<(), PeerError> {
        // `message_bytes` is at most this maximum, so neither the difference nor the sum can wrap.
        let bytes_max = deflated_bytes_max(self.message_bytes_max);
        if during.is_deflated() && header.payload_bytes <= bytes_max - self.message_bytes {
            return Ok(());
        }
        Err(PeerError::MessageTooBig)
    }

    /// Takes payload of the data frame under way, if one is; at the message's end, what it was.
    #[inline]
    fn data<S: Sink>(
        &mut self,
        input: &mut &[u8],
        sink: &mut S,
    ) -> Result<Option<Event>, PeerError> {
        let Pending::Data { remaining, mask, phase, fin } = &mut self.pending else {
            return Ok(None);
        };
        let here = usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len());
        let (payload, rest) = input.split_at(here);
        if here != 0 {
            let room = sink.extend(here).map_err(|SinkFull| PeerError::SinkFull)?;
            match mask {
                Some(key) => *phase = mask_into(payload, room, *key, usize::from(*phase)) as u8,
                None => room.copy_from_slice(payload),
            }
            if self.assembly == Assembly::Text {
                self.utf8.check(room).map_err(|_| PeerError::InvalidUtf8)?;
            }
        }
        *input = rest;
        *remaining -= here as u64;
        if *remaining != 0 {
            return Ok(None);
        }
        let fin = *fin;
        self.pending = BETWEEN_FRAMES;
        if !fin {
            return Ok(None);
        }
        let event = match self.assembly {
            Assembly::Text => {
                self.utf8.finish().map_err(|_| PeerError::InvalidUtf8)?;
                Event::Message(MessageKind::Text)
            }
            Assembly::None | Assembly::Binary => Event::Message(MessageKind::Binary),
            Assembly::DeflatedText => Event::Deflated(MessageKind::Text),
            Assembly::DeflatedBinary => Event::Deflated(MessageKind::Binary),
        };
        self.assembly = Assembly::None;
        self.message_bytes = 0;
        Ok(Some(event))
    }

    /// A control frame whose header has just been read.
    fn control(&mut self, header: Header, input: &mut &[u8]) -> Result<Option<Event>, PeerError> {
        let mut payload = ControlPayload::new();
        if payload.take(&header, input) {
            return self.control_complete(header.opcode, payload).map(Some);
        }
        self.pending = Pending::Control(Box::new(Control { header, payload }));
        Ok(None)
    }

    #[cold]
    fn control_resumed(&mut self, input: &mut &[u8]) -> Result<Option<Event>, PeerError> {
        let Pending::Control(control) = &mut self.pending else {
            return Ok(None);
        };
        if !control.payload.take(&control.header, input) {
            return Ok(None);
        }
        let (opcode, payload) = (control.header.opcode, control.payload.clone());
        self.pending = BETWEEN_FRAMES;
        self.control_complete(opcode, payload).map(Some)
    }

    fn control_complete(
        &mut self,
        opcode: Opcode,
        payload: ControlPayload,
    ) -> Result<Event, PeerError> {
        match opcode {
            Opcode::Ping => Ok(Event::Ping(payload)),
            Opcode::Pong => Ok(Event::Pong(payload)),
            // Only control frames come here, so this is close.
            _ => {
                let (code, reason) = payload.split_close()?;
                if let Some(next) = self.state.after(Step::ReceiveClose) {
                    self.state = next;
                }
                Ok(Event::Close(code, reason))
            }
        }
    }
}

/// A plain message in one frame with a payload of 1 to 65,535 bytes, as it lies in the input.
struct Lone<'i> {
    kind: MessageKind,
    key: Option<[u8; 4]>,
    payload: &'i [u8],
    rest: &'i [u8],
}

impl<'i> Lone<'i> {
    /// `None` where anything else is at the front of the input, or anything wrong, or not all of it.
    #[inline]
    fn at(input: &'i [u8], role: Role) -> Option<Self> {
        let [first, second, ref rest @ ..] = *input else { return None };
        let kind = match first {
            WHOLE_TEXT => MessageKind::Text,
            WHOLE_BINARY => MessageKind::Binary,
            _ => return None,
        };
        // RFC 6455 section 5.1: clients mask, servers do not.
        let (length, key_bytes) = match role {
            Role::Server => (second.checked_sub(MASK_BIT)?, 4),
            Role::Client => (second, 0),
        };
        let (payload_bytes, rest) = match length {
            1..=125 => (usize::from(length), rest),
            126 => {
                let (field, rest) = rest.split_first_chunk::<2>()?;
                match u16::from_be_bytes(*field) {
                    // Not in its shortest form.
                    0..=125 => return None,
                    middle => (usize::from(middle), rest),
                }
            }
            _ => return None,
        };
        let (key, rest) = rest.split_at_checked(key_bytes)?;
        let (payload, rest) = rest.split_at_checked(payload_bytes)?;
        Some(Self { kind, key: key.first_chunk().copied(), payload, rest })
    }
}

const WHOLE_TEXT: u8 = FIN_BIT | Opcode::Text.bits();
const WHOLE_BINARY: u8 = FIN_BIT | Opcode::Binary.bits();

/// What a message of so many bytes may be compressed: DEFLATE's fixed codes take 9 bits for the worst
/// of bytes, and blocks a few bytes each.
const fn deflated_bytes_max(message_bytes_max: u64) -> u64 {
    message_bytes_max.saturating_add(message_bytes_max / 8).saturating_add(64)
}

const BETWEEN_FRAMES: Pending = Pending::Header { bytes: [0; HEADER_BYTES_MAX], have: 0 };

/// The most that a frame's header alone makes a `Vec` reserve, bytes.
const RESERVE_BYTES_MAX: usize = 16 * 1024;

const _: () = assert!(size_of::<Session>() <= 64);
