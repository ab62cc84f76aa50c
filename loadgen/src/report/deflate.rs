//! What compression came to: who agreed to it, what it saved.
//!
//! Knows: figures. Must not know: how they were measured.

use schemars::JsonSchema;
use serde::Serialize;

use crate::inflate::InflateCounts;

/// permessage-deflate, as subscribers saw it.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Deflate {
    /// Handshakes answered in which it had been offered.
    pub(crate) offered: u64,
    /// Those of them in which the server agreed.
    pub(crate) agreed: u64,
    #[serde(flatten)]
    pub(crate) counts: InflateCounts,
}

impl Deflate {
    pub(super) fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.agreed += other.agreed;
        self.counts.add(&other.counts);
    }

    /// Compressed bytes as a share of what they inflate to; `None` if nothing came compressed.
    pub(super) fn ratio(&self) -> Option<f64> {
        let inflated_bytes = Some(self.counts.inflated_bytes).filter(|&bytes| bytes > 0)?;
        Some(self.counts.compressed_bytes as f64 / inflated_bytes as f64)
    }
}
