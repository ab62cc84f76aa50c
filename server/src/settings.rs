//! What a shard obeys: every bound and choice, decided before anything runs.
//!
//! Knows: names, units, defaults and the reason of each default. Must not know: flags, files, or
//! running objects.

use std::time::Duration;

use ipnet::IpNet;
use uringcast_protocol::{forwarded::ProxyHeader, response::Page};

use crate::rules::Rules;

/// Whether the data port's connections from trusted proxies begin with a PROXY line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None does.
    #[default]
    Off,
    /// Some may: for the time of a change. A proxy that sends none hands its clients the choice.
    Optional,
    /// All do.
    Required,
}

/// What the HTTP answers of the data and publish ports say besides what they must.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Header lines of every answer, 101 included, each with its line end.
    pub headers: String,
    /// Bodies of errors; `None` stands for every status that has none of its own.
    pub error_bodies: Vec<(Option<u16>, String)>,
    /// What these bodies are.
    pub error_type: String,
}

impl HttpSettings {
    /// The body of an error, if it is not to be the server's own.
    pub fn page(&self, status: u16) -> Option<Page<'_>> {
        let of = |wanted| self.error_bodies.iter().find(|(status, _)| *status == wanted);
        let (_, template) = of(Some(status)).or_else(|| of(None))?;
        Some(Page { content_type: &self.error_type, template })
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            headers: String::new(),
            error_bodies: Vec::new(),
            error_type: "text/plain; charset=utf-8".to_owned(),
        }
    }
}

/// What a shard obeys.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Adds `/echo` on the data port.
    pub echo: bool,
    /// permessage-deflate is agreed to where a client offers it.
    pub deflate: bool,
    /// Shorter messages are not compressed for subscribers, bytes. Usual: below 128, recorded market
    /// data becomes 5 to 13 % shorter at the most; from there on a fifth and more.
    pub deflate_min_bytes: u32,
    /// Connections per shard, handshakes included.
    pub connections_max: u32,
    /// Connections of one client's address to the data port, per shard; 0 for no bound.
    pub connections_per_address_max: u32,
    /// A message from a client, bytes (1009 above).
    pub message_bytes_max: u32,
    /// A message from a publisher, bytes (1009 above).
    pub publish_bytes_max: u32,
    /// From where the data port's clients may publish.
    pub publish_from: Vec<IpNet>,
    /// Allowed origins besides the page's own host, in lower case: names, `*.example.com`, either
    /// after a scheme and with a port, or `*`.
    pub allow_origin: Vec<String>,
    /// Proxies that are believed when they say who a client is.
    pub trust_proxy: Vec<IpNet>,
    /// Where they say it.
    pub proxy_header: ProxyHeader,
    /// Whether they say it before the first byte.
    pub proxy_protocol: ProxyProtocol,
    /// What HTTP answers say.
    pub http: HttpSettings,
    /// A ping to each connection every so often.
    pub ping_interval: Duration,
    /// A connection that sends nothing for so long after a ping is closed.
    pub pong_timeout: Duration,
    /// From accept to the end of the request's head.
    pub handshake_timeout: Duration,
    /// From our Close frame to the peer's.
    pub close_timeout: Duration,
    /// Topics per process.
    pub topics_max: u32,
    /// Patterns subscribed to, per shard.
    pub patterns_max: u32,
    /// Lanes per shard.
    pub lanes_max: u32,
    /// Subscriptions per connection.
    pub subscriptions_max: u32,
    /// A blocked subscriber's lag bound, bytes appended since its socket was full.
    pub lag_bytes_max: u64,
    /// A blocked subscriber's lag bound, messages appended since its socket was full.
    pub lag_messages_max: u64,
    /// All lane logs of the process together, bytes.
    pub log_bytes_max: u64,
    /// A lane whose rotation is longer than this is late: who publishes to it is slowed.
    pub overload_rotation: Duration,
    /// `SO_SNDBUF` of each connection, bytes; `None` leaves it to the kernel.
    pub send_buffer_bytes: Option<u32>,
    /// `TCP_NOTSENT_LOWAT` of each connection, bytes; `None` leaves it to the kernel.
    pub notsent_lowat_bytes: Option<u32>,
    /// `TCP_USER_TIMEOUT` of each connection.
    pub user_timeout: Duration,
    /// All history of the process, bytes; beyond it the topics published to lose their oldest.
    pub history_bytes_max: u64,
    /// Rules for topics, first match wins.
    pub rules: Rules,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            echo: false,
            deflate: true,
            deflate_min_bytes: 128,
            connections_max: 19_000,
            connections_per_address_max: 0,
            message_bytes_max: 64 << 10,
            publish_bytes_max: 1 << 20,
            publish_from: Vec::new(),
            allow_origin: Vec::new(),
            trust_proxy: Vec::new(),
            proxy_header: ProxyHeader::default(),
            proxy_protocol: ProxyProtocol::default(),
            http: HttpSettings::default(),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            topics_max: 1 << 20,
            patterns_max: 10_000,
            lanes_max: 100_000,
            subscriptions_max: 1_024,
            lag_bytes_max: 4 << 20,
            lag_messages_max: 10_000,
            log_bytes_max: 1 << 30,
            overload_rotation: Duration::from_millis(100),
            send_buffer_bytes: Some(256 << 10),
            notsent_lowat_bytes: Some(16 << 10),
            user_timeout: Duration::from_secs(30),
            history_bytes_max: 1 << 30,
            rules: Rules::default(),
        }
    }
}
