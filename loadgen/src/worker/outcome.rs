//! What a thread has to tell at its end.
//!
//! Knows: figures. Must not know: how they came about, how they are shown.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::conduct::Conduct;
use crate::judge::Judge;
use crate::post::Posts;
use crate::record::histogram;
use crate::report::Deflate;
use crate::source::Tally;
use crate::usage::Usage;

/// One thread's results.
pub(crate) struct Outcome {
    /// What was received.
    pub(crate) judge: Judge,
    /// What was published.
    pub(crate) tally: Tally,
    /// What became of publications by HTTP.
    pub(crate) posts: Posts,
    /// Why connections never opened, and how many.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Connections that the server ended, by close code or error, and how many.
    pub(crate) closes: BTreeMap<String, u64>,
    /// Times from beginning to connect until the answer to the upgrade, ns.
    pub(crate) handshake: Histogram<u64>,
    /// How connections came about and were silent, how late and how much was sent.
    pub(crate) conduct: Conduct,
    /// Bytes received, frames and all.
    pub(crate) wire_bytes: u64,
    /// Who agreed to compression, and what came compressed.
    pub(crate) deflate: Deflate,
    /// Lives begun by connections that churn.
    pub(crate) lives: u64,
    /// The kernel's receive buffer of a slow connection, bytes.
    pub(crate) slow_buffer_bytes: u64,
    /// The receive buffers ran out so often.
    pub(crate) buffers_exhausted: u64,
    /// What this thread used while measuring.
    pub(crate) usage: Usage,
    /// Messages received while measuring.
    pub(crate) window_messages: u64,
}

impl Outcome {
    pub(super) fn new(judge: Judge) -> Self {
        Self {
            judge,
            tally: Tally::default(),
            posts: Posts::default(),
            failures: BTreeMap::new(),
            closes: BTreeMap::new(),
            handshake: histogram(),
            conduct: Conduct::default(),
            wire_bytes: 0,
            deflate: Deflate::default(),
            lives: 0,
            slow_buffer_bytes: 0,
            buffers_exhausted: 0,
            usage: Usage::default(),
            window_messages: 0,
        }
    }
}

/// Adds one to the count of a reason.
pub(super) fn count(counts: &mut BTreeMap<String, u64>, reason: &str) {
    if let Some(count) = counts.get_mut(reason) {
        *count += 1;
    } else if counts.len() < REASONS_MAX {
        counts.insert(reason.to_owned(), 1);
    } else {
        *counts.entry("other reasons".to_owned()).or_default() += 1;
    }
}

/// Different reasons told apart.
const REASONS_MAX: usize = 64;
