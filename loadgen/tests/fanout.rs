//! `loadgen fanout` against a server with known faults: each is found, with the right number.

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::{Faults, Server};

fn fanout(faults: Faults, path: &str, extra: &[&str]) -> (Value, Output) {
    let server = Server::start(faults);
    let json = tempfile();
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["fanout", "--subscribers", "20", "--warmup", "0s", "--duration", "1s"])
        .args(["--url", &format!("ws://{}{path}", server.data)])
        .args(["--publish-url", &format!("ws://{}/publish/bench", server.publish)])
        .args(["--grace", "500ms", "--json", json.to_str().expect("UTF-8")])
        .args(extra)
        .output()
        .expect("loadgen runs");
    let text = std::fs::read(&json).expect("a report");
    std::fs::remove_file(&json).expect("our own file");
    (serde_json::from_slice(&text).expect("JSON"), output)
}

fn tempfile() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("loadgen-test-{}-{number}.json", std::process::id()))
}

#[test]
fn a_good_server_is_clean_in_both_formats_and_with_several_threads_and_publishers() {
    let runs: [(&str, &[&str]); 4] = [
        ("/raw/bench", &["--rate", "200"]),
        ("/ws?topics=bench", &["--rate", "200"]),
        ("/raw/bench", &["--rate", "200", "--threads", "2", "--publishers", "3", "--size", "2000"]),
        ("/raw/*", &["--rate", "200", "--binary", "--stalled", "2"]),
    ];
    for (path, extra) in runs {
        let (report, output) = fanout(Faults::default(), path, extra);
        assert!(output.status.success(), "{path} {extra:?}: {report:#}");
        assert_eq!(report["published"]["published"], 200, "{path} {extra:?}");
        assert_eq!(report["deliveries"]["messages"], 200 * 20, "{path} {extra:?}");
        assert_eq!(report["latency"]["corrected"]["count"], 200 * 20, "{path} {extra:?}");
    }
}

#[test]
fn losses_are_counted_and_listed_and_come_before_the_latency() {
    let faults = Faults { lose_every: 100, ..Faults::default() };
    let (report, output) = fanout(faults, "/raw/bench", &["--rate", "250"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["faults"]["lost"], 2 * 20);
    let missed = report["missed"].as_array().expect("a list");
    assert_eq!(missed.len(), 2 * 20);
    assert!(missed.iter().all(|missed| missed["from"] == 99 || missed["from"] == 199));
    let text = String::from_utf8_lossy(&output.stdout);
    let (loss, latency) = (text.find("40 lost"), text.find("latency"));
    assert!(loss.is_some() && loss < latency, "{text}");
}

#[test]
fn the_last_publication_is_missed_too() {
    let faults = Faults { lose_every: 200, ..Faults::default() };
    let (report, output) = fanout(faults, "/raw/bench", &["--rate", "200"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["faults"]["lost"], 20);
    assert_eq!(report["missed"][0]["to"], 199);
}

#[test]
fn doubled_reordered_and_damaged_ones_are_told_apart() {
    let faults = Faults { double_every: 50, ..Faults::default() };
    let (report, _) = fanout(faults, "/ws?topics=bench", &["--rate", "200"]);
    assert_eq!(report["faults"]["duplicated"], 4 * 20);
    assert_eq!(report["faults"]["lost"], 0);
    let faults = Faults { reorder_every: 60, ..Faults::default() };
    let (report, _) = fanout(faults, "/raw/bench", &["--rate", "200"]);
    assert_eq!(
        (&report["faults"]["reordered"], &report["faults"]["lost"]),
        (&60.into(), &0.into())
    );
    let faults = Faults { damage_every: 70, ..Faults::default() };
    let (report, output) = fanout(faults, "/raw/bench", &["--rate", "200"]);
    assert_eq!(report["faults"]["damaged"], 40);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_close_is_reported_with_its_code_and_with_what_was_missed() {
    let faults = Faults { close_after: 150, ..Faults::default() };
    let (report, output) = fanout(faults, "/raw/bench", &["--rate", "200"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["connections"]["closes"]["close 1013"], 20, "{report:#}");
    assert_eq!(report["faults"]["lost"], 50 * 20);
}

#[test]
fn delays_show_where_they_should() {
    let faults = Faults { delay_every: 100, ..Faults::default() };
    let (report, _) = fanout(faults, "/raw/bench", &["--rate", "200"]);
    let corrected = &report["latency"]["corrected"];
    let ms = |name: &str| corrected[name].as_f64().expect("a number") / 1e6;
    // Two of 200 are delayed by 20 ms, and each delays the three after it.
    assert!(ms("max_ns") >= 20.0, "{report:#}");
    // Most are not, however slow the machine is at the moment.
    assert!(ms("p50_ns") + 5.0 < ms("max_ns"), "{report:#}");
}

#[test]
fn a_stalled_server_shows_in_the_corrected_histogram() {
    let faults = Faults { stall_at: 100, ..Faults::default() };
    let extra = ["--rate", "400", "--size", "100000", "--subscribers", "2"];
    let (report, output) = fanout(faults, "/raw/bench", &extra);
    assert!(output.status.success(), "{report:#}");
    let ms = |histogram: &str, name: &str| {
        report["latency"][histogram][name].as_f64().expect("a number") / 1e6
    };
    assert!(ms("corrected", "max_ns") > 900.0, "{report:#}");
    // What could not be sent during the stall was late, but once sent it was quick.
    assert!(ms("corrected", "mean_ns") > 1.2 * ms("uncorrected", "mean_ns"), "{report:#}");
    assert!(report["published"]["late"].as_u64() > Some(50), "{report:#}");
}

#[test]
fn a_closed_loop_publishes_as_fast_as_subscribers_receive() {
    for threads in ["1", "2"] {
        let extra = ["--outstanding", "4", "--threads", threads];
        let (report, output) = fanout(Faults::default(), "/raw/bench", &extra);
        assert!(output.status.success(), "{report:#}");
        assert!(report["published"]["published"].as_u64() > Some(300), "{report:#}");
    }
}

#[test]
fn connections_that_churn_are_gapless_while_they_last() {
    let extra = ["--rate", "300", "--churn", "50", "--duration", "4s"];
    let (report, output) = fanout(Faults::default(), "/raw/bench", &extra);
    assert!(output.status.success(), "{report:#}");
    assert!(report["connections"]["lives"].as_u64() > Some(10), "{report:#}");
    let faults = Faults { lose_every: 100, ..Faults::default() };
    let (report, output) = fanout(faults, "/raw/bench", &extra);
    assert_eq!(output.status.code(), Some(1));
    assert!(report["faults"]["lost"].as_u64() > Some(10 * 12), "{report:#}");
}

#[test]
fn wrong_use_is_told_apart_from_failure() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).args(arguments).output();
        let output = output.expect("loadgen runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = run(&["fanout", "--size", "3"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("--size") && text.contains("'3'") && text.contains("57"), "{text}");
    let (code, text) = run(&["fanout", "--outstanding", "2", "--publishers", "2"]);
    assert_eq!(code, Some(2), "{text}");
    let (code, text) = run(&["fanout", "--url", "http://127.0.0.1/"]);
    assert_eq!(code, Some(2), "{text}");
    // Nothing listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr();
    let url = format!("ws://{}/raw/x", closed.expect("bound"));
    let (code, text) = run(&["fanout", "--url", &url, "--publish-url", &url]);
    assert_eq!(code, Some(1));
    assert!(text.contains("refused"), "{text}");
}
