//! What the load generator itself can take.
//!
//! Knows: names, defaults, help. Must not know: what is done with them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// `loadgen selftest`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SelftestFlags {
    /// Receiving threads of the second half; the first is with one
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,
    /// How long each measurement takes
    #[arg(long, default_value = "1500ms", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) duration: Duration,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// No table
    #[arg(long)]
    pub(crate) quiet: bool,
}
