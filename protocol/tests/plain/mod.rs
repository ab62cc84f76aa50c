//! A second decoder of frames, to compare the first with: slow, over the whole input, rule after
//! rule in the order of RFC 6455 section 5.
//!
//! Knows: the RFCs. Must not know: anything of the crate it is to judge, not even its constants.

/// What is agreed on before the first frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreed {
    /// The frames are a client's, so they are masked; else a server's, and are not.
    pub(crate) masked: bool,
    /// permessage-deflate: the first frame of a message may have RSV1 (RFC 7692 section 6).
    pub(crate) deflate: bool,
    /// The longest message taken, over all its frames, bytes.
    pub(crate) message_bytes_max: usize,
    /// The same of a compressed one, as it comes.
    pub(crate) deflated_bytes_max: usize,
}

/// What was said, unmasked and put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A whole text message, UTF-8.
    Text(Vec<u8>),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// A whole compressed message, as it came; what it inflates to may not even be text.
    Deflated {
        /// It says that it is text.
        text: bool,
        /// Compressed.
        bytes: Vec<u8>,
    },
    /// A ping's payload.
    Ping(Vec<u8>),
    /// A pong's payload.
    Pong(Vec<u8>),
    /// A close: its code, if it had one, and its reason, UTF-8.
    Close(Option<u16>, Vec<u8>),
}

/// Why nothing more is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The input ends, between frames or inside one.
    Input,
    /// A close came.
    Closed,
    /// A rule is broken.
    Wrong(Wrong),
}

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The code that it is answered with.
    pub(crate) close_code: u16,
    /// The frame at fault is there to its end; otherwise its front alone shows the fault.
    pub(crate) frame_whole: bool,
    /// It is a length not in its shortest form, which some decoders take.
    pub(crate) length_not_minimal: bool,
    /// It is an extended length in a control frame: too long, or not in its shortest form.
    pub(crate) control_extended: bool,
}

/// Decodes all of `input`: what was said, and why that is all.
pub(crate) fn decode(input: &[u8], agreed: Agreed) -> (Vec<Said>, End) {
    let mut said = Vec::new();
    let mut unfinished = None;
    let mut at = 0;
    loop {
        match frame(&input[at..], agreed, &mut unfinished) {
            Ok(frame) => {
                at += frame.bytes;
                let closed = matches!(frame.said, Some(Said::Close(..)));
                said.extend(frame.said);
                if closed {
                    return (said, End::Closed);
                }
            }
            Err(Stop::Input) => return (said, End::Input),
            Err(Stop::Wrong(fault)) => {
                let frame_whole = frame_is_whole(&input[at..]);
                let wrong = Wrong {
                    close_code: fault.close_code(),
                    frame_whole,
                    length_not_minimal: fault == Fault::LengthNotMinimal,
                    control_extended: fault == Fault::ControlExtended,
                };
                return (said, End::Wrong(wrong));
            }
        }
    }
}

/// A message whose last frame has not come.
struct Unfinished {
    text: bool,
    deflated: bool,
    bytes: Vec<u8>,
}

struct Frame {
    /// Its length, header and payload.
    bytes: usize,
    /// What is complete with it.
    said: Option<Said>,
}

enum Stop {
    /// The input ends inside the frame, and nothing is wrong with what is there.
    Input,
    Wrong(Fault),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Protocol,
    ControlExtended,
    LengthNotMinimal,
    NotUtf8,
    TooBig,
}

impl Fault {
    /// RFC 6455 section 7.4.1.
    fn close_code(self) -> u16 {
        match self {
            Self::Protocol | Self::ControlExtended | Self::LengthNotMinimal => 1002,
            Self::NotUtf8 => 1007,
            Self::TooBig => 1009,
        }
    }
}

/// One frame at the front of `input`.
fn frame(input: &[u8], agreed: Agreed, unfinished: &mut Option<Unfinished>) -> Result<Frame, Stop> {
    let wrong = |fault| Err(Stop::Wrong(fault));
    let byte = |at: usize| input.get(at).copied().ok_or(Stop::Input);

    // FIN, RSV1-3, opcode.
    let first = byte(0)?;
    let (fin, rsv1, opcode) = (first & 0x80 != 0, first & 0x40 != 0, first & 0x0F);
    let control = opcode >= 8;
    if first & 0x30 != 0 || rsv1 && !(agreed.deflate && matches!(opcode, 1 | 2)) {
        return wrong(Fault::Protocol);
    }
    if !matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10) || control && !fin {
        return wrong(Fault::Protocol);
    }
    // Section 5.4: a continuation continues something, and nothing else comes before the end.
    if !control && (opcode == 0) != unfinished.is_some() {
        return wrong(Fault::Protocol);
    }

    // MASK, the length, the key.
    let second = byte(1)?;
    let masked = second & 0x80 != 0;
    if control && second & 0x7F > 125 {
        return wrong(Fault::ControlExtended);
    }
    if masked != agreed.masked {
        return wrong(Fault::Protocol);
    }
    let length_bytes = length_bytes(second);
    let length = length(second & 0x7F, &input[2..], length_bytes)?;
    let mut at = 2 + length_bytes;
    let mut key = [0; 4];
    if masked {
        for (offset, part) in key.iter_mut().enumerate() {
            *part = byte(at + offset)?;
        }
        at += 4;
    }
    let before = unfinished.as_ref().map_or(0, |message| message.bytes.len() as u64);
    let deflated = unfinished.as_ref().map_or(rsv1, |message| message.deflated);
    let most = if deflated { agreed.deflated_bytes_max } else { agreed.message_bytes_max };
    if !control && before + length > most as u64 {
        return wrong(Fault::TooBig);
    }

    // The payload, or what there is of it.
    let payload: Vec<u8> = input[at..]
        .iter()
        .zip(0..length)
        .map(|(byte, offset)| byte ^ key[(offset % 4) as usize])
        .collect();
    let whole = payload.len() as u64 == length;
    let bytes = at + payload.len();
    if control {
        let said = if whole { control_said(opcode, payload) } else { Err(Stop::Input) };
        return said.map(|said| Frame { bytes, said: Some(said) });
    }
    let message = unfinished.get_or_insert_with(|| Unfinished {
        text: opcode == 1,
        deflated: rsv1,
        bytes: Vec::new(),
    });
    message.bytes.extend(payload);
    let ends = whole && fin;
    // Section 8.1, as soon as it can be known: no bytes that come later make it right.
    if message.text && !message.deflated {
        match std::str::from_utf8(&message.bytes) {
            Err(error) if ends || error.error_len().is_some() => return wrong(Fault::NotUtf8),
            _ => {}
        }
    }
    if !whole {
        return Err(Stop::Input);
    }
    let said = if fin { unfinished.take().map(message_said) } else { None };
    Ok(Frame { bytes, said })
}

fn message_said(message: Unfinished) -> Said {
    match message {
        Unfinished { deflated: true, text, bytes } => Said::Deflated { text, bytes },
        Unfinished { text: true, bytes, .. } => Said::Text(bytes),
        Unfinished { text: false, bytes, .. } => Said::Binary(bytes),
    }
}

fn control_said(opcode: u8, payload: Vec<u8>) -> Result<Said, Stop> {
    match opcode {
        9 => Ok(Said::Ping(payload)),
        10 => Ok(Said::Pong(payload)),
        // Section 5.5.1.
        _ if payload.is_empty() => Ok(Said::Close(None, payload)),
        _ if payload.len() == 1 => Err(Stop::Wrong(Fault::Protocol)),
        _ => {
            let code = u16::from(payload[0]) * 256 + u16::from(payload[1]);
            // Section 7.4, and IANA's registry of close codes.
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(Stop::Wrong(Fault::Protocol));
            }
            if std::str::from_utf8(&payload[2..]).is_err() {
                return Err(Stop::Wrong(Fault::NotUtf8));
            }
            Ok(Said::Close(Some(code), payload[2..].to_vec()))
        }
    }
}

fn length_bytes(second: u8) -> usize {
    match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

/// The payload's length; `rest` begins behind the second byte.
fn length(short: u8, rest: &[u8], length_bytes: usize) -> Result<u64, Stop> {
    if length_bytes == 0 {
        return Ok(u64::from(short));
    }
    let there = &rest[..rest.len().min(length_bytes)];
    if length_bytes == 8 && there.first().is_some_and(|&first| first >= 0x80) {
        return Err(Stop::Wrong(Fault::Protocol));
    }
    // Whatever the bytes still to come are: the least and the most that they can make of it.
    let fill = |with: u8| {
        let all = there.iter().copied().chain(std::iter::repeat(with)).take(length_bytes);
        all.fold(0, |sum: u64, byte| sum << 8 | u64::from(byte))
    };
    let (least, most) = (fill(0x00), fill(0xFF));
    let too_small_max = if length_bytes == 2 { 125 } else { 0xFFFF };
    if most <= too_small_max {
        return Err(Stop::Wrong(Fault::LengthNotMinimal));
    }
    if there.len() == length_bytes { Ok(least) } else { Err(Stop::Input) }
}

/// Whether the frame is there to its end, by what its header says, right or wrong.
fn frame_is_whole(input: &[u8]) -> bool {
    let Some(&second) = input.get(1) else { return false };
    let length_bytes = length_bytes(second);
    let Some(field) = input.get(2..2 + length_bytes) else { return false };
    let length = match length_bytes {
        0 => u64::from(second & 0x7F),
        _ => field.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
    };
    let key_bytes = if second & 0x80 != 0 { 4 } else { 0 };
    input.len() as u64 >= length.saturating_add(2 + length_bytes as u64 + key_bytes)
}
