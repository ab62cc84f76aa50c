//! The metrics page: Prometheus' text format, version 0.0.4.
//!
//! Knows: the format. Must not know: what the figures mean. Every shard's figure has its label
//! `shard`, so that one overloaded core is not lost in a sum.

use std::fmt::Write as _;

use uringcast_ring::{Capabilities, Feature};

use super::process::Usage;
use crate::{
    counters::{Counters, RULE_FIGURES, Shape, TIME_BUCKETS_US, TimeHistogram},
    journal::Figures,
    shared::{Shared, Stage},
};

/// What the page's text is called in Content-Type.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole page.
pub(super) fn page(
    shared: &Shared,
    usage: &Usage,
    lines_dropped: u64,
    journal: Option<&Figures>,
) -> String {
    let mut page = Page(String::with_capacity(32 << 10));
    page.shards(&shared.counters);
    page.rules(shared);
    page.histograms(&shared.counters);
    page.process(shared, usage, lines_dropped);
    if let Some(figures) = journal {
        page.journal(figures);
    }
    page.0
}

struct Page(String);

impl Page {
    fn shards(&mut self, shards: &[Counters]) {
        let Some(first) = shards.first() else { return };
        let mut last = "";
        for (index, (figure, _)) in first.each().enumerate() {
            if figure.name != last {
                self.head(figure.name, figure.shape, figure.help);
                last = figure.name;
            }
            let comma = if figure.labels.is_empty() { "" } else { "," };
            for (shard, counters) in shards.iter().enumerate() {
                // All shards count the same figures in the same order.
                let value = counters.each().nth(index).map_or(0, |(_, value)| value);
                let labels = figure.labels;
                self.line(format_args!(
                    "{}{{shard=\"{shard}\"{comma}{labels}}} {value}",
                    figure.name
                ));
            }
        }
    }

    /// By rule and so by kind, over all shards: with a thousand rules there are lines enough.
    fn rules(&mut self, shared: &Shared) {
        // A rule with the pattern of one before it matches nothing, and would be the same line.
        let rules: Vec<_> = shared.by_rule().filter(|(rule, _)| rule.matches).collect();
        let mut last = "";
        for (index, figure) in RULE_FIGURES.iter().enumerate() {
            if figure.name != last {
                self.head(figure.name, Shape::Counter, figure.help);
                last = figure.name;
            }
            let comma = if figure.labels.is_empty() { "" } else { "," };
            for (rule, values) in &rules {
                // Patterns hold nothing that would have to be escaped.
                self.line(format_args!(
                    "{}{{rule=\"{}\",kind=\"{}\"{comma}{}}} {}",
                    figure.name, rule.pattern, rule.kind, figure.labels, values[index]
                ));
            }
        }
    }

    fn histograms(&mut self, shards: &[Counters]) {
        let Some(first) = shards.first() else { return };
        for (index, (name, help, _)) in first.histograms().into_iter().enumerate() {
            self.line(format_args!("# HELP {name} {help}\n# TYPE {name} histogram"));
            let each = || shards.iter().map(move |shard| shard.histograms()[index].2).enumerate();
            for (shard, histogram) in each() {
                self.histogram(name, &format!("shard=\"{shard}\""), histogram);
            }
            let longest = format!("{name}_longest").replace("_seconds_longest", "_longest_seconds");
            self.head(&longest, Shape::Gauge, "The longest since the start.");
            for (shard, histogram) in each() {
                let seconds = Seconds(histogram.max_us.value());
                self.line(format_args!("{longest}{{shard=\"{shard}\"}} {seconds}"));
            }
        }
    }

    /// `labels`: as they stand between the braces, `""` for none.
    fn histogram(&mut self, name: &str, labels: &str, histogram: &TimeHistogram) {
        let mut below = 0;
        let comma = if labels.is_empty() { "" } else { "," };
        for (bucket, bound_us) in histogram.buckets.iter().zip(TIME_BUCKETS_US) {
            below += bucket.value();
            let bound = Seconds(bound_us);
            self.line(format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}"));
        }
        // Read once, so that +Inf and _count are the same though the shard goes on counting.
        below += histogram.buckets[TIME_BUCKETS_US.len()].value();
        let sum = Seconds(histogram.sum_us.value());
        self.line(format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {below}"));
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        self.line(format_args!("{name}_sum{labels} {sum}"));
        self.line(format_args!("{name}_count{labels} {below}"));
    }

    fn ring(&mut self, ring: &Capabilities) {
        let name = "uringcast_ring_tier";
        self.head(name, Shape::Gauge, "Always 1; how much of io_uring is used is in the label.");
        self.line(format_args!("{name}{{tier=\"{}\"}} 1", ring.tier()));
        let name = "uringcast_ring_feature";
        let what =
            "1 if that feature of io_uring is used, 0 if the kernel lacks it or may not use it.";
        self.head(name, Shape::Gauge, what);
        for Feature { name: feature, since, there } in ring.features() {
            let there = u8::from(there);
            self.line(format_args!("{name}{{feature=\"{feature}\",since=\"{since}\"}} {there}"));
        }
    }

    fn process(&mut self, shared: &Shared, usage: &Usage, lines_dropped: u64) {
        use Shape::{Counter, Gauge};
        let ready = u8::from(shared.stage() == Stage::Ready);
        let version = env!("CARGO_PKG_VERSION");
        let log_bytes = shared.log_bytes.load(std::sync::atomic::Ordering::Relaxed);
        self.head("uringcast_build_info", Gauge, "Always 1; the version is in the label.");
        self.line(format_args!("uringcast_build_info{{version=\"{version}\"}} 1"));
        if let Some(ring) = shared.ring.get() {
            self.ring(ring);
        }
        self.one("uringcast_reactors", Gauge, "Reactors.", shared.counters.len());
        self.one("uringcast_ready", Gauge, "1 while new connections are accepted.", ready);
        self.one(
            "uringcast_process_lane_log_bytes",
            Gauge,
            "Bytes of all lanes' logs, bounded by --log-bytes-max.",
            log_bytes,
        );
        self.one(
            "uringcast_log_lines_dropped_total",
            Counter,
            "Log lines dropped because stderr did not take them in time.",
            lines_dropped,
        );
        self.one(
            "process_resident_memory_bytes",
            Gauge,
            "Resident memory size in bytes.",
            usage.resident_bytes,
        );
        self.one(
            "process_virtual_memory_bytes",
            Gauge,
            "Virtual memory size in bytes.",
            usage.virtual_bytes,
        );
        self.one(
            "process_cpu_seconds_total",
            Counter,
            "Total user and system CPU time spent in seconds.",
            usage.cpu_s,
        );
        self.one("process_open_fds", Gauge, "Number of open file descriptors.", usage.open_files);
        self.one(
            "process_max_fds",
            Gauge,
            "Maximum number of open file descriptors.",
            usage.open_files_max,
        );
        self.one("process_threads", Gauge, "Number of OS threads.", usage.threads);
    }

    fn journal(&mut self, figures: &Figures) {
        use Shape::{Counter, Gauge};
        for (name, shape, help, figure) in [
            ("bytes_written_total", Counter, "Bytes written to it.", &figures.written_bytes),
            ("records_total", Counter, "Records taken into it.", &figures.records),
            (
                "copied_total",
                Counter,
                "Records copied forward out of segments that were to be deleted.",
                &figures.copied,
            ),
            (
                "dropped_total",
                Counter,
                "Publications, snapshots and deletions that it did not take in; topics are not recoverable beyond them.",
                &figures.dropped,
            ),
            ("errors_total", Counter, "Operations on its files that failed.", &figures.errors),
            ("alarm", Gauge, "1 while it can't be written or can't keep up.", &figures.alarm),
            ("queue_bytes", Gauge, "Bytes not yet on the disk.", &figures.queue_bytes),
            ("segments", Gauge, "Its files.", &figures.segments),
            ("bytes", Gauge, "Its size, bounded by --journal-bytes-max.", &figures.segments_bytes),
            ("topics", Gauge, "Topics that it knows.", &figures.topics),
        ] {
            let help = format!("The journal: {help}");
            self.one(&format!("uringcast_journal_{name}"), shape, &help, figure.value());
        }
        let (name, fsync) = ("uringcast_journal_fsync_seconds", &figures.fsync);
        self.line(format_args!(
            "# HELP {name} The journal: time of an fsync.\n# TYPE {name} histogram"
        ));
        self.histogram(name, "", fsync);
    }

    fn one(&mut self, name: &str, shape: Shape, help: &str, value: impl std::fmt::Display) {
        self.head(name, shape, help);
        self.line(format_args!("{name} {value}"));
    }

    fn head(&mut self, name: &str, shape: Shape, help: &str) {
        let shape = match shape {
            Shape::Counter => "counter",
            Shape::Gauge => "gauge",
        };
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {shape}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("writing into a string");
    }
}

/// µs, shown as seconds without rounding.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, us) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if us == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{us:06}").trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use uringcast_protocol::topic_name::Pattern;

    use super::*;
    use crate::rules::{Kind, RuleId, Rules, TopicRule};

    fn text() -> String {
        let shared = Shared::new(2, 0);
        shared.counters[0].connections.set(3);
        shared.counters[1].connections.set(4);
        shared.counters[1].tick_cpu.record_ns(30_000);
        shared.counters[1].tick_cpu.record_ns(20_000_000_000);
        let journal = Figures::default();
        journal.records.add(5);
        journal.fsync.record_ns(30_000);
        page(&shared, &Usage { cpu_s: 1.5, ..Usage::default() }, 9, Some(&journal))
    }

    #[test]
    fn each_name_has_help_and_type_once_and_all_its_lines_together() {
        let mut types = HashMap::new();
        let mut helps = HashSet::new();
        let (mut current, mut left) = (String::new(), HashSet::new());
        for line in text().lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(helps.insert(name.to_owned()) && !help.is_empty(), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, shape) = rest.split_once(' ').expect("a type");
                assert!(types.insert(name.to_owned(), shape.to_owned()).is_none(), "{line}");
                assert!(left.insert(std::mem::replace(&mut current, name.to_owned())));
            } else {
                let name = line.split(['{', ' ']).next().expect("a name");
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end).filter(|n| types.contains_key(*n)))
                    .unwrap_or(name);
                assert_eq!(family, current, "{line}");
                let value = line.rsplit(' ').next().expect("a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        for (name, shape) in &types {
            assert_eq!(shape == "counter", name.ends_with("_total"), "{name}");
        }
    }

    #[test]
    fn figures_carry_their_shard() {
        let text = text();
        assert!(text.contains("\nuringcast_connections{shard=\"1\"} 4\n"), "{text}");
        assert!(text.contains("uringcast_handshakes_total{shard=\"0\",result=\"400\"} 0\n"));
        assert!(text.contains("\nuringcast_log_lines_dropped_total 9\n"));
        assert!(text.contains("\nprocess_cpu_seconds_total 1.5\n"));
        assert!(text.contains("\nuringcast_journal_records_total 5\n"));
        assert!(text.contains("\nuringcast_journal_fsync_seconds_bucket{le=\"+Inf\"} 1\n"));
        assert!(text.contains("\nuringcast_journal_fsync_seconds_sum 0.00003\n"));
    }

    #[test]
    fn rules_have_figures_of_their_own_summed_over_shards() {
        let rule = |text, kind| TopicRule::new(Pattern::parse(text).expect("a pattern"), kind);
        let rules = Rules::new(vec![
            rule("md.>", Kind::Value),
            rule(">", Kind::Delta),
            rule("md.>", Kind::Event),
        ]);
        let shared = Shared::new(2, 0).with_rules(&rules);
        shared.of_rule(0, RuleId(0)).conflated.add(3);
        shared.of_rule(1, RuleId(0)).conflated.add(4);
        shared.of_rule(1, RuleId(1)).resumed_not.add(5);
        shared.of_rule(0, RuleId(3)).gaps.add(6);
        shared.of_rule(0, RuleId(9)).gaps.add(1);
        let text = page(&shared, &Usage::default(), 0, None);
        let lines: HashSet<_> = text.lines().collect();
        for line in [
            "uringcast_rule_conflated_messages_total{rule=\"md.>\",kind=\"value\"} 7",
            "uringcast_rule_conflated_messages_total{rule=\">\",kind=\"delta\"} 0",
            "uringcast_rule_resumes_total{rule=\">\",kind=\"delta\",recovered=\"false\"} 5",
            "uringcast_rule_gaps_total{rule=\"(none)\",kind=\"event\"} 7",
        ] {
            assert!(lines.contains(line), "{line}\n{text}");
        }
        assert_eq!(lines.len(), text.lines().count(), "no line twice");
        assert!(!text.contains("rule=\"md.>\",kind=\"event\""));
    }

    #[test]
    fn histograms_are_cumulative_in_seconds() {
        let text = text();
        for line in [
            "uringcast_tick_cpu_seconds_bucket{shard=\"1\",le=\"0.00002\"} 0",
            "uringcast_tick_cpu_seconds_bucket{shard=\"1\",le=\"0.00005\"} 1",
            "uringcast_tick_cpu_seconds_bucket{shard=\"1\",le=\"10\"} 1",
            "uringcast_tick_cpu_seconds_bucket{shard=\"1\",le=\"+Inf\"} 2",
            "uringcast_tick_cpu_seconds_sum{shard=\"1\"} 20.00003",
            "uringcast_tick_cpu_seconds_count{shard=\"1\"} 2",
            "uringcast_tick_cpu_longest_seconds{shard=\"1\"} 20",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
