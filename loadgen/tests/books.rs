//! `loadgen replay --books` against a server of order books with known faults: what is wrong must be
//! found, and nothing else.

mod support {
    pub(crate) mod books;
}

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use support::books::{BookFaults, start};

struct Scratch(PathBuf);

impl Scratch {
    /// A second of recorded data in `spot/` and `usdm/`: 100 updates of each book, trades, tickers.
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("loadgen-{name}-{}", std::process::id()));
        for part in ["spot", "usdm"] {
            let mut lines = String::new();
            for number in 0..100u64 {
                let at_ns = 5_000_000_000 + number * 10_000_000;
                let (bid, ask) = (1000 - number * 7 % 40, 1001 + number * 11 % 40);
                let first = 100 + number * 10;
                let last = first + 9;
                // Futures name the update before; their ids jump.
                let (first, previous) = match part {
                    "usdm" => (first + 3, format!("\"pu\":{},", first - 1)),
                    _ => (first, String::new()),
                };
                let size = number % 7;
                let _ = write!(
                    lines,
                    "{at_ns} {{\"stream\":\"btcusdt@depth@100ms\",\"data\":{{\"U\":{first},\"u\":{last},{previous}\
                     \"b\":[[\"{bid}.50\",\"{size}\"]],\"a\":[[\"{ask}.50\",\"{size}.25\"]]}}}}\n\
                     {at_ns} {{\"stream\":\"btcusdt@bookTicker\",\"data\":{{\"u\":{number},\"f\":\"{part}\"}}}}\n\
                     {at_ns} {{\"stream\":\"btcusdt@trade\",\"data\":{{\"t\":{number},\"f\":\"{part}\"}}}}\n"
                );
                if number == 2 {
                    // Of a moment within the second update.
                    let _ = writeln!(
                        lines,
                        "{at_ns} {{\"lastUpdateId\":115,\"bids\":[[\"1000.50\",\"9\"],[\"900\",\"1\"]],\
                         \"asks\":[[\"2000\",\"3\"]]}}"
                    );
                }
            }
            std::fs::create_dir_all(folder.join(part)).expect("a folder");
            std::fs::write(folder.join(part).join("btcusdt"), lines).expect("written");
        }
        Self(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn replay(name: &str, faults: BookFaults, extra: &[&str]) -> (Value, Output) {
    let scratch = Scratch::new(name);
    let url = format!("ws://{}", start(faults));
    let (spot, usdm) = (scratch.file("spot/btcusdt"), scratch.file("usdm/btcusdt"));
    let json = scratch.file("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["replay", &spot, &usdm, "--books", "--subscribers", "8", "--grace", "500ms"])
        .args(["--url", &url, "--publish-url", &url, "--json", &json])
        .args(["--snapshot-every", "300ms", "--interest", "*.*.*"])
        .args(extra)
        .output()
        .expect("loadgen runs");
    let text = std::fs::read(&json).unwrap_or_else(|_| panic!("no report: {output:?}"));
    (serde_json::from_slice(&text).expect("JSON"), output)
}

/// 8 subscribers of 2 books.
const BOOKS: u64 = 16;

const RESUMING: [&str; 5] = ["--churn", "50", "--resume", "--speed", "0.4"];

#[test]
fn a_server_without_faults_passes() {
    let (report, output) = replay("right", BookFaults::default(), &[]);
    assert!(output.status.success(), "{report:#}");
    let books = &report["books"];
    assert_eq!((&books["equal"], &books["unequal"]), (&BOOKS.into(), &0.into()));
    // The recorded snapshot has the first update.
    assert_eq!(books["covered"], BOOKS);
    assert_eq!(books["links_held"], BOOKS * 99);
    assert_eq!(books["snapshots"]["steady"], BOOKS);
    assert!(books["snapshots_published"].as_u64() >= Some(4), "{books:#}");
    // Equal steps are calculated once: two books of 100 updates, and their beginnings.
    assert_eq!(books["steps_calculated"], 2 * 101);
    assert_eq!(report["fairness"]["subscribers"], 8);
}

#[test]
fn resumes_go_on_where_they_were() {
    let (report, output) = replay("resume", BookFaults::default(), &RESUMING);
    assert!(output.status.success(), "{report:#}");
    let books = &report["books"];
    assert!(report["connections"]["lives"].as_u64() >= Some(4), "{report:#}");
    assert!(books["resumed"].as_u64() >= Some(8), "{books:#}");
    assert_eq!((&books["unequal"], &books["missing"]), (&0.into(), &0.into()));
    // Not granted, with a gap and a snapshot, is right too.
    let faults = BookFaults { resume_never: true, ..BookFaults::default() };
    let (report, output) = replay("never", faults, &RESUMING);
    assert!(output.status.success(), "{report:#}");
    assert!(report["books"]["resumed_not"]["history"].as_u64() >= Some(8), "{report:#}");
}

#[test]
fn a_lost_update_is_a_hole_in_the_chain_and_in_the_count() {
    let faults = BookFaults { lose: 50, ..BookFaults::default() };
    let (report, output) = replay("lost", faults, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["faults"]["lost"], BOOKS, "{report:#}");
    assert_eq!(report["books"]["links_broken"], BOOKS);
    assert_eq!(report["books"]["missing"], 0);
}

#[test]
fn an_update_lost_at_the_end_leaves_a_wrong_book() {
    let faults = BookFaults { lose: 99, ..BookFaults::default() };
    let (report, output) = replay("differs", faults, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["books"]["unequal"], BOOKS, "{report:#}");
    let first = report["books"]["first_difference"].as_str().expect("a text");
    assert!(first.contains("bid number") && first.contains(".depth of connection"), "{first}");
}

#[test]
fn a_gap_wants_a_snapshot_behind_it() {
    let faults = BookFaults { lose: 50, lose_told: true, ..BookFaults::default() };
    let (report, output) = replay("gap", faults, &[]);
    assert_eq!(output.status.code(), Some(1));
    let books = &report["books"];
    assert_eq!(report["faults"]["lost"], 0, "{report:#}");
    assert_eq!((&books["gaps_told"]["steady"], &books["missing"]), (&BOOKS.into(), &BOOKS.into()));
    assert_eq!(books["unfounded"], BOOKS * 50);
}

#[test]
fn a_snapshot_that_says_it_covers_more_breaks_the_chain() {
    let faults = BookFaults { covers_more: 2, ..BookFaults::default() };
    let (report, output) = replay("covers", faults, &[]);
    assert_eq!(output.status.code(), Some(1));
    // What it claims is passed over: the next update does not follow the state it really has.
    assert_eq!(report["books"]["links_broken"], BOOKS, "{report:#}");
}

#[test]
fn a_wrong_level_in_a_snapshot_shows_at_the_end() {
    let faults = BookFaults { snapshot_wrong: true, ..BookFaults::default() };
    let (report, output) = replay("wrong", faults, &["--duration", "150ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["books"]["unequal"], BOOKS, "{report:#}");
    assert_eq!(report["books"]["links_broken"], 0);
    let first = report["books"]["first_difference"].as_str().expect("a text");
    assert!(first.contains("77.00000000 of"), "{first}");
}

#[test]
fn a_snapshot_that_nobody_asked_for_is_told() {
    let faults = BookFaults { snapshot_at: 40, ..BookFaults::default() };
    let (report, output) = replay("unasked", faults, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["books"]["snapshots_wrong"], BOOKS, "{report:#}");
}

#[test]
fn a_resume_that_lies_is_found() {
    let faults = BookFaults { resume_skips: 1, ..BookFaults::default() };
    let (report, output) = replay("skips", faults, &RESUMING);
    assert_eq!(output.status.code(), Some(1));
    assert!(report["faults"]["lost"].as_u64() > Some(0), "{report:#}");
    let faults = BookFaults { resume_repeats: true, ..BookFaults::default() };
    let (report, output) = replay("repeats", faults, &RESUMING);
    assert_eq!(output.status.code(), Some(1));
    assert!(report["faults"]["duplicated"].as_u64() > Some(0), "{report:#}");
}

#[test]
fn topics_of_a_wrong_kind_are_told() {
    let faults = BookFaults { kind_wrong: true, ..BookFaults::default() };
    let (report, output) = replay("kind", faults, &[]);
    assert_eq!(output.status.code(), Some(1));
    let wrong = &report["books"]["topics_wrong"];
    let told = wrong["spot.BTCUSDT.depth is of kind event, should be delta"].as_u64();
    assert_eq!(told, Some(8), "{wrong:#}");
}

#[test]
fn slow_subscribers_are_counted_apart() {
    let extra = ["--slow", "2", "--slow-rate", "20KB/s"];
    let (report, output) = replay("slow", BookFaults::default(), &extra);
    assert!(output.status.success(), "{report:#}");
    let slow = &report["books"]["slow"];
    assert_eq!(slow["subscribers"], 2);
    assert_eq!(slow["latency"]["count"], 2 * 600, "all of them, in time");
    assert_eq!(slow["values"], 2 * 200);
    assert_eq!(report["latency"]["corrected"]["count"], 6 * 600);
    // 600 messages of over 100 bytes in a second are more than 20 KB/s.
    assert!(slow["value_age_max_ns"].as_u64() > Some(500_000_000), "{slow:#}");
    assert_eq!(report["books"]["equal"], BOOKS);
}
