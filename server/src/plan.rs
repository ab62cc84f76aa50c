//! What will be done: everything decided, from flags, the configuration file and the machine.
//!
//! Knows: every flag's meaning and bounds, and how they hang together. Must not know: running
//! objects. Flags win over the file; every mistake of both is named at once.

mod http_values;
mod machine;
mod reading;
mod rules;
mod values;

use std::{fmt, net::SocketAddr, ops::RangeInclusive};

use uringcast_protocol::forwarded::ProxyHeader;
use uringcast_ring::TierChoice;

pub use self::machine::Machine;
use self::{reading::Reading, rules::Totals};
use crate::{
    config,
    flags::{Given, LowArgs},
    journal,
    logging::LogFormat,
    rules::Rules,
    settings::{HttpSettings, ProxyProtocol, Settings},
};

/// What `serve` will do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The data port; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The publish port; port 0 lets the system choose.
    pub publish_listen: SocketAddr,
    /// The admin port; port 0 lets the system choose.
    pub admin: SocketAddr,
    /// Names, besides addresses and localhost, by which the admin port may be asked for.
    pub admin_hosts: Vec<String>,
    /// One per reactor, 1 to 64 of them: the core it is pinned to. A core may come twice.
    pub cpus: Vec<usize>,
    /// Which kernel features may be used.
    pub tier: TierChoice,
    /// What a shard obeys.
    pub settings: Settings,
    /// Somebody asked for so many connections; else they are what the limits allow.
    pub connections_max_given: bool,
    /// What outlives the process, and where; `None`: nothing does.
    pub journal: Option<journal::Options>,
    /// Connections that may wait to be accepted, per reactor.
    pub backlog: u32,
    /// Accepts kept in the kernel, per reactor and port.
    pub accepts_in_flight: u32,
    /// Shared receive buffers per reactor, a power of two.
    pub receive_buffers: u32,
    /// Size of each, bytes.
    pub receive_buffer_bytes: u32,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which are written: a level or a filter of `tracing`.
    pub log_filter: String,
}

impl Plan {
    /// How many reactors there will be.
    pub fn reactors(&self) -> usize {
        self.cpus.len()
    }

    /// Decides on what was typed, reading the configuration file if one was named.
    ///
    /// # Errors
    /// Everything that is wrong in either.
    pub fn load(low: &LowArgs, machine: &Machine) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let file = low.config.as_deref().map(|path| config::read(path, &mut mistakes));
        decide(&low.given, file.as_deref().unwrap_or_default(), machine, mistakes)
    }
}

/// One wrong value: where, what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `--reactors`, `uringcast.toml:3: reactors`.
    pub place: String,
    /// As it stands.
    pub value: String,
    /// What would be right.
    pub wanted: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} is not right: {}", self.place, self.value, self.wanted)
    }
}

/// All mistakes of one invocation, at least one; wrong use, so exit with 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let end = if index + 1 == self.0.len() { "" } else { "\n" };
            write!(f, "{mistake}{end}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Decides. `mistakes` are those already found in reading the file.
fn decide(
    typed: &[Given],
    file: &[Given],
    machine: &Machine,
    mistakes: Vec<Mistake>,
) -> Result<Plan, Mistakes> {
    let mut read = Reading::new(typed, file, mistakes);
    let ports = ["listen", "publish-listen", "admin"].map(|name| read.address(name));
    let [listen, publish_listen, admin] = ports;
    let admin_hosts = read.hosts("admin-host");
    let cpus = cpus(&mut read, machine);
    let tier =
        read.choice("kernel-tier", &[("auto", TierChoice::Auto), ("base", TierChoice::Base)]);
    let open_files_max = machine.open_files_max_per_reactor(cpus.len(), tier);
    let accepts_in_flight = read.number("accepts-in-flight", 1..=1_024);
    let connections_usual = connections(open_files_max, accepts_in_flight);
    let plan = Plan {
        listen,
        publish_listen,
        admin,
        admin_hosts,
        cpus,
        tier,
        settings: settings(&mut read, connections_usual),
        connections_max_given: read.is_given("connections-max"),
        journal: journal(&mut read),
        backlog: read.number("backlog", 1..=1 << 20),
        accepts_in_flight,
        receive_buffers: read.power_of_two("receive-buffers", 16..=32_768),
        receive_buffer_bytes: read.bytes("receive-buffer-bytes", 512..=64 << 10),
        log_format: read
            .choice("log-format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        log_filter: read.log_filter("log-level"),
    };
    // Wrong values stand as their bounds in the plan now, which nothing can be said about.
    if read.is_right() {
        agree(&plan, machine, open_files_max, &mut read);
    }
    read.finish(plan)
}

fn settings(read: &mut Reading<'_>, connections_usual: u32) -> Settings {
    let totals = Totals {
        history_bytes_max: read.bytes("history-bytes-max", HISTORY_BYTES),
        log_bytes_max: read.bytes("log-bytes-max", LOG_BYTES),
    };
    Settings {
        echo: read.switch("echo"),
        deflate: read.choice("deflate", &ON_OFF),
        deflate_min_bytes: read.bytes("deflate-min-bytes", 0..=1 << 30),
        connections_max: read
            .number_or("connections-max", 1..=CONNECTIONS_MAX, || connections_usual),
        connections_per_address_max: read.number("connections-per-address-max", 0..=1 << 20),
        message_bytes_max: read.bytes("message-bytes-max", MESSAGE_BYTES),
        publish_bytes_max: read.bytes("publish-bytes-max", MESSAGE_BYTES),
        publish_from: read.networks("publish-from"),
        allow_origin: read.origins("allow-origin"),
        trust_proxy: read.networks("trust-proxy"),
        proxy_header: read.choice("proxy-header", PROXY_HEADERS),
        proxy_protocol: read.choice("proxy-protocol", PROXY_PROTOCOLS),
        http: HttpSettings {
            headers: read.headers("http-header"),
            error_bodies: read.error_bodies("http-error-body"),
            error_type: read.content_type("http-error-type"),
        },
        ping_interval: read.time_ms("ping-interval", 1_000..=3_600_000),
        pong_timeout: read.time_ms("pong-timeout", 100..=600_000),
        handshake_timeout: read.time_ms("handshake-timeout", 100..=600_000),
        close_timeout: read.time_ms("close-timeout", 100..=60_000),
        topics_max: read.number("topics-max", 1..=1 << 24),
        patterns_max: read.number("patterns-max", 1..=1 << 20),
        lanes_max: read.number("lanes-max", 1..=1 << 24),
        subscriptions_max: read.number("subscriptions-max", 1..=1 << 16),
        lag_bytes_max: read.bytes("lag-bytes-max", 4 << 10..=1 << 30),
        lag_messages_max: read.number("lag-messages-max", 1..=1_000_000_000),
        log_bytes_max: totals.log_bytes_max,
        overload_rotation: read.time_ms("overload-rotation", 1..=10_000),
        send_buffer_bytes: unless_zero(read.bytes("send-buffer", 0..=64 << 20)),
        notsent_lowat_bytes: unless_zero(read.bytes("notsent-lowat", 0..=64 << 20)),
        user_timeout: read.time_ms("user-timeout", 1_000..=3_600_000),
        history_bytes_max: totals.history_bytes_max,
        rules: Rules::new(read.rules("topic", totals)),
    }
}

fn journal(read: &mut Reading<'_>) -> Option<journal::Options> {
    let directory = read.directory("journal");
    let fsync = read.fsync("journal-fsync");
    let bytes_max = read.bytes("journal-bytes-max", 256 << 20..=1 << 44);
    directory.map(|directory| journal::Options::new(directory, fsync, bytes_max))
}

fn unless_zero(bytes: u32) -> Option<u32> {
    (bytes != 0).then_some(bytes)
}

/// One core per reactor, from the list of cores, which starts again when it is used up.
fn cpus(read: &mut Reading<'_>, machine: &Machine) -> Vec<usize> {
    let listed = read.cpus("cpus", &machine.cpus);
    let quota = machine.cpu_quota.unwrap_or(usize::MAX);
    let usual = listed.as_ref().map_or_else(|| machine.cpus.len().min(quota), Vec::len);
    let reactors: u32 = read.number_or("reactors", 1..=REACTORS_MAX, || {
        u32::try_from(usual).unwrap_or(REACTORS_MAX).clamp(1, REACTORS_MAX)
    });
    let cores = listed.unwrap_or_else(|| machine.cpus.clone());
    cores.into_iter().cycle().take(reactors as usize).collect()
}

/// So many that the ring's table of descriptors, which the hard limit of open files bounds, keeps room
/// for accepts and files. Where the limit is low, a twentieth of it does not hold those.
fn connections(open_files_max: u64, accepts_in_flight: u32) -> u32 {
    let others = 2 * u64::from(accepts_in_flight) + FILES;
    let most = (open_files_max / 20 * 19).min(open_files_max.saturating_sub(others));
    u32::try_from(most).unwrap_or(u32::MAX).clamp(1, CONNECTIONS_DEFAULT_MAX)
}

/// What is right by itself but not together.
fn agree(plan: &Plan, machine: &Machine, open_files_max: u64, read: &mut Reading<'_>) {
    let ports =
        [("listen", plan.listen), ("publish-listen", plan.publish_listen), ("admin", plan.admin)];
    for (index, &(name, address)) in ports.iter().enumerate() {
        let taken = |&&(_, other): &&(&str, SocketAddr)| {
            let everywhere = address.ip().is_unspecified() || other.ip().is_unspecified();
            address.port() != 0
                && address.port() == other.port()
                && (address.ip() == other.ip() || everywhere)
        };
        if let Some((other, _)) = ports[..index].iter().find(taken) {
            read.wrong(name, format!("wants a port other than --{other}'s"));
        }
    }
    for name in ["journal-fsync", "journal-bytes-max"] {
        if plan.journal.is_none() && read.is_given(name) {
            read.wrong(name, "wants --journal DIR as well, or to be left out".to_owned());
        }
    }
    let settings = &plan.settings;
    let slots = u64::from(settings.connections_max) + 2 * u64::from(plan.accepts_in_flight);
    if slots > open_files_max {
        let most = open_files_max.saturating_sub(2 * u64::from(plan.accepts_in_flight));
        let shared = match open_files_max < machine.open_files_max {
            true => format!(" for all {} reactors together on this kernel tier", plan.reactors()),
            false => String::new(),
        };
        read.wrong(
            "connections-max",
            format!(
                "wants at most {most} here, where RLIMIT_NOFILE's hard limit is {}{shared}; raise that \
                 with LimitNOFILE= (systemd), --ulimit nofile= (docker) or `ulimit -Hn`",
                machine.open_files_max
            ),
        );
    }
    if settings.proxy_protocol != ProxyProtocol::Off && settings.trust_proxy.is_empty() {
        read.wrong("proxy-protocol", "wants --trust-proxy, which says from whom".to_owned());
    }
    if settings.lag_bytes_max > settings.log_bytes_max {
        read.wrong(
            "lag-bytes-max",
            format!("wants at most --log-bytes-max, {} bytes", settings.log_bytes_max),
        );
    }
}

/// A switch that is on by default; a TOML file may say it as a boolean.
const ON_OFF: [(&str, bool); 4] = [("on", true), ("off", false), ("true", true), ("false", false)];
/// A reactor's part of the process's other descriptors: listeners, wakes, logs, the journal.
const FILES: u64 = 32;
/// More reactors than that make the mesh between them too large.
const REACTORS_MAX: u32 = 64;
/// What a ring's table of direct descriptors can hold (2^20), less what the accepts need.
const CONNECTIONS_MAX: u32 = (1 << 20) - 2 * 1_024;
const CONNECTIONS_DEFAULT_MAX: u32 = 1_000_000;
const HISTORY_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;
const LOG_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;
const MESSAGE_BYTES: RangeInclusive<u64> = 125..=64 << 20;
const PROXY_HEADERS: &[(&str, ProxyHeader)] =
    &[("x-forwarded-for", ProxyHeader::XForwardedFor), ("forwarded", ProxyHeader::Forwarded)];
const PROXY_PROTOCOLS: &[(&str, ProxyProtocol)] = &[
    ("off", ProxyProtocol::Off),
    ("optional", ProxyProtocol::Optional),
    ("required", ProxyProtocol::Required),
];

#[cfg(test)]
mod tests;
