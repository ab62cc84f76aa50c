//! What the server says besides messages, taken apart.
//!
//! Knows: the JSON protocol's answers. Must not know: what follows from them.

use std::borrow::Cow;

use serde::Deserialize;

/// Any of the server's own words; fields not needed here are left out.
#[derive(Debug, Deserialize)]
pub(crate) struct Word<'a> {
    #[serde(borrow)]
    pub(crate) op: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) topic: Option<Cow<'a, str>>,
    /// Of `gap`: the first missed and the last.
    pub(crate) from: Option<u64>,
    pub(crate) to: Option<u64>,
    /// Of `published`.
    pub(crate) seq: Option<u64>,
    #[serde(default)]
    pub(crate) duplicate: bool,
    #[serde(default)]
    pub(crate) snapshot_wanted: bool,
    /// Of `error`.
    #[serde(borrow)]
    pub(crate) code: Option<Cow<'a, str>>,
    /// Of `subscribed`.
    #[serde(borrow, default)]
    pub(crate) topics: Vec<Ack<'a>>,
}

/// How one topic of a subscription fared.
#[derive(Debug, Deserialize)]
pub(crate) struct Ack<'a> {
    #[serde(borrow)]
    pub(crate) topic: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) epoch: Option<Cow<'a, str>>,
    pub(crate) seq: Option<u64>,
    pub(crate) recovered: Option<bool>,
    #[serde(borrow)]
    pub(crate) reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) error: Option<Cow<'a, str>>,
}

/// Reads one; `None` if it is none.
pub(crate) fn read(message: &[u8]) -> Option<Word<'_>> {
    serde_json::from_slice(message).ok()
}
