//! Proof that it measures right: against a server that does one thing wrong and keeps book of it, the
//! report says the same, to the last delivery. Of times the server knows the least that each delivery
//! took; every percentile must be at least that of those.

#[path = "faults/connections.rs"]
mod connections;
#[path = "support/faulty.rs"]
mod faulty;

use std::collections::BTreeSet;
use std::process::{Command, Output};

use faulty::{Book, Fault, FaultyServer};
use serde_json::Value;

struct Run {
    report: Value,
    output: Output,
    book: Book,
}

fn fanout(name: &str, fault: Fault, extra: &[&str]) -> Run {
    let server = FaultyServer::start(fault);
    let file = format!("loadgen-faults-{name}-{}.json", std::process::id());
    let json = std::env::temp_dir().join(file);
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["fanout", "--subscribers", "20", "--warmup", "0s", "--duration", "1s"])
        .args(["--url", &format!("ws://{}/raw/bench?n={{n}}", server.data)])
        .args(["--publish-url", &format!("ws://{}/publish/bench", server.publish)])
        .args(["--grace", "1s", "--json", json.to_str().expect("UTF-8")])
        .args(extra)
        .output()
        .expect("loadgen runs");
    let text = std::fs::read(&json).unwrap_or_else(|_| panic!("no report: {output:?}"));
    std::fs::remove_file(&json).expect("our own file");
    let report = serde_json::from_slice(&text).expect("JSON");
    Run { report, output, book: server.book() }
}

impl Run {
    fn number(&self, section: &str, name: &str) -> u64 {
        let found = self.report[section][name].as_u64();
        found.unwrap_or_else(|| panic!("no {section}.{name}: {:#}", self.report))
    }

    fn latency_ns(&self, histogram: &str, name: &str) -> f64 {
        let found = self.report["latency"][histogram][name].as_f64();
        found.unwrap_or_else(|| panic!("no latency.{histogram}.{name}: {:#}", self.report))
    }

    /// All that is counted, on both sides.
    fn check(&self) {
        let Self { report, output, book } = self;
        let lost = book.lost.len() as u64;
        let expected = [
            ("published", "published", book.publications.len() as u64),
            ("published", "unsent", 0),
            ("deliveries", "messages", book.written),
            ("faults", "lost", lost),
            ("faults", "duplicated", book.doubled),
            ("faults", "reordered", book.reordered),
            ("faults", "damaged", book.damaged),
            ("faults", "foreign", 0),
            ("faults", "misnamed", 0),
            ("faults", "skipped", 0),
        ];
        for (section, name, count) in expected {
            assert_eq!(self.number(section, name), count, "{section}.{name}: {report:#}");
        }
        assert_eq!(self.missed(), book.lost, "{report:#}");
        let is_clean = lost + book.doubled + book.reordered + book.damaged == 0;
        assert_eq!(output.status.code(), Some(i32::from(!is_clean)), "{report:#}");
        self.check_schedule();
        self.check_latency();
    }

    fn missed(&self) -> BTreeSet<(u64, u64, u64)> {
        let ranges = self.report["missed"].as_array().expect("a list");
        let numbers = ranges.iter().flat_map(|missed| {
            let field = |name: &str| missed[name].as_u64().expect("a number");
            let (connection, stream) = (field("connection"), field("stream"));
            (field("from")..=field("to")).map(move |number| (connection, stream, number))
        });
        numbers.collect()
    }

    /// Publications have their times before the run, and keep them whatever the server does.
    fn check_schedule(&self) {
        let publications = &self.book.publications;
        let mut intended_ns: Vec<_> = publications.iter().map(|each| each.intended_ns).collect();
        intended_ns.sort_unstable();
        let period_ns = (intended_ns[intended_ns.len() - 1] - intended_ns[0]) as f64
            / (intended_ns.len() - 1) as f64;
        for (place, at_ns) in intended_ns.iter().enumerate() {
            let offset_ns = (at_ns - intended_ns[0]) as f64;
            assert!((offset_ns - place as f64 * period_ns).abs() < 2.0, "{place}: {offset_ns}");
        }
        let late_ns = |each: &faulty::Publication| each.sent_ns - each.intended_ns;
        let late = publications.iter().filter(|each| late_ns(each) > 1_000_000).count();
        assert_eq!(self.number("published", "late"), late as u64);
        let most = publications.iter().map(late_ns).max().unwrap_or(0);
        assert_eq!(self.number("published", "late_ns_max"), most);
    }

    /// Each right delivery is in both histograms once, with no less than it took; and most with no more
    /// than the way from the server's hand to the load generator's takes on a machine that is busy.
    fn check_latency(&self) {
        for (histogram, least_ns) in
            [("corrected", &self.book.corrected_ns), ("uncorrected", &self.book.uncorrected_ns)]
        {
            let count = least_ns.len();
            assert_eq!(self.latency_ns(histogram, "count"), count as f64, "{histogram}");
            let mut sorted = least_ns.clone();
            sorted.sort_unstable();
            for (name, quantile) in QUANTILES {
                let rank = ((quantile * count as f64).ceil() as usize).clamp(1, count);
                let (least_ns, told_ns) =
                    (sorted[rank - 1] as f64, self.latency_ns(histogram, name));
                assert!(told_ns >= least_ns, "{histogram} {name}: {told_ns}, at least {least_ns}");
                let most_ns = if quantile > 0.9 { f64::MAX } else { least_ns + WAY_NS_MAX };
                assert!(told_ns <= most_ns, "{histogram} {name}: {told_ns}, at least {least_ns}");
            }
            let mean_ns = sorted.iter().sum::<u64>() as f64 / count as f64;
            let told_ns = self.latency_ns(histogram, "mean_ns");
            // A histogram's mean is of its steps, three digits of each value.
            let is_right = 0.999 * mean_ns <= told_ns && told_ns <= mean_ns + WAY_NS_MAX;
            assert!(is_right, "{histogram} mean: {told_ns}, at least {mean_ns}");
        }
    }
}

const QUANTILES: [(&str, f64); 7] = [
    ("p50_ns", 0.5),
    ("p90_ns", 0.9),
    ("p99_ns", 0.99),
    ("p99_9_ns", 0.999),
    ("p99_99_ns", 0.9999),
    ("p99_999_ns", 0.99999),
    ("max_ns", 1.0),
];
/// Far below what any of the faults is about when it is of a second, and far above what loopback takes.
const WAY_NS_MAX: f64 = 400e6;
const MS: f64 = 1e6;

#[test]
fn without_a_fault_there_is_none_to_report() {
    let run = fanout("none", Fault::None, &["--rate", "1000"]);
    run.check();
    assert_eq!(run.book.publications.len(), 1000);
    assert_eq!(run.number("deliveries", "messages"), 20_000);
}

#[test]
fn one_in_a_thousand_lost_is_found_and_each_named() {
    let extra = ["--rate", "1000", "--threads", "2", "--publishers", "3"];
    let run = fanout("lose", Fault::Lose { one_in: 1000 }, &extra);
    run.check();
    assert!(run.book.lost.len() > 5, "{:?}", run.book.lost);
}

#[test]
fn doubled_ones_are_no_deliveries() {
    let run = fanout("double", Fault::Double { one_in: 200 }, &["--rate", "1000"]);
    run.check();
    assert!(run.book.doubled > 40);
}

#[test]
fn reordered_ones_are_not_lost() {
    let run = fanout("reorder", Fault::Reorder { one_in: 200 }, &["--rate", "1000"]);
    run.check();
    assert!(run.book.reordered > 40);
}

#[test]
fn one_wrong_bit_is_damage_wherever_it_is() {
    let run = fanout("damage", Fault::Damage { one_in: 40 }, &["--rate", "1000"]);
    run.check();
    // More than the payload has bytes.
    assert!(run.book.damaged > 200);
}

#[test]
fn faults_in_a_heap_are_told_apart() {
    let extra = ["--rate", "1000", "--threads", "2", "--binary", "--publishers", "2"];
    let run = fanout("mixed", Fault::Mixed { one_in: 100 }, &extra);
    run.check();
    let book = &run.book;
    for count in [book.damaged, book.doubled, book.reordered, book.lost.len() as u64] {
        assert!(count > 40, "{count}");
    }
}

#[test]
fn every_hundredth_late_by_20_ms_is_in_the_percentiles_where_it_must_be() {
    // Each publisher's messages are 100 ms apart: those that are late overtake none of their own.
    let extra = ["--rate", "1000", "--publishers", "100", "--subscribers", "10"];
    let run = fanout("delay", Fault::Delay { every: 100 }, &extra);
    run.check();
    assert_eq!(run.book.delayed, 10);
    // The hundredth part begins at p99: above it all are late, and the half is not.
    for histogram in ["corrected", "uncorrected"] {
        assert!(run.latency_ns(histogram, "p99_9_ns") >= 20.0 * MS, "{:#}", run.report);
        assert!(
            2.0 * run.latency_ns(histogram, "p50_ns") < run.latency_ns(histogram, "p99_9_ns"),
            "{:#}",
            run.report
        );
    }
    // Of every fiftieth p99 is late too.
    let run = fanout("delay-50", Fault::Delay { every: 50 }, &extra);
    run.check();
    assert_eq!(run.book.delayed, 20);
    assert!(run.latency_ns("corrected", "p99_ns") >= 20.0 * MS, "{:#}", run.report);
    assert!(
        2.0 * run.latency_ns("corrected", "p50_ns") < run.latency_ns("corrected", "p99_ns"),
        "{:#}",
        run.report
    );
}

/// Of 1,000 publications in two seconds those of one second fall into the stall.
const STALLED: [&str; 10] = [
    "--rate",
    "500",
    "--duration",
    "2s",
    "--size",
    "4000",
    "--subscribers",
    "4",
    "--send-buffer",
    "8192",
];

/// What a stall of a second does to latencies, whatever else there is: those of the publications that
/// are due meanwhile are spread evenly from nothing to a second.
fn check_stall(run: &Run, histogram: &str) {
    let (from_ns, to_ns) = run.book.stall_ns;
    let stalled = |at_ns: u64| at_ns >= from_ns && at_ns < to_ns;
    let count = run.book.publications.iter().filter(|each| stalled(each.intended_ns)).count();
    assert!((480..700).contains(&count), "{count} of 1000 in the stall");
    let ns = |name| run.latency_ns(histogram, name);
    // The area is a triangle: half a second on average, for half of all.
    assert!(ns("mean_ns") >= 245.0 * MS, "{:#}", run.report);
    assert!(ns("mean_ns") <= 245.0 * MS + WAY_NS_MAX, "{:#}", run.report);
    // A tenth of all is a fifth of the stalled: those waited for 0.8 s and more. And so on.
    for (name, least_ms) in [("p90_ns", 790.0), ("p99_ns", 970.0), ("max_ns", 990.0)] {
        assert!(ns(name) >= least_ms * MS, "{name}: {:#}", run.report);
    }
}

#[test]
fn a_publisher_that_is_not_read_shows_in_the_corrected_histogram_only() {
    let run = fanout("intake", Fault::StallIntake { at: 125 }, &STALLED);
    run.check();
    check_stall(&run, "corrected");
    // What could not be sent was not under way. All but the few that the kernel had taken before it was
    // full: those were sent, as far as anybody can tell.
    let ns = |histogram, name| run.latency_ns(histogram, name);
    let (from_ns, to_ns) = run.book.stall_ns;
    let taken = |each: &&faulty::Publication| each.sent_ns >= from_ns && each.sent_ns < to_ns;
    let taken = run.book.publications.iter().filter(taken).count();
    assert!(taken < 50, "{taken} sent while nothing was read");
    assert!(2.0 * ns("uncorrected", "mean_ns") < ns("corrected", "mean_ns"), "{:#}", run.report);
    assert!(4.0 * ns("uncorrected", "p90_ns") < ns("corrected", "p90_ns"), "{:#}", run.report);
    assert!(run.number("published", "late") > 400, "{:#}", run.report);
}

#[test]
fn deliveries_that_are_held_show_in_both() {
    let run = fanout("delivery", Fault::StallDelivery { at: 125 }, &STALLED);
    run.check();
    check_stall(&run, "corrected");
    check_stall(&run, "uncorrected");
}

#[test]
fn it_measures_the_same_with_no_more_than_an_old_kernel_has() {
    let old = ["--kernel-tier", "base", "--rate", "500", "--threads", "2", "--publishers", "2"];
    let run = fanout("base", Fault::Mixed { one_in: 100 }, &old);
    run.check();
    let kernel = &run.report["own"]["kernel"];
    for means in ["deferred", "direct", "multishot", "timed_wait"] {
        assert_eq!(kernel[means], false, "{kernel}");
    }
    let stalled = [&STALLED[..], &["--kernel-tier", "base"]].concat();
    let run = fanout("base-stall", Fault::StallIntake { at: 125 }, &stalled);
    run.check();
    check_stall(&run, "corrected");
}
