//! One record of the journal: its bytes, and back.
//!
//! Knows: the layout. Must not know: files, what is still needed, or who wrote it.
//!
//! ```text
//! 0        2      3       4          8         12
//! ├─ magic ┼ kind ┼ flags ┼─ length ─┼─ crc32c ─┼─ length bytes: name, then what the kind has ─┤
//! ```
//!
//! Numbers are little-endian. The checksum covers the first 8 bytes and the body. Every record
//! names its topic; what it means stands in the topic's own record, which comes before it in the same
//! segment.

use uringcast_protocol::{limits::TOPIC_BYTES_MAX, opcode::Opcode};

use super::ledger::Topic;
use crate::publication::PayloadContent;

/// What stands before a record's body, bytes.
pub(super) const HEAD_BYTES: usize = 12;
/// A record's body at most: a payload at its bound of 64 MiB, and what is said about it.
pub(super) const BODY_BYTES_MAX: usize = (64 << 20) + (4 << 10);
/// Epochs that a topic's record names at most, the current one included.
pub(super) const EPOCHS_MAX: usize = 65;

/// The publications of one epoch of a topic that are in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochRange {
    /// The epoch.
    pub epoch: u64,
    /// The number its first publication had, or would have had.
    pub first_seq: u64,
    /// The last that is in the journal; `first_seq - 1` before the first.
    pub last_seq: u64,
}

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// Everything about the topic that its publications do not say; replaces what was said before.
    Topic {
        topic: &'a str,
        epochs: Vec<EpochRange>,
        hole: Hole,
    },
    Publication {
        head: Head<'a>,
        sum: u64,
        payload: &'a [u8],
    },
    /// A published snapshot; `head.seq` is the last publication that it covers.
    Snapshot {
        head: Head<'a>,
        payload: &'a [u8],
    },
    /// These publications are not in the journal and never will be.
    End {
        topic: &'a str,
        epoch: u64,
        hole: Hole,
    },
    Forget {
        topic: &'a str,
    },
}

/// What publications and snapshots have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) topic: &'a str,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) ts_us: u64,
    pub(super) pub_seq: Option<u64>,
    pub(super) content: PayloadContent,
    pub(super) opcode: Opcode,
}

/// The newest publications that are known to be missing, from `first` to `last`; none: both 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordError {
    /// There are fewer bytes than the record needs.
    Short,
    /// They are not what was written.
    Damaged,
}

impl<'a> Record<'a> {
    pub(super) fn topic(&self) -> &'a str {
        match self {
            Self::Topic { topic, .. } | Self::End { topic, .. } | Self::Forget { topic } => topic,
            Self::Publication { head, .. } | Self::Snapshot { head, .. } => head.topic,
        }
    }

    /// Appends the record.
    pub(super) fn write(&self, out: &mut Vec<u8>, copied: bool) {
        match self {
            Self::Publication { head, sum, payload } => {
                write_publication(out, copied, head, *sum, std::iter::once(*payload));
            }
            Self::Snapshot { head, payload } => {
                write_snapshot(out, copied, head, std::iter::once(*payload));
            }
            Self::Topic { topic, epochs, hole } => write(out, TOPIC, copied, topic, |out| {
                put(out, hole.first);
                put(out, hole.last);
                let kept = &epochs[epochs.len().saturating_sub(EPOCHS_MAX)..];
                out.push(kept.len() as u8);
                for range in kept {
                    put(out, range.epoch);
                    put(out, range.first_seq);
                    put(out, range.last_seq);
                }
            }),
            Self::End { topic, epoch, hole } => write(out, END, copied, topic, |out| {
                put(out, *epoch);
                put(out, hole.first);
                put(out, hole.last);
            }),
            Self::Forget { topic } => write(out, FORGET, copied, topic, |_| {}),
        }
    }

    /// Reads the record that `bytes` begin with: it, whether it is a copy of an older one, and its
    /// size in bytes.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub(super) fn read(bytes: &'a [u8]) -> Result<(Self, bool, usize), RecordError> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(RecordError::Short)?;
        let length = u32_of(&head[4..8]) as usize;
        if head[..2] != MAGIC || length > BODY_BYTES_MAX {
            return Err(RecordError::Damaged);
        }
        let body = rest.get(..length).ok_or(RecordError::Short)?;
        if crc32c::crc32c_append(crc32c::crc32c(&head[..8]), body) != u32_of(&head[8..12]) {
            return Err(RecordError::Damaged);
        }
        let record = Fields(body).record(head[2]).ok_or(RecordError::Damaged)?;
        Ok((record, head[3] & COPIED != 0, HEAD_BYTES + length))
    }
}

pub(super) fn write_publication<'p>(
    out: &mut Vec<u8>,
    copied: bool,
    head: &Head<'_>,
    sum: u64,
    pieces: impl Iterator<Item = &'p [u8]>,
) {
    write(out, PUBLICATION, copied, head.topic, |out| {
        write_head(out, head);
        put(out, sum);
        pieces.for_each(|piece| out.extend_from_slice(piece));
    });
}

pub(super) fn write_snapshot<'p>(
    out: &mut Vec<u8>,
    copied: bool,
    head: &Head<'_>,
    pieces: impl Iterator<Item = &'p [u8]>,
) {
    write(out, SNAPSHOT, copied, head.topic, |out| {
        write_head(out, head);
        pieces.for_each(|piece| out.extend_from_slice(piece));
    });
}

/// How long a publication's record is, bytes.
pub(super) fn publication_bytes(topic: &str, payload_bytes: usize) -> usize {
    HEAD_BYTES + 1 + topic.len() + 34 + 8 + payload_bytes
}

/// How long a record that says all about a topic is, bytes.
pub(super) fn topic_bytes(topic: &Topic) -> usize {
    HEAD_BYTES + 1 + topic.name.len() + 17 + 24 * topic.epochs.len().min(EPOCHS_MAX)
}

fn write_head(out: &mut Vec<u8>, head: &Head<'_>) {
    put(out, head.epoch);
    put(out, head.seq);
    put(out, head.ts_us);
    put(out, head.pub_seq.unwrap_or(u64::MAX));
    out.push(content_number(head.content));
    out.push(head.opcode.bits());
}

fn write(out: &mut Vec<u8>, kind: u8, copied: bool, topic: &str, body: impl FnOnce(&mut Vec<u8>)) {
    debug_assert!(topic.len() <= TOPIC_BYTES_MAX, "names are validated where they come in");
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[kind, if copied { COPIED } else { 0 }]);
    out.extend_from_slice(&[0; 8]);
    out.push(topic.len() as u8);
    out.extend_from_slice(topic.as_bytes());
    body(out);
    let length = (out.len() - start - HEAD_BYTES) as u32;
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c(&out[start..start + 8]);
    let crc = crc32c::crc32c_append(crc, &out[start + HEAD_BYTES..]);
    out[start + 8..start + HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// What is left of a body. The checksum has held, so what does not fit was written by another
/// program; nothing is taken for granted.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn record(mut self, kind: u8) -> Option<Record<'a>> {
        let name_bytes = usize::from(self.byte()?);
        let topic = std::str::from_utf8(self.bytes(name_bytes)?).ok()?;
        if topic.is_empty() {
            return None;
        }
        let record = match kind {
            TOPIC => {
                let hole = self.hole()?;
                let count = usize::from(self.byte()?);
                let epochs = (0..count).map(|_| self.epoch_range()).collect::<Option<Vec<_>>>()?;
                if epochs.is_empty() || count > EPOCHS_MAX {
                    return None;
                }
                Record::Topic { topic, epochs, hole }
            }
            PUBLICATION => {
                let head = self.head(topic)?;
                let sum = self.number()?;
                Record::Publication { head, sum, payload: self.rest() }
            }
            SNAPSHOT => Record::Snapshot { head: self.head(topic)?, payload: self.rest() },
            END => Record::End { topic, epoch: self.number()?, hole: self.hole()? },
            FORGET => Record::Forget { topic },
            _ => return None,
        };
        self.0.is_empty().then_some(record)
    }

    fn head(&mut self, topic: &'a str) -> Option<Head<'a>> {
        Some(Head {
            topic,
            epoch: self.number()?,
            seq: Some(self.number()?).filter(|&seq| seq < SEQ_MAX)?,
            ts_us: self.number()?,
            pub_seq: Some(self.number()?).filter(|&pub_seq| pub_seq != u64::MAX),
            content: content_of(self.byte()?)?,
            opcode: opcode_of(self.byte()?)?,
        })
    }

    /// Kept below 2^63, so that sums about it can't overflow.
    fn epoch_range(&mut self) -> Option<EpochRange> {
        let (epoch, first_seq, last_seq) = (self.number()?, self.number()?, self.number()?);
        let right = first_seq > 0 && last_seq >= first_seq - 1 && last_seq < SEQ_MAX;
        right.then_some(EpochRange { epoch, first_seq, last_seq })
    }

    fn hole(&mut self) -> Option<Hole> {
        let hole = Hole { first: self.number()?, last: self.number()? };
        (hole.first <= hole.last && hole.last < SEQ_MAX).then_some(hole)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

fn content_number(content: PayloadContent) -> u8 {
    match content {
        PayloadContent::Binary => 0,
        PayloadContent::Json => 1,
        PayloadContent::Text => 2,
    }
}

fn content_of(number: u8) -> Option<PayloadContent> {
    match number {
        0 => Some(PayloadContent::Binary),
        1 => Some(PayloadContent::Json),
        2 => Some(PayloadContent::Text),
        _ => None,
    }
}

fn opcode_of(bits: u8) -> Option<Opcode> {
    [Opcode::Text, Opcode::Binary].into_iter().find(|opcode| opcode.bits() == bits)
}

/// What every record begins with; found again by it after damage.
pub(super) const MAGIC: [u8; 2] = [0xC5, 0x7A];
/// Numbers of publications stay below.
pub(super) const SEQ_MAX: u64 = 1 << 63;
const COPIED: u8 = 1;
const TOPIC: u8 = 1;
const PUBLICATION: u8 = 2;
const SNAPSHOT: u8 = 3;
const END: u8 = 4;
const FORGET: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(topic: &str, seq: u64, pub_seq: Option<u64>) -> Head<'_> {
        let (content, opcode) = (PayloadContent::Text, Opcode::Binary);
        Head { topic, epoch: 9, seq, ts_us: 77, pub_seq, content, opcode }
    }

    fn all() -> Vec<Record<'static>> {
        let long = "x".repeat(TOPIC_BYTES_MAX).leak();
        let range = EpochRange { epoch: 1, first_seq: 1, last_seq: 0 };
        vec![
            Record::Topic { topic: "a", epochs: vec![range; EPOCHS_MAX], hole: Hole::default() },
            Record::Publication { head: head(long, 4, Some(0)), sum: 5, payload: b"payload" },
            Record::Publication { head: head("b", 5, None), sum: 0, payload: b"" },
            Record::Snapshot { head: head("c", 6, Some(1)), payload: &[0xC5, 0x7A, 1] },
            Record::End { topic: "d", epoch: 2, hole: Hole { first: 3, last: 9 } },
            Record::Forget { topic: "e" },
        ]
    }

    #[test]
    fn what_is_written_is_read_and_nothing_less() {
        for record in all() {
            for copied in [false, true] {
                let mut bytes = Vec::new();
                record.write(&mut bytes, copied);
                assert_eq!(Record::read(&bytes), Ok((record.clone(), copied, bytes.len())));
                for cut in 0..bytes.len() {
                    assert_eq!(Record::read(&bytes[..cut]), Err(RecordError::Short));
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for record in all() {
            let mut bytes = Vec::new();
            record.write(&mut bytes, false);
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(Record::read(&bytes).is_err(), "bit {bit} of {record:?}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_publications_size_is_known_beforehand() {
        let mut bytes = Vec::new();
        Record::Publication { head: head("md.X", 4, None), sum: 5, payload: b"payload" }
            .write(&mut bytes, false);
        assert_eq!(bytes.len(), publication_bytes("md.X", 7));
    }

    #[test]
    fn what_checks_out_but_makes_no_sense_is_refused() {
        for body in [&b"\0"[..], b"", b"\x05a", b"\x01a-", &[1, 0xff]] {
            for kind in 0..=6 {
                let mut bytes = MAGIC.to_vec();
                bytes.extend_from_slice(&[kind, 0]);
                bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
                let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), body);
                bytes.extend_from_slice(&crc.to_le_bytes());
                bytes.extend_from_slice(body);
                assert_eq!(Record::read(&bytes), Err(RecordError::Damaged), "{kind} {body:?}");
            }
        }
    }
}
