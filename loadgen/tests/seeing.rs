//! What there is to see of a run: its timeline, page and metrics, and runs beside each other.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Faults, Server};

/// A directory of the test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loadgen-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.0.join(name)).expect("a report")).expect("JSON")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn loadgen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen")).args(arguments).output().expect("loadgen runs")
}

fn fanout(server: &Server, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command
        .args(["fanout", "--subscribers", "20", "--warmup", "0s", "--duration", "2s"])
        .args(["--url", &format!("ws://{}/raw/bench", server.data)])
        .args(["--publish-url", &format!("ws://{}/publish/bench", server.publish)])
        .args(["--rate", "200", "--grace", "500ms"])
        .args(extra);
    command
}

fn sum(report: &Value, field: &str) -> u64 {
    let steps = report["timeline"]["steps"].as_array().expect("a list");
    steps.iter().map(|step| step[field].as_u64().expect("a number")).sum()
}

#[test]
fn the_timeline_holds_every_delivery_and_a_stall_stands_where_it_was() {
    let folder = Folder::new("timeline");
    let faults = Faults { delay_every: 300, ..Faults::default() };
    let server = Server::start(faults);
    let (json, html, hgrm) = (folder.file("a.json"), folder.file("a.html"), folder.file("a.hgrm"));
    let extra = ["--threads", "2", "--json", &json, "--html", &html, "--hgrm", &hgrm];
    let output = fanout(&server, &extra).output().expect("loadgen runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = folder.json("a.json");
    assert_eq!(sum(&report, "deliveries"), 400 * 20);
    assert_eq!(sum(&report, "measured"), 400 * 20);
    assert_eq!(sum(&report, "published"), 400);
    assert_eq!(report["latency"]["corrected"]["count"], 400 * 20);
    assert_eq!(report["timeline"]["step_s"], 1);
    // Publication 299 is delayed: it was due in the second second.
    let steps = report["timeline"]["steps"].as_array().expect("a list");
    let max_ms = |at: usize| steps[at]["max_ns"].as_f64().expect("a number") / 1e6;
    assert!(max_ms(1) >= 20.0, "{report:#}");
    let max = report["latency"]["corrected"]["max_ns"].as_u64().expect("a number");
    let longest = steps.iter().map(|step| step["max_ns"].as_u64().expect("a number")).max();
    assert_eq!(longest, Some(max));
    assert_eq!(report["settings"]["command"], "fanout");
    assert_eq!(report["settings"]["rate"], "200");
    assert_eq!(report["settings"]["size"], "128");

    let page = std::fs::read_to_string(&html).expect("a page");
    assert!(page.contains("fanout, 20 subscribers, 200/s, 128 B") && page.contains("</html>"));
    assert_eq!(page.matches("<svg").count(), 5);
    let text = std::fs::read_to_string(&hgrm).expect("percentiles");
    assert!(text.contains("Total count    =         8000]"), "{text}");
    // Lines, since this is no terminal; the table stays on standard output.
    let lines = String::from_utf8_lossy(&output.stderr);
    assert!(lines.contains("measuring 1 of 2 s; 21 connections; "), "{lines}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("p99.99"));
}

#[test]
fn an_interrupted_run_reports_what_there_was() {
    let folder = Folder::new("interrupted");
    let server = Server::start(Faults::default());
    let (json, html) = (folder.file("a.json"), folder.file("a.html"));
    // The threads of the metrics' server must leave the signal to the run.
    let metrics = ["--metrics", "127.0.0.1:0"];
    let extra = ["--duration", "60s", "--json", &json, "--html", &html];
    let mut child =
        fanout(&server, &extra).args(metrics).stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    let child = child.as_mut().expect("loadgen runs");
    await_line(child, "measuring 1 of 60 s");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill runs").success());
    assert!(child.wait().expect("it ends").success());
    let report = folder.json("a.json");
    assert_eq!((&report["interrupted"], &report["clean"]), (&true.into(), &true.into()));
    assert_eq!(sum(&report, "deliveries"), report["deliveries"]["messages"].as_u64().expect("one"));
    assert!(std::fs::read_to_string(&html).expect("a page").contains("interrupted; clean"));
}

/// Reads standard error up to a line with this; the line.
fn await_line(child: &mut Child, text: &str) -> String {
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let found = lines.by_ref().map_while(Result::ok).find(|line| line.contains(text));
    // What comes after must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    found.unwrap_or_else(|| panic!("no line with {text:?}"))
}

#[test]
fn metrics_are_served_while_it_runs() {
    let faults = Faults { double_every: 100, ..Faults::default() };
    let server = Server::start(faults);
    let extra = ["--duration", "4s", "--metrics", "127.0.0.1:0"];
    let mut child = fanout(&server, &extra).stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    let child = child.as_mut().expect("loadgen runs");
    let line = await_line(child, "metrics at http://");
    let address = line.split('/').nth(2).expect("an address").to_owned();
    std::thread::sleep(Duration::from_millis(2500));
    let text = get(&address, "/metrics");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().parse::<f64>().expect("a number")
    };
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("version=0.0.4"), "{text}");
    assert_eq!(value("loadgen_connections_open "), 21.0);
    assert!(value("loadgen_deliveries_total ") > 1000.0, "{text}");
    assert!(value("loadgen_published_total ") > 50.0, "{text}");
    assert!(value("loadgen_duplicated_total ") >= 20.0, "{text}");
    assert!(value("loadgen_latency_seconds_count ") > 1000.0, "{text}");
    assert!(text.contains("loadgen_thread_busy_ratio{thread=\"1\",role=\"receiving\"}"), "{text}");
    assert!(get(&address, "/other").starts_with("HTTP/1.1 404"));
    // It doubled some: not clean.
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    // An address that is taken, and one that is none.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("bound").to_string();
    for (wrong, named) in [(taken.as_str(), "--metrics"), ("nowhere", "--metrics")] {
        let output = loadgen(&["fanout", "--metrics", wrong]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(named) && text.contains(wrong), "{text}");
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("room");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn compare_names_what_differs_and_says_how_sure_it_is() {
    let folder = Folder::new("compare");
    let report = |name: &str, rate: &str, p50_ns: u64| {
        let percentiles = serde_json::json!({"count": 9, "p50_ns": p50_ns, "p99_ns": 2 * p50_ns, "max_ns": 3 * p50_ns});
        let report = serde_json::json!({
            "schema": 1, "clean": true, "settings": {"command": "fanout", "rate": rate},
            "latency": {"corrected": percentiles}, "deliveries": {"per_s": 100.0},
            "curves": {"corrected": [{"quantile": 0.0, "ns": 100_000}, {"quantile": 1.0, "ns": 900_000}]},
        });
        let path = folder.file(name);
        std::fs::write(&path, report.to_string()).expect("our own directory");
        path
    };
    let (a, b) = (report("a.json", "20", 100_000), report("b.json", "20", 110_000));
    let (html, json) = (folder.file("both.html"), folder.file("both.json"));
    let output = loadgen(&["compare", &a, &b, "--html", &html, "--json", &json]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("1.100") && text.contains("no confidence"), "{text}");
    assert!(text.contains("100.0 µs") && text.contains("110.0 µs"), "{text}");
    let page = std::fs::read_to_string(&html).expect("a page");
    assert!(page.contains("A: a") && page.contains("B: b") && page.contains("1.100"), "{page}");
    assert_eq!(folder.json("both.json")["figures"][0]["median"], 1.1);

    let many = |side: &str, factor: u64| {
        (0..8)
            .map(|number| {
                report(&format!("{side}{number}.json"), "20", (100 + number) * 10 * factor)
            })
            .collect::<Vec<_>>()
    };
    let (firsts, seconds) = (many("x", 1), many("y", 3));
    let by_commas = loadgen(&["compare", &firsts.join(","), &seconds.join(",")]);
    let mut by_name = vec!["compare", "--a"];
    by_name.extend(firsts.iter().map(String::as_str));
    by_name.push("--b");
    by_name.extend(seconds.iter().map(String::as_str));
    let by_name = loadgen(&by_name);
    let text = String::from_utf8_lossy(&by_commas.stdout).into_owned();
    assert!(text.contains("3.000 to 3.000") && text.contains("8 pairs"), "{text}");
    assert_eq!(by_commas.stdout, by_name.stdout);

    let other = report("other.json", "30", 100_000);
    let output = loadgen(&["compare", &a, &other]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("--rate differs: 20 (A: a); 30 (B: other)"), "{text}");

    std::fs::write(folder.file("none.json"), "{}").expect("our own directory");
    for (arguments, named) in [
        (vec![a.as_str()], "two sides"),
        (vec![a.as_str(), "/no/such/file"], "/no/such/file"),
        (vec![a.as_str(), &folder.file("none.json")], "schema"),
    ] {
        let output = loadgen(&[&["compare"], arguments.as_slice()].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(named), "{text}");
    }
}
