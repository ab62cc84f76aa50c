//! Compressed messages of connections: in from clients and publishers, out to whoever has an echo.
//!
//! Knows: which bound and which close belong to them, where the memory for them is. Must not know:
//! DEFLATE, what commands or publications do.

use uringcast_protocol::{
    error::PeerError, opcode::Opcode, session::MessageKind, utf8::Utf8Checker, writer,
};
use uringcast_ring::Io;

use super::{Shard, count};
use crate::{
    conn::{Publishing, Role},
    deflate::{Compressor, InflateError, Inflater},
    ids::ConnectionId,
    publication,
    topics::log::Boundary,
};

/// A shard's one pair of codecs, which all its connections use in turn.
#[derive(Debug)]
pub(super) struct Codec {
    /// Made when the first compressed message comes in.
    inflater: Option<Inflater>,
    compressor: Compressor,
    /// The last message decompressed; memory kept for the next.
    inflated: Vec<u8>,
    /// Room for compressed messages; never shortened but by [`trim`].
    compressed: Vec<u8>,
}

impl Default for Codec {
    fn default() -> Self {
        Self {
            inflater: None,
            compressor: Compressor::fast(),
            inflated: Vec::new(),
            compressed: Vec::new(),
        }
    }
}

impl Codec {
    /// Decompresses a message and looks whether its text is UTF-8.
    fn inflate(
        &mut self,
        kind: MessageKind,
        compressed: &[u8],
        bytes_max: usize,
    ) -> Result<Vec<u8>, PeerError> {
        let mut message = std::mem::take(&mut self.inflated);
        let inflater = self.inflater.get_or_insert_default();
        let outcome = inflater.inflate(compressed, &mut message, bytes_max);
        let judged = match outcome {
            Ok(()) if kind == MessageKind::Text => check_text(&message),
            Ok(()) => Ok(()),
            Err(InflateError::Invalid) => Err(PeerError::DeflateInvalid),
            Err(InflateError::TooLarge) => Err(PeerError::MessageTooBig),
        };
        match judged {
            Ok(()) => Ok(message),
            Err(error) => {
                self.give_back(message);
                Err(error)
            }
        }
    }

    /// The memory of a message that is done with.
    fn give_back(&mut self, mut message: Vec<u8>) {
        message.clear();
        trim(&mut message);
        self.inflated = message;
    }
}

fn check_text(message: &[u8]) -> Result<(), PeerError> {
    let mut utf8 = Utf8Checker::new();
    utf8.check(message).and_then(|()| utf8.finish()).map_err(|_| PeerError::InvalidUtf8)
}

fn trim(memory: &mut Vec<u8>) {
    if memory.capacity() > KEPT_BYTES_MAX {
        *memory = Vec::new();
    }
}

impl<I: Io> Shard<I> {
    /// A client's compressed message is complete.
    pub(super) fn deflated_message(
        &mut self,
        id: ConnectionId,
        role: Role,
        kind: MessageKind,
        compressed: &[u8],
    ) -> Result<(), PeerError> {
        let bytes_max = self.message_bytes_max(role) as usize;
        let message = self.codec.inflate(kind, compressed, bytes_max)?;
        self.count_inflated(message.len());
        self.client_message(id, role, kind, &message);
        self.codec.give_back(message);
        Ok(())
    }

    /// A publisher's compressed message is complete: it stands, compressed, where a plain one would.
    pub(super) fn published_deflated(
        &mut self,
        id: ConnectionId,
        publishing: &mut Publishing,
        kind: MessageKind,
    ) -> Result<(), PeerError> {
        let bytes_max = self.message_bytes_max(Role::Publisher) as usize;
        let Some(topic) = &publishing.topic else {
            let message = self.codec.inflate(kind, &publishing.lines, bytes_max)?;
            self.count_inflated(message.len());
            let compressed = std::mem::replace(&mut publishing.lines, message);
            self.published_message(id, publishing, kind);
            let lines = std::mem::replace(&mut publishing.lines, compressed);
            publishing.lines.clear();
            self.codec.give_back(lines);
            return Ok(());
        };
        let start = publication::payload_offset(&topic.name);
        let compressed_bytes = std::mem::take(&mut publishing.draft_bytes);
        let message = match publishing.draft.take() {
            Some(draft) => {
                let compressed = &draft[start..start + compressed_bytes];
                self.codec.inflate(kind, compressed, bytes_max)?
            }
            None => self.codec.inflate(kind, &[], bytes_max)?,
        };
        self.count_inflated(message.len());
        let pool = &mut self.topics.memory.pool;
        let draft = publication::reserve(pool, &topic.name, message.len()).map(|mut draft| {
            draft[start..start + message.len()].copy_from_slice(&message);
            draft
        });
        publishing.draft_bytes = message.len();
        self.codec.give_back(message);
        publishing.draft = Some(draft.map_err(|_| PeerError::SinkFull)?);
        self.published_message(id, publishing, kind);
        Ok(())
    }

    fn count_inflated(&self, bytes: usize) {
        count!(self.deflate_in_messages);
        count!(self.deflate_in_bytes, bytes as u64);
    }

    /// Sends a message back; compressed where that was agreed to and makes it smaller.
    pub(super) fn echo(&mut self, id: ConnectionId, kind: MessageKind, message: &[u8]) {
        let opcode = match kind {
            MessageKind::Text => Opcode::Text,
            MessageKind::Binary => Opcode::Binary,
        };
        let Some(connection) = self.connections.find(id) else { return };
        let window_bits = connection.window_bits;
        let mut room = std::mem::take(&mut self.codec.compressed);
        if window_bits != 0 && room.len() < message.len() {
            room.resize(message.len(), 0);
        }
        let compressed = match window_bits {
            0 => None,
            _ => self.codec.compressor.compress(window_bits, message, &mut room[..message.len()]),
        };
        self.own(id, Boundary::Message, |out| match compressed {
            Some(bytes) => writer::write_deflated(out, opcode, &room[..bytes], None),
            None => writer::write_message(out, opcode, message, None),
        });
        trim(&mut room);
        self.codec.compressed = room;
    }
}

/// Memory for messages that is kept; larger ones are rare, and pay for theirs.
const KEPT_BYTES_MAX: usize = 1 << 20;
