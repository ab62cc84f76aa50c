//! `loadgen replay`, `synth` and `connect` against a server with known faults.

mod support;

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use support::{Faults, Server};

struct Scratch(PathBuf);

impl Scratch {
    /// A folder of its own with one second of recorded data in `spot/` and `usdm/`.
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("loadgen-{name}-{}", std::process::id()));
        for (part, start_ns) in [("spot", 5_000_000_000u64), ("usdm", 5_000_300_000)] {
            let mut lines = String::new();
            for number in 0..100u64 {
                let at_ns = start_ns + number * 10_000_000;
                lines += &format!(
                    "{at_ns} {{\"stream\":\"btcusdt@trade\",\"data\":{{\"t\":{number},\"f\":\"{part}\"}}}}\n\
                     {at_ns} {{\"stream\":\"btcusdt@bookTicker\",\"data\":{{\"u\":{number},\"f\":\"{part}\"}}}}\n"
                );
                if number % 10 == 0 {
                    // The same payload again and again.
                    let data = "{\"stream\":\"btcusdt@depth@100ms\",\"data\":{\"b\":[]}}";
                    lines += &format!("{at_ns} {data}\n{at_ns} {{\"lastUpdateId\":1}}\n");
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

fn loadgen(arguments: &[&str], scratch: &Scratch) -> (Value, Output) {
    let json = scratch.file("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments)
        .args(["--json", &json])
        .output()
        .expect("loadgen runs");
    let text = std::fs::read(&json).unwrap_or_else(|_| panic!("no report: {output:?}"));
    (serde_json::from_slice(&text).expect("JSON"), output)
}

fn replay(name: &str, faults: Faults, extra: &[&str]) -> (Value, Output) {
    let server = Server::start(faults);
    let scratch = Scratch::new(name);
    let (url, publish_url) = (format!("ws://{}", server.data), format!("ws://{}", server.publish));
    let (spot, usdm) = (scratch.file("spot/btcusdt"), scratch.file("usdm/btcusdt"));
    let fixed = ["replay", &spot, &usdm, "--subscribers", "8", "--grace", "500ms", "--url", &url];
    let arguments = [&fixed[..], &["--publish-url", &publish_url], extra].concat();
    loadgen(&arguments, &scratch)
}

/// Two subscribers each: all trades 200; spot 100 + 100 + 10; one topic 100; spot again 210.
const DELIVERIES: u64 = 2 * (200 + 210 + 100 + 210);

#[test]
fn every_message_arrives_once_in_every_form() {
    for (name, extra) in [
        ("raw", &["--format", "raw"][..]),
        ("json", &["--format", "json", "--threads", "2"]),
        ("lines", &["--lines", "--speed", "4"]),
        ("fast", &["--speed", "0", "--format", "json"]),
    ] {
        let (report, output) = replay(name, Faults::default(), extra);
        assert!(output.status.success(), "{name}: {report:#}");
        assert_eq!(report["published"]["published"], 420, "{name}");
        assert_eq!(report["deliveries"]["messages"], DELIVERIES, "{name}");
        assert_eq!(report["latency"]["corrected"]["count"], DELIVERIES, "{name}");
    }
}

#[test]
fn recorded_speed_is_kept() {
    let (report, _) = replay("speed", Faults::default(), &["--speed", "0.5"]);
    let seconds = report["deliveries"]["window_s"].as_f64().expect("a number");
    assert!((1.9..2.6).contains(&seconds), "{seconds} s for 0.99 s at half speed");
    assert!(report["latency"]["corrected"]["p50_ns"].as_u64() < Some(50_000_000), "{report:#}");
}

#[test]
fn losses_of_events_are_found_in_both_forms() {
    for (name, format) in [("lost-raw", "raw"), ("lost-json", "json")] {
        let faults = Faults { lose_every: 50, ..Faults::default() };
        let none = ["--format", format, "--value", "none"];
        let (report, output) = replay(name, faults, &none);
        assert_eq!(output.status.code(), Some(1));
        // 200, 210, 100 and 210 deliveries: 4, 4, 2 and 4 are lost, of two subscribers each.
        assert_eq!(report["faults"]["lost"], 2 * (4 + 4 + 2 + 4), "{report:#}");
        assert_eq!(report["faults"]["reordered"], 0);
    }
}

#[test]
fn damaged_and_doubled_ones_are_found() {
    let faults = Faults { damage_every: 60, ..Faults::default() };
    let (report, output) = replay("damaged", faults, &["--value", "none"]);
    assert_eq!(report["faults"]["damaged"], 2 * (3 + 3 + 1 + 3), "{report:#}");
    assert_eq!(report["faults"]["lost"], 2 * (3 + 3 + 1 + 3));
    assert_eq!(output.status.code(), Some(1));
    let faults = Faults { double_every: 70, ..Faults::default() };
    let extra = ["--interest", "*.*.trade", "--format", "json"];
    let (report, _) = replay("doubled", faults, &extra);
    assert_eq!(report["faults"]["duplicated"], 8 * 2, "{report:#}");
}

#[test]
fn values_may_be_skipped_but_the_newest_must_come() {
    let faults = Faults { conflate: 4, ..Faults::default() };
    let (report, output) = replay("conflated", faults, &["--format", "json"]);
    assert!(output.status.success(), "{report:#}");
    // 75 of 100 in each of three groups that get spot or usdm book tickers.
    assert_eq!(report["faults"]["skipped"], 2 * 3 * 75);
    let faults = Faults { conflate: 3, ..Faults::default() };
    let (report, output) = replay("stale", faults, &["--format", "raw"]);
    assert_eq!(output.status.code(), Some(1));
    // Number 99 is not among those with numbers 3n - 1.
    assert_eq!(report["faults"]["lost"], 2 * 3, "{report:#}");
}

#[test]
fn what_does_not_fit_is_wrong_use() {
    let scratch = Scratch::new("use");
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).args(arguments).output();
        let output = output.expect("loadgen runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let file = scratch.file("spot/btcusdt");
    let (code, text) = run(&["replay", &file, "--subscribers", "1", "--interest", "nothing.>"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("--interest") && text.contains("spot.BTCUSDT.trade"), "{text}");
    let (code, text) = run(&["replay", &scratch.file("missing")]);
    assert_eq!(code, Some(1));
    assert!(text.contains("missing"), "{text}");
}

#[test]
fn synthetic_ticks_are_checked_like_any_and_interrupted_runs_report() {
    for format in ["raw", "json"] {
        let server = Server::start(Faults::default());
        let scratch = Scratch::new(&format!("synth-{format}"));
        let (url, publish_url) =
            (format!("ws://{}", server.data), format!("ws://{}", server.publish));
        let arguments = [
            "synth",
            "--subscribers",
            "8",
            "--symbols",
            "5",
            "--format",
            format,
            "--url",
            &url,
            "--publish-url",
            &publish_url,
            "--duration",
            "1s",
            "--rate",
            "400",
        ];
        let (report, output) = loadgen(&arguments, &scratch);
        assert!(output.status.success(), "{report:#}");
        let published = report["published"]["published"].as_u64();
        assert!((Some(100)..Some(2000)).contains(&published), "{published:?}");
    }
    let server = Server::start(Faults::default());
    let child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["synth", "--subscribers", "4", "--url", &format!("ws://{}", server.data)])
        .args(["--publish-url", &format!("ws://{}", server.publish)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("loadgen runs");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill runs").success());
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("lost          nothing"), "{text}");
}

#[test]
fn connections_are_held_and_losses_seen() {
    let server = Server::start(Faults::default());
    let scratch = Scratch::new("connect");
    let url = format!("ws://{}/ws?topics=x", server.data);
    let arguments = ["connect", "--url", &url, "--connections", "50", "--hold", "300ms"];
    let (report, output) = loadgen(&arguments, &scratch);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["connections"]["idle"], 50);
    assert_eq!(report["handshake"]["count"], 50);
}
