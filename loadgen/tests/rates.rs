//! Ramps, the search for the highest rate, publishers alone, interrupted runs, scenario files.

mod support;

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Faults, Server};

fn loadgen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen")).args(arguments).output().expect("loadgen runs")
}

/// A file of this name for this test process alone.
fn file(name: &str) -> String {
    let name = format!("loadgen-rates-{}-{name}", std::process::id());
    std::env::temp_dir().join(name).to_string_lossy().into_owned()
}

fn take(path: &str) -> Value {
    let text = std::fs::read(path).expect("a report");
    std::fs::remove_file(path).expect("our own file");
    serde_json::from_slice(&text).expect("JSON")
}

fn urls(server: &Server) -> [String; 4] {
    let data = format!("ws://{}/raw/bench", server.data);
    let publish = format!("ws://{}/publish/bench", server.publish);
    ["--url".to_owned(), data, "--publish-url".to_owned(), publish]
}

fn fanout(server: &Server, name: &str, extra: &[&str]) -> (Value, Output) {
    let (json, urls) = (file(name), urls(server));
    let mut arguments = vec!["fanout", "--json", &json, "--grace", "500ms"];
    arguments.extend(urls.iter().map(String::as_str));
    arguments.extend(extra);
    let output = loadgen(&arguments);
    (take(&json), output)
}

#[test]
fn a_ramp_is_told_step_by_step_with_what_each_lost() {
    let server = Server::start(Faults { lose_every: 100, ..Faults::default() });
    let extra = [
        "--rate",
        "50..350/2s",
        "--duration",
        "2500ms",
        "--warmup",
        "200ms",
        "--subscribers",
        "10",
        "--publishers",
        "2",
    ];
    let (report, output) = fanout(&server, "ramp.json", &extra);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    let steps = report["steps"].as_array().expect("steps");
    // 20 of the ramp, and what follows it in steps of the same length.
    assert_eq!(steps.len(), 25);
    let sum = |name: &str| steps.iter().filter_map(|step| step[name].as_u64()).sum::<u64>();
    // 200 a second on average, and half a second of 350.
    assert_eq!(sum("publications"), 400 + 175, "{steps:#?}");
    assert_eq!(report["published"]["published"], 10 + 400 + 175);
    assert_eq!(report["faults"]["lost"], 5 * 10);
    assert_eq!(sum("lost"), 50);
    assert_eq!(sum("delivered"), 575 * 10 - 50);
    assert_eq!(report["latency"]["corrected"]["count"], sum("delivered"));
    let rate = |step: usize| steps[step]["rate_per_s"].as_f64().expect("a rate");
    assert!(rate(0) < rate(10) && rate(10) < rate(19) && rate(19) <= rate(24) + 10.0);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("steps "), "{text}");
}

#[test]
fn the_highest_rate_of_a_server_with_a_limit_is_found() {
    // One publication takes it 2.5 ms: over 400 a second they wait for ever longer.
    let server = Server::start(Faults { publication_us: 2500, ..Faults::default() });
    let extra = [
        "--find-max",
        "p99=150ms",
        "--precision",
        "20",
        "--rate",
        "300",
        "--duration",
        "1500ms",
        "--warmup",
        "100ms",
        "--subscribers",
        "2",
    ];
    let (report, output) = fanout(&server, "max.json", &extra);
    let found = &report["find_max"];
    let rate = found["rate_per_s"].as_f64().unwrap_or_else(|| panic!("a rate: {found:#}"));
    let failed = found["failed_per_s"].as_f64().expect("a rate that was too high");
    // At 1.1 times the limit the last hundredth is 150 ms late after 1.6 s.
    assert!(rate < 400.0 * 1.15, "{found:#}");
    assert!(failed <= rate * 1.2, "{found:#}");
    // However busy the machine is, half of it is little.
    assert!(rate > 200.0, "{found:#}");
    assert_eq!(found["bounds"][0], "p99=150ms");
    let steps = found["steps"].as_array().expect("steps");
    assert!(steps.iter().any(|step| step["held"] == false && step["why"].is_string()));
    let best = steps.iter().rfind(|step| step["rate_per_s"] == rate).expect("its step");
    assert_eq!(best["held"], true, "{found:#}");
    // All else is of that step.
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["published"]["published"], best["published"]);
    assert!(report["own_limit"].is_boolean());
    assert!(report["threads"][0]["busy_share"].is_number());
}

#[test]
fn the_top_of_a_ramp_bounds_the_search() {
    let server = Server::start(Faults::default());
    let extra = [
        "--find-max",
        "p50=10s,max=60s",
        "--rate",
        "50..150/1s",
        "--duration",
        "300ms",
        "--warmup",
        "0s",
        "--subscribers",
        "2",
    ];
    let (report, output) = fanout(&server, "top.json", &extra);
    assert!(output.status.success(), "{report:#}");
    let found = &report["find_max"];
    assert_eq!((&found["rate_per_s"], &found["at_least"]), (&150.0.into(), &true.into()));
    assert_eq!(found["ramp"].as_array().map(Vec::len), Some(20));
    assert!(String::from_utf8_lossy(&output.stdout).contains("at least 150 publications/s"));
}

#[test]
fn a_rate_that_loses_something_does_not_hold() {
    let server = Server::start(Faults { lose_every: 5, ..Faults::default() });
    let extra = [
        "--find-max",
        "max=60s",
        "--rate",
        "100..200/1s",
        "--duration",
        "300ms",
        "--warmup",
        "0s",
        "--subscribers",
        "2",
    ];
    let (report, output) = fanout(&server, "none.json", &extra);
    assert_eq!(output.status.code(), Some(1));
    assert!(report["find_max"]["rate_per_s"].is_null(), "{report:#}");
    assert!(report["find_max"]["steps"][0]["lost"].as_u64() > Some(0), "{report:#}");
}

#[test]
fn publishers_alone_are_told_what_was_accepted() {
    let server = Server::start(Faults { refuse_every: 10, ..Faults::default() });
    let (json, url) = (file("publish.json"), format!("ws://{}/publish/bench", server.publish));
    let arguments =
        ["publish", "--url", &url, "--json", &json, "--publishers", "3", "--count", "200"];
    let plain = [arguments.as_slice(), &["--rate", "1000"]].concat();
    let output = loadgen(&plain);
    assert!(output.status.success(), "{output:?}");
    let report = take(&json);
    assert_eq!(report["published"]["published"], 200);
    assert!(report["acks"].is_null());
    assert!(report["sending"]["wire_bytes"].as_u64() > Some(200 * 128), "{report:#}");
    assert_eq!(report["sending"]["lateness"]["count"], 200);

    let asked = [arguments.as_slice(), &["--rate", "100..1000/1s", "--acks"]].concat();
    let output = loadgen(&asked);
    // Every tenth of a connection's is refused: 6 of 67, 67 and 66.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = take(&json);
    let acks = &report["acks"];
    assert_eq!(
        (&acks["accepted"], &acks["refused"], &acks["unanswered"]),
        (&182.into(), &18.into(), &0.into()),
        "{report:#}"
    );
    assert_eq!(acks["latency"]["count"], 182);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("182 accepted, 18 refused"), "{text}");
}

#[test]
fn an_interrupted_run_reports_what_it_has() {
    let server = Server::start(Faults::default());
    for (rate, while_connecting) in [("5", true), ("1000", false)] {
        let (json, urls) = (file(rate), urls(&server));
        let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["fanout", "--subscribers", "20", "--connect-rate", rate, "--duration", "10m"])
            .args(["--warmup", "0s", "--rate", "100", "--json", &json])
            .args(urls)
            .stdout(Stdio::piped())
            .spawn()
            .expect("loadgen runs");
        // 20 at 1,000 a second are open well before; at 5 a second it takes 4 s.
        std::thread::sleep(Duration::from_secs(if while_connecting { 1 } else { 3 }));
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it lives");
        let status = child.wait().expect("it ends");
        let report = take(&json);
        assert_eq!(report["interrupted"], true, "{report:#}");
        assert_eq!(status.code(), Some(i32::from(while_connecting)), "{report:#}");
        if while_connecting {
            assert_eq!(report["published"]["published"], 0);
            let note = report["notes"][0].as_str().expect("a note");
            assert!(note.contains("interrupted while connecting"), "{note}");
            assert!(report["handshake"]["count"].as_u64() > Some(0), "{report:#}");
            assert!(report["connect"]["count"].as_u64() > Some(0), "{report:#}");
        } else {
            assert_eq!(report["faults"]["lost"], 0, "{report:#}");
            assert!(report["deliveries"]["messages"].as_u64() > Some(200), "{report:#}");
        }
    }
}

#[test]
fn silence_is_told_and_bounded() {
    let server = Server::start(Faults { stall_at: 60, ..Faults::default() });
    let extra = ["--rate", "100", "--duration", "2s", "--warmup", "0s", "--subscribers", "5"];
    let (report, output) = fanout(&server, "silence.json", &extra);
    assert!(output.status.success(), "{report:#}");
    let silence = &report["silence"];
    assert_eq!((&silence["connections"], &silence["over_bound"]), (&5.into(), &0.into()));
    // The server stalled for a second.
    assert!(silence["max_ns"].as_u64() > Some(900_000_000), "{report:#}");
    let bounded = [extra.as_slice(), &["--silence", "800ms"]].concat();
    let server = Server::start(Faults { stall_at: 60, ..Faults::default() });
    let (report, output) = fanout(&server, "silence.json", &bounded);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    assert_eq!(report["silence"]["over_bound"], 5);
}

#[test]
fn a_scenario_runs_its_steps_and_the_command_line_goes_first() {
    let server = Server::start(Faults::default());
    let (scenario, json) = (file("s.toml"), file("s.json"));
    let text = format!(
        "command = 'fanout'\nurl = 'ws://{}/raw/bench'\npublish_url = 'ws://{}/publish/bench'\n\
         subscribers = 500\nwarmup = '0s'\nduration = '300ms'\n\
         [[step]]\nname = 'one'\nrate = 100\n[[step]]\nrate = 200\n",
        server.data, server.publish
    );
    std::fs::write(&scenario, text).expect("a file");
    let output = loadgen(&["run", &scenario, "--subscribers=3", "--json", &json]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("== step 1, one") && text.contains("== step 2"), "{text}");
    for (step, published) in [(1, 30), (2, 60)] {
        let report = take(&json.replace(".json", &format!("-{step}.json")));
        assert_eq!(report["published"]["published"], published);
        assert_eq!(report["connections"]["subscribers"], 3);
        assert_eq!(report["machine"]["command"][1], "fanout");
    }
    for (text, said) in [
        ("command = 'fanout'\nrat = 5\n", "s.toml:2: rat: is no flag of fanout; rate is one"),
        ("command = 'fanout'\nrate = '5..'\n", "100..5000/60s"),
        ("command = 'walk'\n", "should be one of connect, fanout"),
    ] {
        std::fs::write(&scenario, text).expect("a file");
        let output = loadgen(&["run", &scenario]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}: {error}");
        assert!(error.contains(said), "{text}: {error}");
    }
    std::fs::remove_file(&scenario).expect("our own file");
}

#[test]
fn the_selftest_finds_no_fault_in_itself() {
    let json = file("selftest.json");
    let output = loadgen(&["selftest", "--duration", "250ms", "--threads", "2", "--json", &json]);
    assert!(output.status.success(), "{output:?}");
    let found = take(&json);
    let receiving = found["receiving"].as_array().expect("lanes");
    assert_eq!(receiving.len(), 8);
    for lane in receiving {
        assert_eq!(lane["faults"], 0, "{lane:#}");
        assert!(lane["per_s"].as_f64() > Some(0.0), "{lane:#}");
    }
    let per_receive = |lane: usize| receiving[lane]["messages_per_receive"].as_f64().expect("one");
    assert!(per_receive(0) > 10.0 && per_receive(3) < per_receive(0) / 4.0, "{receiving:#?}");
    assert!(found["timer"]["count"].as_u64() > Some(100), "{found:#}");
}

#[test]
fn wrong_use_is_named() {
    for (arguments, said) in [
        (["fanout", "--rate", "100..5000"], "as in 100..5000/60s"),
        (["fanout", "--find-max", "p99"], "as in p99=5ms"),
        (["publish", "--count", "0"], "--count"),
    ] {
        let output = loadgen(&arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}
