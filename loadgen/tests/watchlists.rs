//! `loadgen watchlists` and bursts, against a server with known faults.

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::{Faults, Server};

fn loadgen(name: &str, words: &[&str]) -> (Value, Output) {
    let file = format!("loadgen-watchlists-{name}-{}.json", std::process::id());
    let json = std::env::temp_dir().join(file);
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(words)
        .args(["--json", json.to_str().expect("UTF-8")])
        .output()
        .expect("loadgen runs");
    let text = std::fs::read(&json).unwrap_or_else(|_| panic!("no report: {output:?}"));
    std::fs::remove_file(&json).expect("our own file");
    (serde_json::from_slice(&text).expect("JSON"), output)
}

fn watchlists(name: &str, faults: Faults, extra: &[&str]) -> (Value, Output) {
    let server = Server::start(faults);
    let (url, publish_url) = (format!("ws://{}", server.data), format!("ws://{}", server.publish));
    let fixed = ["watchlists", "--topics", "40", "--rate", "400", "--subscribers", "20"];
    let more = ["--warmup", "0s", "--duration", "1s", "--grace", "500ms"];
    let urls = ["--url", &url, "--publish-url", &publish_url];
    loadgen(name, &[&fixed[..], &more, &urls, extra].concat())
}

/// 20 subscribers of 10 topics, and all but the first 3 of each change.
const CHANGING: [&str; 8] =
    ["--format", "json", "--watch", "10", "--changing", "7", "--change-rate", "100"];

fn faults_of(report: &Value) -> [u64; 6] {
    ["lost", "duplicated", "reordered", "damaged", "misnamed", "foreign"]
        .map(|name| report["faults"][name].as_u64().expect("a number"))
}

#[test]
fn everyone_gets_each_topic_of_the_list() {
    for (name, extra, deliveries) in [
        ("raw", &["--size", "512"][..], 20 * 10),
        ("json", &["--format", "json", "--watch", "5", "--threads", "2"], 20 * 50),
        (
            "shared",
            &["--format", "json", "--watch", "8", "--lists", "3", "--publishers", "3"],
            20 * 80,
        ),
    ] {
        let (report, output) = watchlists(name, Faults::default(), extra);
        assert!(output.status.success(), "{name}: {report:#}");
        assert_eq!(report["published"]["published"], 400, "{name}");
        assert_eq!(report["deliveries"]["messages"], deliveries, "{name}");
        assert_eq!(report["latency"]["corrected"]["count"], deliveries, "{name}");
        assert!(report["changes"].is_null(), "{name}");
    }
}

#[test]
fn losses_are_found_whoever_has_the_list_to_oneself() {
    for (name, lists) in [("lost-own", "20"), ("lost-shared", "2")] {
        let faults = Faults { lose_every: 30, ..Faults::default() };
        let extra = ["--format", "json", "--watch", "10", "--lists", lists];
        let (report, output) = watchlists(name, faults, &extra);
        assert_eq!(output.status.code(), Some(1), "{name}");
        // 100 deliveries each, of which the 30th, the 60th and the 90th are none.
        assert_eq!(faults_of(&report), [20 * 3, 0, 0, 0, 0, 0], "{name}: {report:#}");
        assert_eq!(report["deliveries"]["messages"], 20 * 97, "{name}");
    }
}

#[test]
fn who_changes_gets_everything_between_the_answers() {
    let (report, output) = watchlists("changes", Faults::default(), &CHANGING);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(faults_of(&report), [0; 6]);
    let changes = &report["changes"];
    let count = |name: &str| changes[name].as_u64().expect("a number");
    assert_eq!(
        (count("asked"), count("answered"), count("unanswered")),
        (100, 100, 0),
        "{changes:#}"
    );
    assert_eq!(changes["latency"]["count"], 100);
    // 10 topics of 10 each at any time, give or take what is between two answers.
    let messages = report["deliveries"]["messages"].as_u64().expect("a number");
    assert!((1900..2100).contains(&messages), "{messages}");
}

#[test]
fn more_changes_than_are_answered_are_as_many_as_are() {
    let extra = [&CHANGING[..7], &["1000000"]].concat();
    let (report, output) = watchlists("busy", Faults::default(), &extra);
    assert!(output.status.success(), "{report:#}");
    assert!(report["changes"]["answered"].as_u64() > Some(500), "{:#}", report["changes"]);
}

#[test]
fn losses_of_topics_that_change_are_found() {
    let faults = Faults { lose_every: 10, ..Faults::default() };
    let (report, output) = watchlists("changes-lost", faults, &CHANGING);
    assert_eq!(output.status.code(), Some(1));
    let [lost, duplicated, reordered, .., foreign] = faults_of(&report);
    assert_eq!((duplicated, reordered, foreign), (0, 0, 0), "{report:#}");
    // One in nine of what came; the last one before an unsubscribe is not known to be missing.
    let messages = report["deliveries"]["messages"].as_u64().expect("a number");
    assert!((messages / 9 - 45..=messages / 9 + 1).contains(&lost), "{lost} of {messages}");
    let faults = Faults { double_every: 10, ..Faults::default() };
    let (report, output) = watchlists("changes-double", faults, &CHANGING);
    assert_eq!(output.status.code(), Some(1));
    assert!(faults_of(&report)[1] > 100, "{report:#}");
}

#[test]
fn what_is_missing_right_behind_a_subscribe_is_lost() {
    let faults = Faults { lose_after_subscribe: 2, ..Faults::default() };
    let (report, output) = watchlists("begin", faults, &CHANGING);
    assert_eq!(output.status.code(), Some(1));
    // Ten a second of each topic, and 100 subscribes in the second: of those at its end less.
    let [lost, duplicated, reordered, .., foreign] = faults_of(&report);
    assert!((120..=200).contains(&lost), "{report:#}");
    assert_eq!((duplicated, reordered, foreign), (0, 0, 0));
}

#[test]
fn what_comes_after_an_unsubscribe_is_foreign() {
    let faults = Faults { keeps_unsubscribed: true, ..Faults::default() };
    let (report, output) = watchlists("kept", faults, &CHANGING);
    assert_eq!(output.status.code(), Some(1));
    assert!(faults_of(&report)[5] > 100, "{report:#}");
}

#[test]
fn bursts_come_together_and_are_lost_like_others() {
    for (name, lose_every, lost) in [("burst", 0, 0), ("burst-lost", 50, 20 * 4)] {
        let server = Server::start(Faults { lose_every, ..Faults::default() });
        let url = format!("ws://{}/raw/bench", server.data);
        let publish_url = format!("ws://{}/publish/bench", server.publish);
        let urls = ["fanout", "--url", &url, "--publish-url", &publish_url, "--subscribers", "20"];
        let load = ["--rate", "200", "--burst", "50/1ms", "--warmup", "0s", "--duration", "1s"];
        let (report, output) = loadgen(name, &[&urls[..], &load].concat());
        assert_eq!(output.status.success(), lost == 0, "{report:#}");
        assert_eq!(report["published"]["published"], 200);
        assert_eq!(report["faults"]["lost"], lost);
        let pause_ns = report["silence"]["published_pause_ns"].as_u64().expect("a number");
        assert!((200_000_000..300_000_000).contains(&pause_ns), "{pause_ns}");
    }
}

#[test]
fn what_does_not_fit_together_is_named() {
    for (words, named) in [
        (&["--watch", "101"][..], "at most --topics, 100"),
        (&["--watch", "2"], "--format json"),
        (&["--changing", "1"], "--format json"),
        (&["--format", "json", "--changing", "2"], "at most --watch, 1"),
        (&["--format", "json", "--topics", "4", "--watch", "2", "--changing", "2"], "ok"),
        (&["--format", "json", "--topics", "2", "--watch", "2", "--changing", "2"], "--topics"),
        (&["--subscribers", "60001"], "--lists"),
        (&["--publishers", "101"], "--publishers"),
        (&["--change-rate", "5"], "--changing"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["watchlists", "--url", "ws://127.0.0.1:1", "--publish-url", "ws://127.0.0.1:1"])
            .args(["--duration", "100ms", "--warmup", "0s"])
            .args(words)
            .output()
            .expect("loadgen runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let expected = if named == "ok" { 1 } else { 2 };
        assert_eq!(output.status.code(), Some(expected), "{words:?}: {said}");
        assert!(named == "ok" || said.contains(named), "{words:?}: {said}");
    }
}
