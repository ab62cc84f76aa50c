//! Publishing alone.
//!
//! Knows: names, defaults, help. Must not know: what is done with them.

use std::time::Duration;

use clap::Args;

use super::{PublisherFlags, RunFlags, payload_bytes};
use crate::rate::Rate;
use crate::targets::Target;

/// `loadgen publish`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PublishFlags {
    /// Where publishers connect; with ?ack=1 uringcast answers each publication. With http:// or https://
    /// each publication is a POST
    #[arg(long, default_value = "ws://127.0.0.1:9003/publish/bench", value_parser = Target::of_publications)]
    pub(crate) url: Target,
    /// Have every publication answered (adds ack=1 to the URL): accepted, refused and after how long
    #[arg(long)]
    pub(crate) acks: bool,
    /// Connections that publish
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) publishers: u16,
    /// Publications per second, all publishers together; or a ramp, as in 100..5000/60s
    #[arg(long, default_value = "10", value_name = "PER_S")]
    pub(crate) rate: Rate,
    /// Publications in all [default: as many as go into --duration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Payload, bytes
    #[arg(long, default_value_t = 128, value_name = "BYTES", value_parser = payload_bytes)]
    pub(crate) size: usize,
    /// Publish binary messages; default is text, which is valid JSON
    #[arg(long)]
    pub(crate) binary: bool,
    /// How long to measure, after the warm-up [default: 10s, or until --count or a ramp is through]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) duration: Option<Duration>,
    /// Publishing before measuring
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) warmup: Duration,
    #[command(flatten)]
    pub(crate) publisher: PublisherFlags,
    #[command(flatten)]
    pub(crate) run: RunFlags,
}
