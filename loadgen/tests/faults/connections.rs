//! More connections than file descriptors, and where they come from.

use std::process::{Command, Output};

use serde_json::Value;

use super::faulty::{Fault, FaultyServer};

/// `loadgen connect` with so many file descriptors.
fn connect(
    server: &FaultyServer,
    descriptors: u32,
    connections: u32,
    extra: &[&str],
) -> (Option<Value>, Output) {
    let file = format!("loadgen-connect-{connections}-{}.json", std::process::id());
    let json = std::env::temp_dir().join(file);
    let limited = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &limited, env!("CARGO_BIN_EXE_loadgen"), "connect", "--hold", "200ms"])
        .args(["--connect-rate", "0", "--connections", &connections.to_string()])
        .args(["--url", &format!("ws://{}/raw/x?n={{n}}", server.data)])
        .args(["--json", json.to_str().expect("UTF-8")])
        .args(extra)
        .output()
        .expect("loadgen runs");
    let text = std::fs::read(&json).ok();
    let _ = std::fs::remove_file(&json);
    (text.map(|text| serde_json::from_slice(&text).expect("JSON")), output)
}

#[test]
fn connections_in_rings_need_no_descriptors() {
    let server = FaultyServer::start(Fault::None);
    let (report, output) = connect(&server, 150, 400, &[]);
    let report = report.unwrap_or_else(|| panic!("no report: {output:?}"));
    assert!(output.status.success(), "{report:#}");
    // No ring's table is larger than the limit: several are taken.
    assert!(report["threads"].as_array().is_some_and(|threads| threads.len() >= 4), "{report:#}");
    assert_eq!(report["own"]["connections_max"], Value::Null);
    assert_eq!(server.book().sources.values().sum::<u32>(), 400);
}

#[test]
fn connections_that_are_descriptors_are_as_many_as_the_limit_allows() {
    let server = FaultyServer::start(Fault::None);
    let (report, output) = connect(&server, 150, 401, &["--kernel-tier", "base"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((report.is_some(), output.status.code()), (false, Some(2)), "{text}");
    let most = 150 - 64 - 4;
    for words in ["401 connections", "RLIMIT_NOFILE", &format!("allows {most}"), "ulimit -n"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(server.book().sources.is_empty(), "refused before the first connection");
    let (report, output) = connect(&server, 150, most, &["--kernel-tier", "base"]);
    let report = report.unwrap_or_else(|| panic!("no report: {output:?}"));
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["own"]["connections_max"], most);
    let notes = report["notes"].as_array().expect("a list");
    let told = |note: &Value| note.as_str().is_some_and(|note| note.contains("RLIMIT_NOFILE"));
    assert!(notes.iter().any(told), "{report:#}");
    assert_eq!(server.book().sources.values().sum::<u32>(), most);
}

#[test]
fn connections_come_from_where_they_should() {
    let server = FaultyServer::start(Fault::None);
    let given = ["--source", "127.0.0.7,127.0.9.1"];
    let (_, output) = connect(&server, 150, 31, &given);
    assert!(output.status.success(), "{output:?}");
    let sources = server.book().sources;
    let of = |text: &str| sources.get(&text.parse().expect("an address")).copied();
    assert_eq!((of("127.0.0.7"), of("127.0.9.1")), (Some(16), Some(15)), "{sources:?}");
    // None of ours: said, and no connection.
    let (_, output) = connect(&server, 150, 32, &["--source", "192.0.2.1"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("192.0.2.1") && output.status.code() == Some(1), "{text}");
}
