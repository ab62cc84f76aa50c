//! A publisher's bytes, cut into frames.
//!
//! Knows: frames, wherever the reads have cut them. Must not know: who gets them. Fragments go on as
//! fragments; that a message is in order is not checked.

use uringcast_protocol::{Header, Opcode, PeerError, limits::HEADER_BYTES_MAX, mask::mask_into};

/// The beginning of a frame whose end has not come.
#[derive(Debug, Default)]
pub(crate) struct Inflow {
    rest: Vec<u8>,
}

/// Whether the publisher goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Open,
    /// It sent Close.
    Closed,
}

/// A payload as it came.
#[derive(Clone, Copy, Debug)]
pub struct Masked<'p> {
    bytes: &'p [u8],
    key: [u8; 4],
}

impl Masked<'_> {
    /// How long it is, bytes.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes it unmasked to where it belongs.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn unmask_into(&self, out: &mut [u8]) {
        mask_into(self.bytes, out, self.key, 0);
    }
}

impl Inflow {
    /// Calls `frame` with the header to send and the payload of each data frame that is complete.
    ///
    /// # Errors
    /// What the header breaks by itself; a frame that is not masked or longer than
    /// [`PAYLOAD_BYTES_MAX`].
    pub(crate) fn take(
        &mut self,
        data: &[u8],
        mut frame: impl FnMut(&[u8], Masked<'_>),
    ) -> Result<Flow, PeerError> {
        if self.rest.is_empty() {
            let (taken, flow) = frames(data, &mut frame)?;
            self.rest.extend_from_slice(&data[taken..]);
            return Ok(flow);
        }
        self.rest.extend_from_slice(data);
        let (taken, flow) = frames(&self.rest, &mut frame)?;
        self.rest.drain(..taken);
        Ok(flow)
    }
}

/// How many bytes were of whole frames.
fn frames(
    bytes: &[u8],
    frame: &mut impl FnMut(&[u8], Masked<'_>),
) -> Result<(usize, Flow), PeerError> {
    let mut taken = 0;
    while let Some((header, header_bytes)) = Header::decode(&bytes[taken..])? {
        let Some(key) = header.mask else { return Err(PeerError::Unmasked) };
        if header.payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(PeerError::MessageTooBig);
        }
        let start = taken + header_bytes;
        let end = start + header.payload_bytes as usize;
        let Some(payload) = bytes.get(start..end) else { break };
        taken = end;
        match header.opcode {
            Opcode::Close => return Ok((taken, Flow::Closed)),
            Opcode::Ping | Opcode::Pong => {}
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                let mut out = [0; HEADER_BYTES_MAX];
                let out_bytes = Header { mask: None, ..header }.encode(&mut out);
                frame(&out[..out_bytes], Masked { bytes: payload, key });
            }
        }
    }
    Ok((taken, Flow::Open))
}

/// A publisher's frame; the server's own bound of its messages.
const PAYLOAD_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let key = [1, 2, 3, 4];
        let header = Header {
            fin: true,
            rsv1: false,
            opcode,
            mask: Some(key),
            payload_bytes: payload.len() as u64,
        };
        let mut out = [0; HEADER_BYTES_MAX];
        let bytes = header.encode(&mut out);
        let mut frame = out[..bytes].to_vec();
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    fn collect(inflow: &mut Inflow, data: &[u8], out: &mut Vec<u8>) -> Result<Flow, PeerError> {
        inflow.take(data, |header, payload| {
            let start = out.len() + header.len();
            out.extend_from_slice(header);
            out.resize(start + payload.len(), 0);
            payload.unmask_into(&mut out[start..]);
        })
    }

    #[test]
    fn frames_come_out_unmasked_wherever_they_are_cut() {
        let long = [b'x'; 300];
        let stream = [
            masked(Opcode::Text, b"hello"),
            masked(Opcode::Ping, b"?"),
            masked(Opcode::Binary, &long),
            masked(Opcode::Binary, b""),
        ]
        .concat();
        let mut expected = b"\x81\x05hello\x82\x7e\x01\x2c".to_vec();
        expected.extend_from_slice(&long);
        expected.extend_from_slice(&[0x82, 0]);
        for cut in 0..=stream.len() {
            let (first, second) = stream.split_at(cut);
            let (mut inflow, mut out) = (Inflow::default(), Vec::new());
            assert_eq!(collect(&mut inflow, first, &mut out), Ok(Flow::Open));
            assert_eq!(collect(&mut inflow, second, &mut out), Ok(Flow::Open));
            assert_eq!(out, expected, "cut at {cut}");
        }
    }

    #[test]
    fn close_ends_it_and_offences_are_told() {
        let mut out = Vec::new();
        let stream = [masked(Opcode::Close, b""), masked(Opcode::Text, b"late")].concat();
        assert_eq!(collect(&mut Inflow::default(), &stream, &mut out), Ok(Flow::Closed));
        assert!(out.is_empty());
        let unmasked = [0x81, 0];
        let offence = collect(&mut Inflow::default(), &unmasked, &mut out);
        assert_eq!(offence, Err(PeerError::Unmasked));
        let mut too_big = [0; HEADER_BYTES_MAX];
        let header = Header {
            fin: true,
            rsv1: false,
            opcode: Opcode::Text,
            mask: Some([0; 4]),
            payload_bytes: PAYLOAD_BYTES_MAX + 1,
        };
        header.encode(&mut too_big);
        let offence = collect(&mut Inflow::default(), &too_big, &mut out);
        assert_eq!(offence, Err(PeerError::MessageTooBig));
    }
}
