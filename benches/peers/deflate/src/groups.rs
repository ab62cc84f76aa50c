//! Messages by kind, form and size, thinned out evenly.
//!
//! Knows: sizes, and the JSON message that the server puts around a payload. Must not know: where
//! messages come from.

use std::collections::BTreeMap;

use uringcast_protocol::reply::{self, Payload};

/// One payload as it was published.
pub(crate) struct Message {
    /// `trade`, `bookTicker`, …
    pub(crate) kind: String,
    pub(crate) topic: String,
    pub(crate) payload: String,
}

/// Messages of one kind, form and size.
pub(crate) struct Group {
    pub(crate) kind: String,
    /// `raw`: the payload; `json`: the message of the JSON protocol around it.
    pub(crate) form: &'static str,
    /// At most so many bytes each, and more than the class below.
    pub(crate) class: usize,
    /// How many there were.
    pub(crate) total: usize,
    /// Those kept.
    pub(crate) messages: Vec<Box<[u8]>>,
}

impl Group {
    /// The longest message, bytes.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.messages.iter().map(|message| message.len()).max().unwrap_or(0)
    }
}

/// Every group, with at most so many messages.
pub(crate) fn cut(messages: Vec<Message>, per_group: usize) -> Vec<Group> {
    let mut groups: BTreeMap<_, Vec<Box<[u8]>>> = BTreeMap::new();
    for (number, Message { kind, topic, payload }) in messages.into_iter().enumerate() {
        let mut json = Vec::new();
        let (seq, ts_us) = (100_000 + number as u64, 1_723_161_253_937_085 + 1_421 * number as u64);
        let inside = Payload::Json(payload.as_bytes());
        reply::write_message(&mut json, &topic, seq, ts_us, false, inside);
        for (form, message) in [("raw", payload.into_bytes()), ("json", json)] {
            let key = (kind.clone(), form, class(message.len()));
            groups.entry(key).or_default().push(message.into());
        }
    }
    let thin = |((kind, form, class), mut messages): ((String, _, _), Vec<_>)| {
        let total = messages.len();
        let mut index = 0;
        messages.retain(|_| {
            index += 1;
            // Crosses a whole number `per_group` times.
            index * per_group / total.max(per_group)
                != (index - 1) * per_group / total.max(per_group)
        });
        Group { kind, form, class, total, messages }
    };
    groups.into_iter().map(thin).collect()
}

/// The upper end of the size class, bytes.
fn class(bytes: usize) -> usize {
    CLASSES.into_iter().find(|&end| bytes <= end).unwrap_or(1 << 20)
}

/// Narrow where it is decided whether to compress at all.
const CLASSES: [usize; 13] =
    [32, 48, 64, 96, 128, 160, 192, 256, 512, 1_024, 4_096, 16_384, 65_536];
