//! Bounds that a run is checked against.
//!
//! Knows: names, defaults, help. Must not know: what is done with them.

use std::time::Duration;

use clap::Args;

/// What else makes a run unclean.
#[derive(Clone, Debug, Args)]
pub(crate) struct ChecksFlags {
    /// Not clean if a subscriber gets nothing for longer than this while there is publishing
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) silence: Option<Duration>,
}
