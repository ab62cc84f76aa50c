//! Whether runs are equals, so that a ratio of their figures says something about the servers.
//!
//! Knows: which settings change what is measured. Must not know: the figures compared.

use std::collections::{BTreeMap, BTreeSet};

use crate::page::Run;

/// What makes the runs no equals, each named; and which of them were not clean.
pub(super) fn differences(runs: &[Run]) -> Vec<String> {
    let mut found = Vec::new();
    // Reports of earlier versions have no settings: then what they led to is all there is.
    if runs.iter().all(|run| run.report.get("settings").is_some()) {
        for name in names(runs) {
            let value = |run: &Run| run.setting(name).unwrap_or("not given").to_owned();
            found.extend(difference(&format!("--{}", name.replace('_', "-")), runs, value));
        }
    }
    for (name, place) in COUNTED {
        // Where a flag says it, it has been said.
        if found.iter().any(|line| line.starts_with(&format!("--{name} "))) {
            continue;
        }
        let value = |run: &Run| run.number(place).map_or_else(|| "?".to_owned(), |n| n.to_string());
        found.extend(difference(name, runs, value));
    }
    if !found.iter().any(|line| line.starts_with("--size")) {
        found.extend(sizes(runs));
    }
    for (name, place) in MACHINE {
        found.extend(difference(name, runs, |run| {
            run.report.pointer(place).map_or_else(|| "?".to_owned(), ToString::to_string)
        }));
    }
    for run in runs {
        if run.is("/interrupted") {
            found.push(format!("{} was interrupted", run.name));
        }
        if !run.is("/clean") {
            found.push(format!("{} was not clean: its figures are of what did arrive", run.name));
        }
    }
    found
}

/// Settings of any of the runs that change what is measured.
fn names(runs: &[Run]) -> BTreeSet<&str> {
    runs.iter()
        .filter_map(|run| run.report.get("settings")?.as_object())
        .flat_map(|settings| settings.keys())
        .map(String::as_str)
        .filter(|name| !OUTSIDE.contains(name))
        .collect()
}

/// Of messages received, if they are not about the same: numbers within a payload differ in length.
fn sizes(runs: &[Run]) -> Option<String> {
    let size = |run: &Run| {
        let [bytes, messages] = ["payload_bytes", "messages"]
            .map(|name| run.number(&format!("/deliveries/{name}")).unwrap_or_default());
        bytes / messages.max(1.0)
    };
    let least = runs.iter().map(size).reduce(f64::min)?;
    let most = runs.iter().map(size).reduce(f64::max)?;
    let is_same = most - least <= (least * SIZE_SHARE_MAX).max(SIZE_BYTES_MAX);
    if is_same {
        return None;
    }
    difference("bytes of a message received", runs, |run| format!("{:.0}", size(run)))
}

fn difference(name: &str, runs: &[Run], value: impl Fn(&Run) -> String) -> Option<String> {
    let mut by_value = BTreeMap::<String, Vec<&str>>::new();
    for run in runs {
        by_value.entry(value(run)).or_default().push(&run.name);
    }
    if by_value.len() < 2 {
        return None;
    }
    let parts: Vec<_> =
        by_value.iter().map(|(value, runs)| format!("{value} ({})", runs.join(", "))).collect();
    Some(format!("{name} differs: {}", parts.join("; ")))
}

/// Mean sizes that differ by no more are the same, as a share,
const SIZE_SHARE_MAX: f64 = 0.02;
/// or in bytes.
const SIZE_BYTES_MAX: f64 = 2.0;
/// Where, and what is written: two servers under one load may differ in these.
const OUTSIDE: [&str; 11] = [
    "cpus",
    "hgrm",
    "html",
    "json",
    "metrics",
    "pid",
    "publish_url",
    "quiet",
    "seed",
    "source",
    "url",
];
const COUNTED: [(&str, &str); 6] = [
    ("subscribers", "/connections/subscribers"),
    ("publishers", "/connections/publishers"),
    ("idle connections", "/connections/idle"),
    ("stalled subscribers", "/connections/stalled"),
    ("slow subscribers", "/connections/slow"),
    ("churning subscribers", "/connections/churning"),
];
const MACHINE: [(&str, &str); 4] = [
    ("kernel", "/machine/kernel"),
    ("processor", "/machine/cpu"),
    ("number of processors", "/machine/cpus"),
    ("loadgen's build", "/machine/build"),
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn report() -> Value {
        json!({
            "clean": true,
            "settings": {"command": "fanout", "rate": "20", "url": "ws://a", "json": "a.json"},
            "connections": {"subscribers": 100, "publishers": 1},
            "deliveries": {"payload_bytes": 12_800, "messages": 100},
            "machine": {"kernel": "6.1", "cpu": "x", "cpus": 2, "build": "release"},
        })
    }

    fn with(place: &str, value: Value) -> Value {
        let mut changed = report();
        *changed.pointer_mut(place).expect("a place of the report") = value;
        changed
    }

    #[test]
    fn what_differs_is_named() {
        let against = |other: Value| differences(&[Run::new("a", report()), Run::new("b", other)]);
        assert_eq!(against(report()), Vec::<String>::new());
        assert_eq!(against(with("/settings/url", json!("ws://b"))), Vec::<String>::new());
        for (place, value, named) in [
            ("/settings/rate", json!("30"), "--rate differs: 20 (a); 30 (b)"),
            ("/settings/command", json!("synth"), "--command differs"),
            ("/connections/subscribers", json!(101), "subscribers differs: 100 (a); 101 (b)"),
            ("/deliveries/payload_bytes", json!(25_600), "bytes of a message received differs"),
            ("/machine/kernel", json!("6.18"), "kernel differs"),
            ("/clean", json!(false), "b was not clean"),
        ] {
            let found = against(with(place, value));
            assert!(found.len() == 1 && found[0].starts_with(named), "{place}: {found:?}");
        }
    }
}
