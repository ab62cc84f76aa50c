//! Many topics, and who watches which.
//!
//! Knows: names, defaults, help. Must not know: what is done with them.

use std::time::Duration;

use clap::Args;

use super::{Format, RunFlags, payload_bytes, positive};
use crate::targets::Target;

/// `loadgen watchlists`.
#[derive(Clone, Debug, Args)]
pub(crate) struct WatchlistsFlags {
    /// The server's data port; the path comes from --format and the watchlists
    #[arg(long, default_value = "ws://127.0.0.1:9001")]
    pub(crate) url: Target,
    /// The server's publish port: all topics are published over each connection's share of them, as
    /// lines of JSON
    #[arg(long, default_value = "ws://127.0.0.1:9003")]
    pub(crate) publish_url: Target,
    /// Topics, watch.00000 and so on, published to one after another
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub(crate) topics: u16,
    /// Publications per second, all topics together, evenly spaced
    #[arg(long, default_value_t = 100.0, value_name = "PER_S", value_parser = positive)]
    pub(crate) rate: f64,
    /// Payload, bytes
    #[arg(long, default_value_t = 128, value_name = "BYTES", value_parser = payload_bytes)]
    pub(crate) size: usize,
    /// Connections that publish, each its share of the topics
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) publishers: u16,
    /// Connections that receive
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) subscribers: u32,
    /// Topics of each watchlist, drawn at random
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) watch: u16,
    /// Different watchlists, which the subscribers share in equal parts [default: one for each]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub(crate) lists: Option<u16>,
    /// In which form; raw has one topic to a connection
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    pub(crate) format: Format,
    /// So many topics of each watchlist change, each for another (--format json). They come from a part of
    /// the topics set apart; from a change's answer on they are checked like the others
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) changing: u16,
    /// Changes per second, all subscribers together: an unsubscribe and a subscribe each, answers awaited.
    /// More than the server answers: as many as it does, with one change of a subscriber at a time
    #[arg(long, default_value_t = 10.0, value_name = "PER_S", value_parser = positive, requires = "changing")]
    pub(crate) change_rate: f64,
    /// How long to measure, after the warm-up
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) duration: Duration,
    /// Publishing before measuring
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) warmup: Duration,
    #[command(flatten)]
    pub(crate) run: RunFlags,
}
