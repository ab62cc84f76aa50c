//! A publication shown as its topic's last value.
//!
//! Knows: how the flagged message differs from the one that was live. Must not know: who asks for it.

use std::ops::Range;

use uringcast_protocol::{
    header::Header, limits::HEADER_BYTES_MAX, opcode::Opcode, reply, writer::write_frame,
};

use super::{Body, PayloadContent, Publication};

impl Publication {
    /// Appends the JSON message that shows this publication as its topic's last value, as frames. Of a
    /// large one only the beginning of the message: the rest lies in its [`frame`](Self::frame),
    /// where the range returned says, as frames too.
    pub fn write_snapshot(&self, out: &mut Vec<u8>, body: Body) -> Option<Range<usize>> {
        let mut message = Vec::new();
        self.write_head(&mut message, true);
        if self.is_large() && body == Body::Json {
            return Some(self.begin_snapshot(out, &message));
        }
        let mut skip = self.head_bytes();
        for piece in self.pieces(Body::Json) {
            message.extend_from_slice(&piece[skip.min(piece.len())..]);
            skip = skip.saturating_sub(piece.len());
        }
        body.write_message(out, &message);
        None
    }

    /// The flagged head is a fragment of its own, and the first of the live message's begins behind its
    /// head.
    fn begin_snapshot(&self, out: &mut Vec<u8>, head: &[u8]) -> Range<usize> {
        let frames = self.large_frames(Body::Json);
        let first = Header::decode(&self.frame[frames.clone()]).ok().flatten();
        let (first, header_bytes) = first.expect("a block's frames are whole");
        let skipped = self.head_bytes();
        write_frame(out, Opcode::Text, false, head, None);
        let rest = Header {
            opcode: Opcode::Continuation,
            payload_bytes: first.payload_bytes - skipped as u64,
            ..first
        };
        let mut header = [0; HEADER_BYTES_MAX];
        let bytes = rest.encode(&mut header);
        out.extend_from_slice(&header[..bytes]);
        frames.start + header_bytes + skipped..frames.end
    }

    fn write_head(&self, out: &mut Vec<u8>, snapshot: bool) {
        let base64 = self.content() == PayloadContent::Binary;
        let flags = reply::MessageFlags { snapshot, base64 };
        reply::write_message_head(out, self.topic().as_bytes(), self.seq(), self.ts_us(), flags);
    }

    /// Of the live message.
    fn head_bytes(&self) -> usize {
        let mut head = Vec::new();
        self.write_head(&mut head, false);
        head.len()
    }
}

#[cfg(test)]
mod tests {
    use uringcast_protocol::{Event, Session, session::Role};
    use uringcast_ring::pool::Pool;

    use super::*;
    use crate::publication::{Order, draft, order};

    fn publication(payload: &[u8], content: PayloadContent) -> Publication {
        let mut pool = Pool::unregistered();
        let lease = draft(&mut pool, "md.x", 7, content, Opcode::Text, payload).expect("room");
        let given = Order { epoch: 1, seq: 41, ts_us: 5, pub_seq: None, snapshot: false };
        order(&mut pool, lease, given, &mut Vec::new()).expect("room")
    }

    /// What a client makes of it, and how much was written.
    fn heard(p: &Publication) -> (serde_json::Value, usize) {
        let mut out = Vec::new();
        let shared = p.write_snapshot(&mut out, Body::Json);
        let written = out.len();
        out.extend_from_slice(&p.frame()[shared.unwrap_or_default()]);
        let mut session = Session::new(Role::Client, u64::MAX >> 1);
        let (mut message, mut input) = (Vec::new(), &out[..]);
        let event = session.receive(&mut input, &mut message).expect("legal");
        assert!(matches!(event, Some(Event::Message(_))) && input.is_empty());
        (serde_json::from_slice(&message).expect("JSON"), written)
    }

    #[test]
    fn it_is_the_live_message_with_a_flag_and_a_large_one_is_not_copied() {
        for bytes in [5, 8_000, 9_000, 65_400, 65_522, 65_523, 200_000] {
            let payload = "x".repeat(bytes);
            let p = publication(payload.as_bytes(), PayloadContent::Text);
            let (snapshot, written) = heard(&p);
            assert_eq!(snapshot["data"], payload);
            assert_eq!((&snapshot["snapshot"], &snapshot["seq"]), (&true.into(), &41.into()));
            assert_eq!(snapshot["topic"], "md.x");
            assert!(!p.is_large() || written < 200, "{written} bytes of {bytes}");
        }
        let (binary, _) = heard(&publication(&[255; 20_000], PayloadContent::Binary));
        assert!(binary["data_base64"].as_str().is_some_and(|text| text.starts_with("////")));
    }
}
