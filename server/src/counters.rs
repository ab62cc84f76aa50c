//! What a shard counts, in memory that one thread writes and any thread may read.
//!
//! Knows: names, units and help texts. Must not know: how they are shown, or who asks.
//! A counter is written by its own shard only, so adding is a load and a store and never a locked
//! instruction; a reader sees each figure whole, but not all of them at one moment.

mod by_rule;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use self::by_rule::{RULE_FIGURES, RuleCounters, RuleDescription};

/// A figure with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owner may.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes away (gauges); only the owner may.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Sets (gauges); only the owner may.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Reads; anyone may.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the time histograms' buckets, µs; one more bucket holds what is above.
pub const TIME_BUCKETS_US: [u64; 16] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    1_000_000, 10_000_000,
];

/// Times in fixed buckets.
#[derive(Debug, Default)]
pub struct TimeHistogram {
    /// Not cumulative: bucket i counts what is above bound i-1 and at most bound i.
    pub buckets: [Counter; TIME_BUCKETS_US.len() + 1],
    /// Sum of all, µs.
    pub sum_us: Counter,
    /// The longest, µs.
    pub max_us: Counter,
}

impl TimeHistogram {
    /// Counts one time.
    pub fn record_ns(&self, ns: u64) {
        let us = ns / 1_000;
        let bucket = TIME_BUCKETS_US.partition_point(|&bound| bound < us);
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
        if us > self.max_us.value() {
            self.max_us.set(us);
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::value).sum()
    }
}

/// Whether a figure only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Only rises.
    Counter,
    /// Goes both ways.
    Gauge,
}

/// One shard's figure as the metrics page wants it.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Prometheus name.
    pub name: &'static str,
    /// Labels as they stand between the braces, `""` for none.
    pub labels: &'static str,
    /// Counter or gauge.
    pub shape: Shape,
    /// Help text.
    pub help: &'static str,
}

macro_rules! counters {
    ($($field:ident: $shape:ident, $name:literal, $labels:literal, $help:literal;)*) => {
        /// One shard's figures. Cache lines of its own, so that two shards never share one.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $(#[doc = $help] pub $field: Counter,)*
            /// CPU time of a tick that did something, short ones together.
            pub tick_cpu: TimeHistogram,
            /// Time on the wall of a tick that did something, what it slept left out.
            pub tick_wall: TimeHistogram,
            /// From a publication's appending to the last subscriber's send, per lane and rotation.
            pub publish_to_last_send: TimeHistogram,
            /// One round of visits to all subscribers of a lane.
            pub rotation: TimeHistogram,
        }

        impl Counters {
            /// Every plain figure with its description, in the order of declaration; the same names
            /// stand together.
            pub fn each(&self) -> impl Iterator<Item = (Description, u64)> + '_ {
                [$((Description { name: $name, labels: $labels, shape: Shape::$shape, help: $help }, &self.$field),)*]
                    .into_iter()
                    .map(|(description, counter)| (description, counter.value()))
            }

            /// The time histograms: name, help, histogram.
            pub fn histograms(&self) -> [(&'static str, &'static str, &TimeHistogram); 4] {
                [
                    ("uringcast_tick_cpu_seconds", "Thread CPU time of a reactor tick that did something; ticks that are over within a quarter of a millisecond count as one.", &self.tick_cpu),
                    ("uringcast_tick_wall_seconds", "Wall time of a reactor tick that did something, without what it slept.", &self.tick_wall),
                    ("uringcast_publish_to_last_send_seconds", "Time from appending a publication to a lane to its last subscriber's send.", &self.publish_to_last_send),
                    ("uringcast_rotation_seconds", "Time of one round of visits to all subscribers of a lane.", &self.rotation),
                ]
            }
        }
    };
}

counters! {
    connections: Gauge, "uringcast_connections", "", "Open connections, handshakes included.";
    subscribers: Gauge, "uringcast_subscribers", "", "Connections with at least one subscription.";
    streams: Gauge, "uringcast_sse_connections", "", "Connections that are sent Server-Sent Events.";
    publishers: Gauge, "uringcast_publishers", "", "Connections on the publish paths.";
    lagging: Gauge, "uringcast_connections_lagging", "", "Subscribers that left their lane's log and are served by sweeps.";
    blocked: Gauge, "uringcast_connections_blocked", "", "Subscribers whose socket took less than it was given, or who are caught up with as their socket has room.";
    accepted: Counter, "uringcast_accepted_total", "", "Connections accepted.";
    accept_table_full: Counter, "uringcast_accept_failures_total", "reason=\"table_full\"", "Accepts that failed.";
    accept_peer: Counter, "uringcast_accept_failures_total", "reason=\"peer\"", "Accepts that failed.";
    accept_system: Counter, "uringcast_accept_failures_total", "reason=\"system\"", "Accepts that failed.";
    refused_limit: Counter, "uringcast_accept_failures_total", "reason=\"connections_max\"", "Accepts that failed.";
    handshakes: Counter, "uringcast_handshakes_total", "result=\"upgraded\"", "Opening handshakes and plain requests, by result.";
    handshakes_plain: Counter, "uringcast_handshakes_total", "result=\"plain\"", "Opening handshakes and plain requests, by result.";
    handshakes_stream: Counter, "uringcast_handshakes_total", "result=\"stream\"", "Opening handshakes and plain requests, by result.";
    handshakes_bad_request: Counter, "uringcast_handshakes_total", "result=\"400\"", "Opening handshakes and plain requests, by result.";
    handshakes_forbidden: Counter, "uringcast_handshakes_total", "result=\"403\"", "Opening handshakes and plain requests, by result.";
    handshakes_not_found: Counter, "uringcast_handshakes_total", "result=\"404\"", "Opening handshakes and plain requests, by result.";
    handshakes_method: Counter, "uringcast_handshakes_total", "result=\"405\"", "Opening handshakes and plain requests, by result.";
    handshakes_timeout: Counter, "uringcast_handshakes_total", "result=\"408\"", "Opening handshakes and plain requests, by result.";
    handshakes_version: Counter, "uringcast_handshakes_total", "result=\"426\"", "Opening handshakes and plain requests, by result.";
    handshakes_too_many: Counter, "uringcast_handshakes_total", "result=\"429\"", "Opening handshakes and plain requests, by result.";
    handshakes_too_large: Counter, "uringcast_handshakes_total", "result=\"431\"", "Opening handshakes and plain requests, by result.";
    handshakes_busy: Counter, "uringcast_handshakes_total", "result=\"503\"", "Opening handshakes and plain requests, by result.";
    handshakes_version_http: Counter, "uringcast_handshakes_total", "result=\"505\"", "Opening handshakes and plain requests, by result.";
    handshakes_gone: Counter, "uringcast_handshakes_total", "result=\"gone\"", "Opening handshakes and plain requests, by result.";
    received_messages: Counter, "uringcast_received_messages_total", "", "WebSocket messages received, control frames apart.";
    received_bytes: Counter, "uringcast_received_bytes_total", "", "Bytes received on data and publish ports.";
    deflate_in_messages: Counter, "uringcast_deflate_in_messages_total", "", "Compressed messages received and decompressed; they are in uringcast_received_messages_total too.";
    deflate_in_bytes: Counter, "uringcast_deflate_in_bytes_total", "", "Bytes that those messages decompressed to.";
    publications: Counter, "uringcast_publications_total", "", "Publications ordered by this shard as their topics' home.";
    publications_bytes: Counter, "uringcast_publications_bytes_total", "", "Payload bytes of those publications.";
    publications_duplicate: Counter, "uringcast_publications_refused_total", "reason=\"duplicate\"", "Publications not published, by reason.";
    publications_invalid: Counter, "uringcast_publications_refused_total", "reason=\"invalid\"", "Publications not published, by reason.";
    publications_busy: Counter, "uringcast_publications_refused_total", "reason=\"busy\"", "Publications not published, by reason.";
    publications_limit: Counter, "uringcast_publications_refused_total", "reason=\"limit\"", "Publications not published, by reason.";
    publications_forbidden: Counter, "uringcast_publications_refused_total", "reason=\"forbidden\"", "Publications not published, by reason.";
    deliveries: Counter, "uringcast_deliveries_total", "", "Messages sent to subscribers: one per message and subscriber.";
    sends: Counter, "uringcast_sends_total", "", "SENDs of lane ranges; deliveries over sends is the messages per SEND.";
    sent_bytes: Counter, "uringcast_sent_bytes_total", "", "Bytes sent.";
    sends_own: Counter, "uringcast_sends_own_total", "", "SENDs of a connection's own output (answers, pongs, sweeps).";
    sends_short: Counter, "uringcast_sends_troubled_total", "outcome=\"short\"", "SENDs that did not take all their bytes.";
    sends_full: Counter, "uringcast_sends_troubled_total", "outcome=\"full\"", "SENDs that did not take all their bytes.";
    sends_dead: Counter, "uringcast_sends_troubled_total", "outcome=\"dead\"", "SENDs that did not take all their bytes.";
    skipped: Counter, "uringcast_skipped_messages_total", "kind=\"value\"", "Messages a lagging subscriber was not sent because a newer one of their topic stood for them.";
    lags: Counter, "uringcast_lags_total", "", "Times a subscriber passed its lag bound.";
    gaps: Counter, "uringcast_gaps_total", "", "Times a subscriber was told that messages are not coming.";
    snapshots_sent: Counter, "uringcast_snapshots_total", "state=\"sent\"", "Snapshots: sent to subscribers, taken from publishers, or wanted by a subscriber and not there.";
    snapshots_published: Counter, "uringcast_snapshots_total", "state=\"published\"", "Snapshots: sent to subscribers, taken from publishers, or wanted by a subscriber and not there.";
    snapshots_missing: Counter, "uringcast_snapshots_total", "state=\"missing\"", "Snapshots: sent to subscribers, taken from publishers, or wanted by a subscriber and not there.";
    resumed: Counter, "uringcast_resumes_total", "recovered=\"true\"", "Topics resumed by subscribers, by whether everything missed could be sent.";
    resumed_not: Counter, "uringcast_resumes_total", "recovered=\"false\"", "Topics resumed by subscribers, by whether everything missed could be sent.";
    sampled: Counter, "uringcast_sampled_total", "", "Publications that a newer one took the place of before their topic's tick (pace = sample).";
    expired: Counter, "uringcast_expired_topics_total", "", "Topics forgotten because nothing was published to them for longer than their expire.";
    rejoins: Counter, "uringcast_rejoins_total", "", "Times a lagging subscriber caught up.";
    waits_gathered: Counter, "uringcast_waits_gathered_total", "", "Waits of a reactor that was busy for most of the time: for 64 completions, or for any after 100 µs.";
    overload_rotations: Counter, "uringcast_overload_rotations_total", "", "Rotations of a lane that took longer than the overload bound.";
    overloaded: Gauge, "uringcast_overloaded", "", "1 while publishers are being slowed: those of late lanes, or all.";
    publishers_slowed: Counter, "uringcast_publishers_slowed_total", "", "Times nothing more was received from a publisher for a while, because a lane that its topic goes to was late.";
    parked: Gauge, "uringcast_mesh_parked", "", "Messages parked because another shard's ring is full.";
    mesh_full: Counter, "uringcast_mesh_full_total", "", "Times a message had to be parked.";
    receive_starved: Counter, "uringcast_receive_starved_total", "", "Receives put off because the shared buffers were all out.";
    deflate_publications: Counter, "uringcast_deflate_broadcast_publications_total", "", "Publications compressed for subscribers, each once however many they are.";
    deflate_bytes_in: Counter, "uringcast_deflate_broadcast_bytes_total", "stage=\"before\"", "Bytes of messages compressed for subscribers, once per distinct result, and of the frames that they became.";
    deflate_bytes_out: Counter, "uringcast_deflate_broadcast_bytes_total", "stage=\"after\"", "Bytes of messages compressed for subscribers, once per distinct result, and of the frames that they became.";
    deflate_skipped: Counter, "uringcast_deflate_broadcast_skipped_total", "reason=\"busy\"", "Publications that went plain to subscribers who would take them compressed.";
    deflate_useless: Counter, "uringcast_deflate_broadcast_skipped_total", "reason=\"no_gain\"", "Publications that went plain to subscribers who would take them compressed.";
    deflate_helper: Counter, "uringcast_deflate_helper_total", "", "Publications handed to the helper thread because they are long.";
    deflate_held: Gauge, "uringcast_deflate_held", "", "Publications out at the helper thread, and what waits behind them.";
    topics: Gauge, "uringcast_topics", "", "Topics known to this shard.";
    lanes: Gauge, "uringcast_lanes", "", "Lanes on this shard.";
    patterns: Gauge, "uringcast_patterns", "", "Patterns subscribed to on this shard.";
    log_bytes: Gauge, "uringcast_lane_log_bytes", "", "Bytes of lane logs.";
    pool_bytes: Gauge, "uringcast_pool_bytes", "", "Bytes of the shard's buffer pool, free or in use.";
    journal_unsent: Counter, "uringcast_journal_unsent_total", "", "Entries for the journal that found the way to the control thread full; topics are not recoverable beyond them.";
    pings: Counter, "uringcast_pings_total", "", "Pings sent.";
    closed_normal: Counter, "uringcast_closed_total", "by=\"peer\",code=\"1000\",reason=\"normal\"", "Connections closed, by who closed, code and reason.";
    closed_going_away: Counter, "uringcast_closed_total", "by=\"peer\",code=\"1001\",reason=\"going_away\"", "Connections closed, by who closed, code and reason.";
    closed_peer_other: Counter, "uringcast_closed_total", "by=\"peer\",code=\"other\",reason=\"other\"", "Connections closed, by who closed, code and reason.";
    closed_no_status: Counter, "uringcast_closed_total", "by=\"peer\",code=\"1005\",reason=\"no_status\"", "Connections closed, by who closed, code and reason.";
    closed_abnormal: Counter, "uringcast_closed_total", "by=\"peer\",code=\"1006\",reason=\"no_close_frame\"", "Connections closed, by who closed, code and reason.";
    closed_stream: Counter, "uringcast_closed_total", "by=\"peer\",code=\"none\",reason=\"stream_left\"", "Connections closed, by who closed, code and reason.";
    closed_reset: Counter, "uringcast_closed_total", "by=\"peer\",code=\"1006\",reason=\"reset\"", "Connections closed, by who closed, code and reason.";
    closed_shutdown: Counter, "uringcast_closed_total", "by=\"server\",code=\"1001\",reason=\"shutdown\"", "Connections closed, by who closed, code and reason.";
    closed_protocol: Counter, "uringcast_closed_total", "by=\"server\",code=\"1002\",reason=\"protocol_error\"", "Connections closed, by who closed, code and reason.";
    closed_unsupported: Counter, "uringcast_closed_total", "by=\"server\",code=\"1003\",reason=\"unsupported\"", "Connections closed, by who closed, code and reason.";
    closed_invalid: Counter, "uringcast_closed_total", "by=\"server\",code=\"1007\",reason=\"invalid_payload\"", "Connections closed, by who closed, code and reason.";
    closed_policy: Counter, "uringcast_closed_total", "by=\"server\",code=\"1008\",reason=\"policy\"", "Connections closed, by who closed, code and reason.";
    closed_too_big: Counter, "uringcast_closed_total", "by=\"server\",code=\"1009\",reason=\"message_too_big\"", "Connections closed, by who closed, code and reason.";
    closed_slow: Counter, "uringcast_closed_total", "by=\"server\",code=\"1013\",reason=\"slow\"", "Connections closed, by who closed, code and reason.";
    closed_slow_reset: Counter, "uringcast_closed_total", "by=\"server\",code=\"1013\",reason=\"slow_reset\"", "Connections closed, by who closed, code and reason.";
    closed_budget: Counter, "uringcast_closed_total", "by=\"server\",code=\"1013\",reason=\"log_budget\"", "Connections closed, by who closed, code and reason.";
    closed_ping_timeout: Counter, "uringcast_closed_total", "by=\"server\",code=\"1008\",reason=\"ping_timeout\"", "Connections closed, by who closed, code and reason.";
    closed_system: Counter, "uringcast_closed_total", "by=\"server\",code=\"1011\",reason=\"system\"", "Connections closed, by who closed, code and reason.";
    close_timeouts: Counter, "uringcast_close_timeouts_total", "", "Connections whose peer did not finish the closing handshake in time.";
    offence_unmasked: Counter, "uringcast_offences_total", "kind=\"unmasked\"", "Offences of peers against RFC 6455 or the protocol.";
    offence_reserved: Counter, "uringcast_offences_total", "kind=\"reserved_bits\"", "Offences of peers against RFC 6455 or the protocol.";
    offence_opcode: Counter, "uringcast_offences_total", "kind=\"opcode\"", "Offences of peers against RFC 6455 or the protocol.";
    offence_control: Counter, "uringcast_offences_total", "kind=\"control_frame\"", "Offences of peers against RFC 6455 or the protocol.";
    offence_fragment: Counter, "uringcast_offences_total", "kind=\"fragmentation\"", "Offences of peers against RFC 6455 or the protocol.";
    offence_length: Counter, "uringcast_offences_total", "kind=\"length\"", "Offences of peers against RFC 6455 or the protocol.";
    offence_utf8: Counter, "uringcast_offences_total", "kind=\"utf8\"", "Offences of peers against RFC 6455 or the protocol.";
    offence_close: Counter, "uringcast_offences_total", "kind=\"close_frame\"", "Offences of peers against RFC 6455 or the protocol.";
    offence_too_big: Counter, "uringcast_offences_total", "kind=\"too_big\"", "Offences of peers against RFC 6455 or the protocol.";
    offence_deflate: Counter, "uringcast_offences_total", "kind=\"deflate\"", "Offences of peers against RFC 6455 or the protocol.";
    offence_command: Counter, "uringcast_offences_total", "kind=\"command\"", "Offences of peers against RFC 6455 or the protocol.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_goes_into_the_bucket_whose_bound_is_not_below_it() {
        let histogram = TimeHistogram::default();
        histogram.record_ns(10_000);
        histogram.record_ns(11_000);
        histogram.record_ns(99_000_000_000);
        assert_eq!(histogram.buckets[0].value(), 1);
        assert_eq!(histogram.buckets[1].value(), 1);
        assert_eq!(histogram.buckets[TIME_BUCKETS_US.len()].value(), 1);
        assert_eq!(histogram.count(), 3);
    }

    #[test]
    fn figures_of_one_name_stand_together_and_differ_in_their_labels() {
        let counters = Counters::default();
        let all: Vec<_> = counters.each().map(|(d, _)| (d.name, d.labels)).collect();
        let mut seen = std::collections::HashSet::new();
        let mut last = "";
        for (name, labels) in &all {
            assert!(seen.insert((*name, *labels)), "{name}{{{labels}}} twice");
            if *name != last {
                assert_eq!(
                    all.iter().filter(|(n, _)| n == name).count(),
                    all.iter()
                        .skip_while(|(n, _)| n != name)
                        .take_while(|(n, _)| n == name)
                        .count()
                );
                last = name;
            }
        }
    }
}
