//! Every flag of `serve`: its name, unit, default and what it is for.
//!
//! Knows: words. Must not know: what a value means, or whether it is right (`plan` does).

/// One flag. The configuration file has the same names, with `_` or `-`.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Long name, without the dashes.
    pub name: &'static str,
    /// How its value is shown in the help; empty for a switch.
    pub value: &'static str,
    /// What it is when not given.
    pub default: Fallback,
    /// May be given more than once.
    pub repeats: bool,
    /// Heading in the help.
    pub heading: &'static str,
    /// What it is for, units said.
    pub help: &'static str,
}

/// What a flag is when not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// As if this had been typed.
    Typed(&'static str),
    /// Found out at start, by what these words say.
    Found(&'static str),
    /// Nothing.
    Nothing,
}

const fn one(
    heading: &'static str,
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, value, default: Fallback::Typed(default), repeats: false, heading, help }
}

const fn found(
    heading: &'static str,
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, value, default: Fallback::Found(default), repeats: false, heading, help }
}

const fn many(
    heading: &'static str,
    name: &'static str,
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, value, default: Fallback::Nothing, repeats: true, heading, help }
}

const fn switch(heading: &'static str, name: &'static str, help: &'static str) -> Flag {
    Flag { name, value: "", default: Fallback::Nothing, repeats: false, heading, help }
}

const PORTS: &str = "Ports and rights";
const PROXIES: &str = "Proxies before the data port";
const HTTP: &str = "HTTP answers of the data and publish ports";
const MACHINE: &str = "Machine";
const CONNECTIONS: &str = "Connections";
const TOPICS: &str = "Topics and subscriptions";
const SLOW: &str = "Subscribers that can't keep up";
const SOCKETS: &str = "Sockets";
const JOURNAL: &str = "What outlives the process";
const LOGS: &str = "Logs";

/// All flags of `serve` but `--config`, in the order of the help.
pub const FLAGS: &[Flag] = &[
    one(
        PORTS,
        "listen",
        "ADDR:PORT",
        "0.0.0.0:9001",
        "Where clients connect: /ws, /raw/<topic>, /healthz. Port 0 picks a free one, which is printed.",
    ),
    one(
        PORTS,
        "publish-listen",
        "ADDR:PORT",
        "127.0.0.1:9003",
        "Where publishers connect: /publish, /publish/<topic>. Whoever reaches this port may publish.",
    ),
    one(
        PORTS,
        "admin",
        "ADDR:PORT",
        "127.0.0.1:9002",
        "Where the admin HTTP API, /metrics and the live page are. Whoever reaches this port may publish and delete topics.",
    ),
    many(
        PORTS,
        "admin-host",
        "HOST",
        "Another name by which the admin port may be asked for in the Host header; IP addresses and localhost always may. Repeatable.",
    ),
    many(
        PORTS,
        "publish-from",
        "ADDR/BITS",
        "Clients from these addresses may publish on the data port too, unless a forwarding header or an Origin shows that they are not who they seem; a client that a trusted proxy names counts by its own address, but never as loopback. Repeatable.",
    ),
    many(
        PORTS,
        "allow-origin",
        "HOST",
        "A web page from this host may connect: a name, *.example.com, either with its scheme and port (https://example.com:8443), or * for all. A page from the host that it connects to always may, ports ignored. Repeatable.",
    ),
    switch(
        PORTS,
        "echo",
        "Adds /echo on the data port, which sends back what it gets; for conformance tests.",
    ),
    many(
        PROXIES,
        "trust-proxy",
        "ADDR/BITS",
        "A proxy at these addresses is believed when it says who a client is: in logs, /v1/connections, limits by address and --publish-from the client's own address stands then. Repeatable.",
    ),
    one(
        PROXIES,
        "proxy-header",
        "NAME",
        "x-forwarded-for",
        "Where trusted proxies say it: x-forwarded-for or forwarded. The other one is not believed, because a proxy passes it on as the client sent it.",
    ),
    one(
        PROXIES,
        "proxy-protocol",
        "WHEN",
        "off",
        "Whether connections from trusted proxies begin with a PROXY line, version 1 or 2: off, required, or (for the time of a change) optional.",
    ),
    many(
        HTTP,
        "http-header",
        "NAME:VALUE",
        "A header of every answer, 101 included; in the file a table or list, [http] headers. Repeatable.",
    ),
    many(
        HTTP,
        "http-error-body",
        "[STATUS:]TEXT",
        "The body of errors, or of one status; {status}, {reason} and {error} are filled in. In the file [http] error_body, a string or a table by status with \"default\" for the others. Repeatable.",
    ),
    one(
        HTTP,
        "http-error-type",
        "TYPE",
        "text/plain; charset=utf-8",
        "The Content-Type of these bodies; in the file [http] error_type.",
    ),
    found(
        MACHINE,
        "reactors",
        "N",
        "the cores of the affinity mask, at most the cgroup's CPU quota rounded up",
        "Threads with a ring each, 1 to 64.",
    ),
    found(
        MACHINE,
        "cpus",
        "LIST",
        "the cores of the affinity mask in their order",
        "Cores to pin the reactors to, such as 0,1 or 0-3; with more reactors than cores the list starts again.",
    ),
    one(
        MACHINE,
        "kernel-tier",
        "TIER",
        "auto",
        "auto: the best that this kernel offers. base: only what Linux 5.10 has.",
    ),
    found(
        CONNECTIONS,
        "connections-max",
        "N",
        "19/20 of RLIMIT_NOFILE's hard limit, at most 1000000",
        "Connections per reactor, handshakes included. Before Linux 6.13, and on the base tier, \
         all reactors share the limit of open files.",
    ),
    one(
        CONNECTIONS,
        "connections-per-address-max",
        "N",
        "0",
        "Connections of one client's address (of IPv6: its /64) to the data port, per reactor; one more is refused with 429. 0 for no bound.",
    ),
    one(
        CONNECTIONS,
        "message-bytes-max",
        "BYTES",
        "64KiB",
        "Longest message from a client; a longer one closes with 1009.",
    ),
    one(
        CONNECTIONS,
        "publish-bytes-max",
        "BYTES",
        "1MiB",
        "Longest message from a publisher, by WebSocket (1009) or HTTP (413).",
    ),
    one(
        CONNECTIONS,
        "deflate",
        "on|off",
        "on",
        "Agrees to compress messages (permessage-deflate) where a client offers it. Neither side keeps a context from one message to the next, so a compressed connection takes no more memory than a plain one.",
    ),
    one(
        CONNECTIONS,
        "deflate-min-bytes",
        "BYTES",
        "128",
        "Shorter messages go out plain to subscribers that agreed on permessage-deflate.",
    ),
    one(
        CONNECTIONS,
        "handshake-timeout",
        "TIME",
        "10s",
        "From accepting a connection, or from the answer before, to the end of its request's head.",
    ),
    one(
        CONNECTIONS,
        "ping-interval",
        "TIME",
        "25s",
        "A ping to each connection every so often, spread over that time.",
    ),
    one(
        CONNECTIONS,
        "pong-timeout",
        "TIME",
        "10s",
        "A connection that sends nothing for so long after a ping, or until the next, is closed.",
    ),
    one(
        CONNECTIONS,
        "close-timeout",
        "TIME",
        "5s",
        "From our Close frame to the peer's; then the connection is reset.",
    ),
    many(
        TOPICS,
        "topic",
        "RULE",
        "A rule for topics, such as 'md.*.depth:kind=delta,history-messages=5000' or 'md.>:kind=value,sample=100ms'. Keys: kind (event, value or delta), content (auto, json, text or binary), history-messages, history-bytes, history-age, snapshot (last, published or none), overflow (close or gap), lag-bytes-max, lag-messages-max, lag-age-max, pace (live), batch, sample, stale-after, expire, publish-from, subscribe-from (the last two repeatable). The README explains each. The first rule that matches a topic holds; those typed here stand before the file's. Repeatable.",
    ),
    one(
        TOPICS,
        "history-bytes-max",
        "BYTES",
        "1GiB",
        "History of all topics together; beyond it the topic that is published to loses its own oldest.",
    ),
    one(TOPICS, "topics-max", "N", "1048576", "Topics of the process."),
    one(TOPICS, "patterns-max", "N", "10000", "Patterns subscribed to, per reactor."),
    one(
        TOPICS,
        "lanes-max",
        "N",
        "100000",
        "Lanes per reactor; subscribers with the same interest and format share one.",
    ),
    one(TOPICS, "subscriptions-max", "N", "1024", "Subscriptions of one connection."),
    one(
        SLOW,
        "lag-bytes-max",
        "BYTES",
        "4MiB",
        "A subscriber whose socket is full has lagged too far when so much was published since: value topics are conflated for it, event topics close it with 1013.",
    ),
    one(SLOW, "lag-messages-max", "N", "10000", "The same in messages; whichever comes first."),
    one(
        SLOW,
        "log-bytes-max",
        "BYTES",
        "1GiB",
        "All lanes' logs of the process together; beyond it the worst laggards go first.",
    ),
    one(
        SLOW,
        "overload-rotation",
        "TIME",
        "100ms",
        "When serving all subscribers of a lane once takes longer than this, and than three times what a send to each connection takes (15 us or more), publishers to that lane are slowed.",
    ),
    one(
        SOCKETS,
        "send-buffer",
        "BYTES",
        "256KiB",
        "SO_SNDBUF of each connection; 0 leaves it to the kernel, which gives a stalled one 4 MB.",
    ),
    one(
        SOCKETS,
        "notsent-lowat",
        "BYTES",
        "16KiB",
        "TCP_NOTSENT_LOWAT of each connection: so much may wait unsent in its socket; 0 leaves it to the kernel.",
    ),
    one(
        SOCKETS,
        "user-timeout",
        "TIME",
        "30s",
        "TCP_USER_TIMEOUT: a peer that acknowledges nothing for so long is gone.",
    ),
    one(
        SOCKETS,
        "backlog",
        "N",
        "4096",
        "Connections that may wait to be accepted, per reactor; net.core.somaxconn bounds it too.",
    ),
    one(
        SOCKETS,
        "accepts-in-flight",
        "N",
        "64",
        "Accepts kept in the kernel, per reactor and port.",
    ),
    one(
        SOCKETS,
        "receive-buffers",
        "N",
        "1024",
        "Shared receive buffers per reactor, a power of two.",
    ),
    one(SOCKETS, "receive-buffer-bytes", "BYTES", "2KiB", "Size of each."),
    found(
        JOURNAL,
        "journal",
        "DIR",
        "nothing is kept",
        "Keeps history, last values and published snapshots in this directory, which is made if it is not there; resuming then works across a restart. One server per directory.",
    ),
    one(
        JOURNAL,
        "journal-fsync",
        "WHEN",
        "100ms",
        "When what was written to the journal is forced to the disk: always (after each batch), a time (so long after a write at the latest) or off (left to the kernel: a crash of the machine may lose some, one of the process does not).",
    ),
    one(
        JOURNAL,
        "journal-bytes-max",
        "BYTES",
        "8GiB",
        "The journal's size; beyond it the oldest history goes first.",
    ),
    one(LOGS, "log-format", "FORMAT", "text", "Log lines on stderr: text or json."),
    one(
        LOGS,
        "log-level",
        "LEVEL",
        "info",
        "error, warn, info, debug or trace; or a filter such as info,uringcast::control=debug.",
    ),
];
