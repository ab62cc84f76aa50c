//! A publication as a Server-Sent Event.
//!
//! Knows: how the event lies in a block of its own, where the publication is large. Must not know:
//! what the cursor in it means.
//!
//! The id is a time, which is known only where and when the event is appended to a log. So the block
//! of a large one is made by each shard that has such lanes; those of a small one are written into
//! each log. What is sent from history has no id: whoever is sent that has not caught up, and must
//! come back to where it was.

use uringcast_protocol::sse::{DATA, END, ID_LINE_BYTES, copy_data, id_line};
use uringcast_ring::pool::{Pool, PoolFull};

use super::{Block, Body, Encoded, Format, Publication};

/// An event that is not written yet.
#[derive(Clone, Copy, Debug)]
pub struct Event<'p> {
    publication: &'p Publication,
    cursor: Option<u64>,
    /// Of the data.
    bytes: usize,
}

impl Event<'_> {
    /// Its size, bytes.
    pub(super) fn bytes(&self) -> usize {
        let id_bytes = if self.cursor.is_some() { ID_LINE_BYTES } else { 0 };
        id_bytes + DATA.len() + self.bytes + END.len()
    }

    /// Writes it into exactly [`bytes`](Self::bytes).
    pub(super) fn write(&self, out: &mut [u8]) {
        let mut rest = out;
        if let Some(cursor) = self.cursor {
            rest = put(rest, &id_line(cursor));
        }
        rest = put(rest, DATA);
        for piece in self.publication.pieces(Body::Json) {
            let (to, behind) = rest.split_at_mut(piece.len());
            copy_data(to, piece);
            rest = behind;
        }
        rest.copy_from_slice(END);
    }
}

/// Copies to the front; returns what is behind.
fn put<'o>(out: &'o mut [u8], bytes: &[u8]) -> &'o mut [u8] {
    let (to, behind) = out.split_at_mut(bytes.len());
    to.copy_from_slice(bytes);
    behind
}

impl Publication {
    /// What lanes of this format are sent at the moment when this is the time of their cursor.
    pub fn encoded_at(&self, format: Format, cursor: u64) -> Encoded<'_> {
        match format.body {
            Body::Sse => self.event(Some(cursor)),
            Body::Json | Body::Raw => self.encoded(format),
        }
    }

    /// As an event, with an id if there is a cursor.
    pub(super) fn event(&self, cursor: Option<u64>) -> Encoded<'_> {
        if let Some(block) = &self.event {
            let skipped = if cursor.is_some() { 0 } else { ID_LINE_BYTES };
            let range = skipped..self.event_bytes();
            return Encoded::Ready { block, range, kind: Block::Event };
        }
        let bytes = self.message_bytes(Body::Json);
        Encoded::Event(Event { publication: self, cursor, bytes })
    }

    fn event_bytes(&self) -> usize {
        ID_LINE_BYTES + DATA.len() + self.message_bytes(Body::Json) + END.len()
    }

    /// The same with a block for its event, so that all lanes can refer to one; only worth while for
    /// one that is large.
    ///
    /// # Errors
    /// The pool is at its bound.
    pub fn with_event(&self, pool: &mut Pool, cursor: u64) -> Result<Self, PoolFull> {
        let plain = Self { event: None, ..self.clone() };
        let bytes = plain.event_bytes();
        let mut lease = pool.take(bytes)?;
        plain.event(Some(cursor)).write(&mut lease[..bytes]);
        Ok(Self { event: Some(lease.freeze()), ..plain })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uringcast_protocol::opcode::Opcode;
    use uringcast_ring::pool::Pool;

    use super::*;
    use crate::publication::{self, Order, PayloadContent};

    const SSE: Format = Format { body: Body::Sse, window_bits: 0 };

    fn publication(payload: &[u8], content: PayloadContent) -> Publication {
        let pool = &mut Pool::unregistered();
        let lease = publication::draft(pool, "md.X", 7, content, Opcode::Text, payload);
        let order = Order { epoch: 3, seq: 45, ts_us: 17, pub_seq: None, snapshot: false };
        publication::order(pool, lease.expect("room"), order, &mut Vec::new()).expect("room")
    }

    fn text(encoded: &Encoded<'_>) -> String {
        let mut out = vec![0; encoded.bytes()];
        encoded.write(&mut out);
        assert_eq!(encoded.frames().collect::<Vec<_>>(), [out.len()], "one frame, however long");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn live_it_has_an_id_and_from_history_none() {
        let p = publication(b"{\"a\":\n\r1}", PayloadContent::Json);
        let data = "data: {\"topic\":\"md.X\",\"seq\":45,\"ts\":17,\"data\":{\"a\":  1}}\n\n";
        assert_eq!(text(&p.encoded(SSE)), data);
        assert_eq!(text(&p.encoded_at(SSE, 0xAB)), format!("id: 00000000000000ab\n{data}"));
        assert_eq!(p.encoded_at(Format::JSON, 0xAB).bytes(), p.encoded(Format::JSON).bytes());
    }

    proptest! {
        #[test]
        fn a_block_says_the_same_and_is_referred_to(
            bytes in prop_oneof![0..100_usize, 8_000..9_000_usize, 65_000..66_000_usize, 200_000..200_100_usize],
            content in prop::sample::select(vec![
                PayloadContent::Binary,
                PayloadContent::Json,
                PayloadContent::Text,
            ]),
        ) {
            let payload = match content {
                PayloadContent::Json => format!("[\n{}\n]", "1,\r\n".repeat(bytes / 4) + "1"),
                _ => "\nx".repeat(bytes / 2),
            };
            let p = publication(payload.as_bytes(), content);
            let with = p.with_event(&mut Pool::unregistered(), 9).expect("room");
            prop_assert!(with.block_bytes() > p.block_bytes());
            prop_assert_eq!(text(&with.encoded(SSE)), text(&p.encoded(SSE)));
            let live = text(&with.encoded_at(SSE, 9));
            prop_assert_eq!(&live, &text(&p.encoded_at(SSE, 9)));
            prop_assert_eq!(live.lines().count(), 3, "id, data, end");
            let shared = with.encoded_at(SSE, 9).shared();
            prop_assert_eq!(shared.is_some(), live.len() >= publication::SHARED_FRAME_BYTES_MIN);
            prop_assert!(p.encoded_at(SSE, 9).shared().is_none());
            let data = live.lines().nth(1).and_then(|line| line.strip_prefix("data: "));
            let value: serde_json::Value = serde_json::from_str(data.expect("data")).expect("JSON");
            prop_assert_eq!(&value["topic"], "md.X");
        }
    }
}
