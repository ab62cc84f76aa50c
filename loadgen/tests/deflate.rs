//! `loadgen … --deflate` against servers that compress, rightly and wrongly.

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::{Faults, Server};

fn fanout(name: &str, faults: Faults, path: &str, extra: &[&str]) -> (Option<Value>, Output) {
    let server = Server::start(faults);
    let file = format!("loadgen-deflate-{name}-{}.json", std::process::id());
    let json = std::env::temp_dir().join(file);
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["fanout", "--subscribers", "20", "--warmup", "0s", "--duration", "1s"])
        .args(["--rate", "200", "--url", &format!("ws://{}{path}", server.data)])
        .args(["--publish-url", &format!("ws://{}/publish/bench", server.publish)])
        .args(["--grace", "500ms", "--json", json.to_str().expect("UTF-8")])
        .args(extra)
        .output()
        .expect("loadgen runs");
    let report = std::fs::read(&json).ok();
    let _ = std::fs::remove_file(&json);
    (report.map(|text| serde_json::from_slice(&text).expect("JSON")), output)
}

fn report(name: &str, faults: Faults, path: &str, extra: &[&str]) -> (Value, Output) {
    let (report, output) = fanout(name, faults, path, extra);
    (report.unwrap_or_else(|| panic!("no report: {output:?}")), output)
}

/// A server that compresses, and has no fault.
fn on() -> Faults {
    Faults { deflate: true, ..Faults::default() }
}

#[test]
fn compressed_messages_are_inflated_and_counted() {
    let runs: [(&str, &[&str]); 4] = [
        ("/raw/bench", &["--deflate"]),
        ("/ws?topics=bench", &["--deflate", "--size", "2000"]),
        ("/raw/*", &["--deflate", "--binary", "--stalled", "2", "--threads", "2"]),
        ("/raw/bench", &["--deflate", "--size", "200000", "--subscribers", "2"]),
    ];
    for (path, extra) in runs {
        let (report, output) = report("good", on(), path, extra);
        assert!(output.status.success(), "{path} {extra:?}: {report:#}");
        let subscribers = report["connections"]["subscribers"].as_u64().expect("a number");
        let stalled = report["connections"]["stalled"].as_u64().expect("a number");
        assert_eq!(report["deliveries"]["messages"], 200 * subscribers);
        let deflate = &report["deflate"];
        assert_eq!(deflate["offered"], subscribers + stalled, "the publisher offers nothing");
        assert_eq!(deflate["agreed"], deflate["offered"]);
        assert_eq!(deflate["messages"], 100 * subscribers);
        let figure = |value: &Value| value.as_u64().expect("a number");
        let (compressed, inflated) =
            (figure(&deflate["compressed_bytes"]), figure(&deflate["inflated_bytes"]));
        assert!(2 * inflated >= figure(&report["deliveries"]["payload_bytes"]), "{deflate}");
        assert!(compressed < inflated, "{deflate}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("deflate       agreed on"), "{text}");
    }
}

#[test]
fn without_the_flag_nothing_is_offered() {
    let (report, output) = report("off", on(), "/raw/bench", &[]);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["deflate"], Value::Null);
}

#[test]
fn a_server_that_declines_is_measured_plain_and_said_so() {
    let (report, output) = report("declined", Faults::default(), "/raw/bench", &["--deflate"]);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["deflate"]["offered"], 20);
    assert_eq!(report["deflate"]["agreed"], 0);
    assert_eq!(report["deflate"]["messages"], 0);
    let note = report["notes"][0].as_str().expect("a note");
    assert!(note.starts_with("20 of 20 connections are plain"), "{note}");
}

#[test]
fn what_is_wrong_inside_of_compressed_messages_is_found() {
    let faults = Faults { lose_every: 100, damage_every: 70, ..on() };
    let (report, output) = report("faults", faults, "/raw/bench", &["--deflate"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["faults"]["damaged"], 2 * 20, "{report:#}");
    assert_eq!(report["faults"]["lost"], (2 + 2) * 20, "{report:#}");
}

#[test]
fn bad_compressed_data_ends_the_connection() {
    let faults = Faults { cut_every: 150, ..on() };
    let (report, output) = report("cut", faults, "/raw/bench", &["--deflate"]);
    assert_eq!(output.status.code(), Some(1));
    let reason = "a compressed message that is no deflate stream";
    assert_eq!(report["connections"]["closes"][reason], 20, "{report:#}");
    assert_eq!(report["faults"]["lost"], 51 * 20, "{report:#}");
}

#[test]
fn rsv1_without_an_agreement_ends_the_connection() {
    for (name, deflate) in [("rsv1-asked", &["--deflate"][..]), ("rsv1", &[])] {
        let faults = Faults { mark_every: 101, ..Faults::default() };
        let (report, output) = report(name, faults, "/raw/bench", deflate);
        assert_eq!(output.status.code(), Some(1));
        let closes = &report["connections"]["closes"];
        assert_eq!(closes["RSV1 without an extension"], 20, "{report:#}");
    }
}

#[test]
fn an_answer_that_leaves_out_the_condition_is_refused() {
    let faults = Faults { takes_over: true, ..on() };
    let (report, output) = fanout("context", faults, "/raw/bench", &["--deflate"]);
    assert_eq!(output.status.code(), Some(1));
    let report = report.expect("the publisher is connected");
    let failures = report["connections"]["failures"].as_object().expect("reasons");
    let (reason, count) = failures.iter().next().expect("one reason");
    assert!(reason.contains("not as offered") && reason.contains("--deflate"), "{reason}");
    assert_eq!(count, 20);
}
