//! What can be typed.
//!
//! Knows: names, defaults, help. Must not know: what is done with them.

mod checks;
mod dial;
mod kernel;
mod publish;
mod scenario;
mod search;
mod seeing;
mod selftest;
mod watchlists;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::checks::ChecksFlags;
pub(crate) use self::dial::{DialFlags, PublisherFlags};
pub(crate) use self::kernel::{KernelFlags, KernelTier};
pub(crate) use self::publish::PublishFlags;
pub(crate) use self::scenario::ScenarioFlags;
pub(crate) use self::search::SearchFlags;
pub(crate) use self::seeing::{CompareFlags, SeeingFlags, ServerFlags};
pub(crate) use self::selftest::SelftestFlags;
pub(crate) use self::watchlists::WatchlistsFlags;
use crate::burst::Burst;
use crate::rate::Rate;
use crate::targets::Target;

/// Load generator for WebSocket push servers.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about, max_term_width = 100)]
#[command(args_override_self = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set the reports of several runs beside each other: ratios, and how sure they are
    Compare(CompareFlags),
    /// Open connections at a rate, hold them, watch for losses
    Connect(ConnectFlags),
    /// One topic to many subscribers: latency from the intended time, loss per connection
    Fanout(FanoutFlags),
    /// Publishers alone: how many publications are accepted, and how fast
    Publish(PublishFlags),
    /// Publish recorded market data as it was recorded, faster or slower, and check who gets what
    Replay(ReplayFlags),
    /// Run what a TOML file says
    Run(ScenarioFlags),
    /// What this load generator can take itself, on this machine
    Selftest(SelftestFlags),
    /// Print the JSON Schema of reports (--json): every field and its meaning
    Schema,
    /// Publish made-up market data: the same seed gives the same ticks
    Synth(SynthFlags),
    /// Many topics, each subscriber with a watchlist of its own or a shared one, some changing all the
    /// time
    Watchlists(WatchlistsFlags),
}

/// What all commands share.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunFlags {
    /// Receiving threads, each with an io_uring, more where its table of files is too small; publishers
    /// have one more
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,
    /// Processors of the receiving threads; one more is the publishing thread's, else it shares the
    /// first
    #[arg(long, value_delimiter = ',', value_name = "CPU,…")]
    pub(crate) cpus: Vec<usize>,
    /// Begun per second; 0: as fast as they are answered
    #[arg(long, default_value_t = 5000, value_name = "PER_S")]
    pub(crate) connect_rate: u32,
    /// Source addresses [default: one of 127.0.0.0/8 per 1,000 connections to a loopback server]
    #[arg(long, value_delimiter = ',', value_name = "IP,…")]
    pub(crate) source: Vec<IpAddr>,
    /// Receive buffer of each subscriber, doubled by the kernel [default: grows to some MB; thousands
    /// that fall behind may together exceed net.ipv4.tcp_mem]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(2048..=1 << 30))]
    pub(crate) receive_buffer: Option<u32>,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
    /// Write the report as JSON, with everyone who missed something
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the percentiles in HdrHistogram's text format (for its plotter)
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) seeing: SeeingFlags,
    /// How long to wait without a delivery for what is still on its way at the end
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) grace: Duration,
    /// Offer permessage-deflate without context takeover to all but publishers, and inflate
    #[arg(long)]
    pub(crate) deflate: bool,
    #[command(flatten)]
    pub(crate) checks: ChecksFlags,
    /// No progress bars and no table: files and exit code only
    #[arg(long)]
    pub(crate) quiet: bool,
    /// For masks, churn, handshake keys and generated data
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) kernel: KernelFlags,
    #[command(flatten)]
    pub(crate) dial: DialFlags,
}

/// `loadgen fanout`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FanoutFlags {
    /// Where subscribers connect; JSON: ws://127.0.0.1:9001/ws?topics=bench. {n} in it is the
    /// connection's number: topics=bench,own.{n}
    #[arg(long, default_value = "ws://127.0.0.1:9001/raw/bench")]
    pub(crate) url: Target,
    /// Where publishers connect; with http:// or https:// each publication is a POST
    #[arg(long, default_value = "ws://127.0.0.1:9003/publish/bench", value_parser = Target::of_publications)]
    pub(crate) publish_url: Target,
    /// Connections that receive everything
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) subscribers: u32,
    /// Connections that publish
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) publishers: u16,
    /// Publications per second, all publishers together, on an absolute schedule; or a ramp from one
    /// rate to another, as in 100..5000/60s
    #[arg(long, default_value = "10", value_name = "PER_S")]
    pub(crate) rate: Rate,
    /// So many publications at once, every N/rate seconds, or within a time as in 50/1ms; default: evenly
    /// spaced
    #[arg(
        long,
        default_value = "1",
        hide_default_value = true,
        value_name = "N[/TIME]",
        conflicts_with = "outstanding"
    )]
    pub(crate) burst: Burst,
    /// Closed loop instead: publish when fewer than N publications are not yet with every subscriber
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) outstanding: Option<u64>,
    /// Payload, bytes
    #[arg(long, default_value_t = 128, value_name = "BYTES", value_parser = payload_bytes)]
    pub(crate) size: usize,
    /// Publish binary messages; default is text, which is valid JSON
    #[arg(long)]
    pub(crate) binary: bool,
    /// How long to measure, after the warm-up [default: 10s; a ramp's length; 5s for each step of
    /// --find-max]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) duration: Option<Duration>,
    /// Publishing before measuring
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) warmup: Duration,
    /// So many of a hundred subscribers leave and come back all the time (after 0.5 to 2 s)
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = percent)]
    pub(crate) churn: f64,
    /// Further connections that subscribe and never read; not checked
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) stalled: u32,
    #[command(flatten)]
    pub(crate) search: SearchFlags,
    #[command(flatten)]
    pub(crate) publisher: PublisherFlags,
    #[command(flatten)]
    pub(crate) run: RunFlags,
}

/// `loadgen connect`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConnectFlags {
    /// Where to connect; to subscribe as well: ws://127.0.0.1:9001/ws?topics=a,b.*. {n} in it is the
    /// connection's number
    #[arg(long, default_value = "ws://127.0.0.1:9001/ws")]
    pub(crate) url: Target,
    /// Connections to open and hold
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// How long to hold them
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) hold: Duration,
    /// Topics or patterns to subscribe to, in place of those in the URL; {n} as there
    #[arg(long, value_delimiter = ',', value_name = "TOPIC,…")]
    pub(crate) topics: Vec<String>,
    #[command(flatten)]
    pub(crate) run: RunFlags,
}

/// Who listens to `replay` and `synth`.
#[derive(Clone, Debug, Args)]
pub(crate) struct AudienceFlags {
    /// The server's data port; the path comes from --format and --interest
    #[arg(long, default_value = "ws://127.0.0.1:9001")]
    pub(crate) url: Target,
    /// The server's publish port
    #[arg(long, default_value = "ws://127.0.0.1:9003")]
    pub(crate) publish_url: Target,
    /// Connections that receive, in equal parts for each --interest
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) subscribers: u32,
    /// In which form
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    pub(crate) format: Format,
    /// So many of a hundred subscribers leave and come back all the time (after 0.5 to 2 s)
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = percent)]
    pub(crate) churn: f64,
    /// Topics of the kind `value` on the server: there subscribers may skip to the newest
    #[arg(long, default_value = "*.*.bookTicker", value_name = "PATTERN")]
    pub(crate) value: Vec<String>,
}

/// `loadgen replay`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReplayFlags {
    /// Files of `<ns> {"stream":…,"data":…}` or of `{"topic":…,"data":…,"ts":…}` lines, gzip or not;
    /// merged by time
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// So many times the recorded speed; 0: as fast as the server takes it
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = speed)]
    pub(crate) speed: f64,
    /// Stop after this time [default: at the recording's end]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) duration: Option<Duration>,
    /// Publishing before measuring
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) warmup: Duration,
    /// Publish all topics over one connection, as lines of JSON; default: a connection per topic
    #[arg(long)]
    pub(crate) lines: bool,
    /// What each part of the subscribers gets, as PATTERN[,PATTERN…] [default: *.*.trade,
    /// spot.BTCUSDT.>, usdm.BTCUSDT.bookTicker and spot.> in equal parts; with --books
    /// *.*.depth,*.*.bookTicker for all]
    #[arg(long, value_name = "PATTERNS")]
    pub(crate) interest: Vec<String>,
    #[command(flatten)]
    pub(crate) books: BooksFlags,
    #[command(flatten)]
    pub(crate) audience: AudienceFlags,
    #[command(flatten)]
    pub(crate) run: RunFlags,
}

/// Order books, of `replay`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BooksFlags {
    /// Publish depth updates with pub_seq and snapshots, over one connection, and have every
    /// subscriber rebuild the books (as JSON, subscribed with snapshot). The server needs to be new
    /// and to know the kinds of topics: '*.*.depth:kind=delta', '*.*.bookTicker:kind=value'
    #[arg(long)]
    pub(crate) books: bool,
    /// Topics of the kind `delta` on the server
    #[arg(long, default_value = "*.*.depth", value_name = "PATTERN", requires = "books")]
    pub(crate) delta: Vec<String>,
    /// How often each book is published as a snapshot
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "TIME", requires = "books")]
    pub(crate) snapshot_every: Duration,
    /// So many of the subscribers read slowly
    #[arg(long, default_value_t = 0, value_name = "N", requires = "books")]
    pub(crate) slow: u32,
    /// What each of them reads
    #[arg(long, default_value = "5KB/s", value_parser = bytes_per_s, value_name = "BYTES/s", requires = "slow")]
    pub(crate) slow_rate: u64,
    /// Two seconds after everything is published slow subscribers read as fast as others: the end does not
    /// wait for them
    #[arg(long, requires = "slow")]
    pub(crate) slow_catch_up: bool,
    /// What the server's kernel may hold of a slow connection: with the receive buffer it bounds
    /// how old a value may be. The default is TCP_NOTSENT_LOWAT of 16 KiB and a send of 64 KiB
    #[arg(long, default_value_t = 80 << 10, value_name = "BYTES", requires = "slow")]
    pub(crate) server_buffer: u64,
    /// Subscribers that leave and come back (--churn) resume where they were
    #[arg(long, requires = "books")]
    pub(crate) resume: bool,
    /// The longest wait at the end, for subscribers to catch up
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration, value_name = "TIME", requires = "books")]
    pub(crate) drain: Duration,
}

/// `loadgen synth`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SynthFlags {
    /// Instruments, each with the topics md.SYMBOL.trade, .bookTicker and .depth
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) symbols: u16,
    /// Ticks per second on average; bursts go to several times that
    #[arg(long, default_value_t = 500.0, value_name = "PER_S", value_parser = positive)]
    pub(crate) rate: f64,
    /// How long to publish [default: until interrupted]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) duration: Option<Duration>,
    /// Publishing before measuring
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) warmup: Duration,
    /// What each part of the subscribers gets
    #[arg(long, value_name = "PATTERN", default_values_t = SYNTH_INTERESTS.map(str::to_owned))]
    pub(crate) interest: Vec<String>,
    #[command(flatten)]
    pub(crate) audience: AudienceFlags,
    #[command(flatten)]
    pub(crate) run: RunFlags,
}

/// The form in which subscribers get messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// `/ws`: each payload wrapped in JSON with topic and sequence number.
    Json,
    /// `/raw/…`: payloads as they are.
    Raw,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= RATE_MAX => Ok(value),
        _ => Err(format!("should be a number above 0, up to {RATE_MAX}")),
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=SPEED_MAX).contains(&value) => Ok(value),
        _ => Err(format!("should be a number from 0 to {SPEED_MAX}")),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("should be a number from 0 to 100".to_owned()),
    }
}

/// `5KB/s`, `300B/s`, `1MB/s` or a bare number of bytes per second.
fn bytes_per_s(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let units = [("KB", 1000), ("kB", 1000), ("MB", 1_000_000), ("B", 1)];
    let found = units.iter().find_map(|(unit, factor)| Some((number.strip_suffix(unit)?, *factor)));
    let (digits, factor) = found.unwrap_or((number, 1));
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(bytes) if (100..=SLOW_MAX).contains(&bytes) => Ok(bytes),
        _ => Err("should be 100B/s to 100MB/s, as in 5KB/s".to_owned()),
    }
}

fn payload_bytes(text: &str) -> Result<usize, String> {
    let least = crate::stamp::PAYLOAD_BYTES_MIN;
    match text.parse::<usize>() {
        Ok(bytes) if (least..=PAYLOAD_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!("should be {least} (the stamp) to {PAYLOAD_BYTES_MAX} bytes")),
    }
}

const SLOW_MAX: u64 = 100_000_000;
const RATE_MAX: f64 = 10_000_000.0;
const SPEED_MAX: f64 = 1_000_000.0;
/// All trades, one symbol, one topic, one folder of data set 1.
pub(crate) const REPLAY_INTERESTS: [&str; 4] =
    ["*.*.trade", "spot.BTCUSDT.>", "usdm.BTCUSDT.bookTicker", "spot.>"];
pub(crate) const BOOKS_INTERESTS: [&str; 1] = ["*.*.depth,*.*.bookTicker"];
const SYNTH_INTERESTS: [&str; 4] = ["md.*.trade", "md.S0000.>", "md.S0000.bookTicker", "md.>"];
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
