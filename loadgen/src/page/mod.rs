//! One or several runs as a page that needs nothing else: no network, no scripts.
//!
//! Knows: what belongs on the page and in which order. Must not know: how a run is measured, how a
//! curve is drawn.

mod figures;
mod plot;
mod plots;
mod run;

use std::path::Path;

use askama::Template;

use self::figures::{Section, sections, time_of};
use self::plot::color_class;
use self::plots::{Plot, plots};
pub(crate) use self::run::Run;
use crate::failure::Failure;
use crate::report::words::{count, duration};

/// The page. Its text is in `templates/page.html`.
#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    title: String,
    runs: Vec<Headline>,
    /// Of a single run: its most important figures.
    tiles: Vec<Tile>,
    comparison: Option<&'a Comparison>,
    plots: Vec<Plot>,
    percentiles: Vec<[String; 3]>,
    missed: Vec<String>,
    sections: Vec<Section>,
}

/// A run's place in the heading.
struct Headline {
    name: String,
    color: String,
    /// `good`, `bad` or `cut`.
    state: &'static str,
    state_text: String,
    notes: Vec<String>,
    command: String,
    environment: String,
}

struct Tile {
    name: String,
    value: String,
    state: &'static str,
}

/// What `compare` has found, in words: a table.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// What makes the runs no equals.
    pub(crate) warnings: Vec<String>,
    /// Names of the columns.
    pub(crate) columns: Vec<String>,
    /// As long as `columns`.
    pub(crate) rows: Vec<Vec<String>>,
    /// How to read it.
    pub(crate) explanation: Vec<String>,
}

/// Writes the page of these runs.
///
/// # Errors
/// The file can't be written.
pub(crate) fn write(
    path: &Path,
    runs: &[Run],
    comparison: Option<&Comparison>,
) -> Result<(), Failure> {
    let failure = |error| Failure::Write { path: path.to_owned(), error };
    let text = text(runs, comparison).map_err(|error| failure(std::io::Error::other(error)))?;
    std::fs::write(path, text).map_err(failure)
}

fn text(runs: &[Run], comparison: Option<&Comparison>) -> askama::Result<String> {
    let single = match runs {
        [run] => Some(run),
        _ => None,
    };
    let page = Page {
        title: title(runs),
        runs: runs.iter().map(headline).collect(),
        tiles: single.map(tiles).unwrap_or_default(),
        comparison,
        plots: plots(runs),
        percentiles: single.map(percentiles).unwrap_or_default(),
        missed: single.map(missed).unwrap_or_default(),
        sections: sections(runs),
    };
    page.render()
}

fn title(runs: &[Run]) -> String {
    let [run] = runs else { return format!("{} runs beside each other", runs.len()) };
    let whole = |place: &str| count(run.number(place).unwrap_or_default() as u64);
    let mut text = run.setting("command").unwrap_or("run").to_owned();
    match run.number("/connections/subscribers") {
        Some(subscribers) if subscribers > 0.0 => {
            text += &format!(", {} subscribers", whole("/connections/subscribers"));
        }
        _ => text += &format!(", {} connections", whole("/connections/idle")),
    }
    if run.setting("command") == Some("fanout") && run.setting("outstanding").is_none() {
        let rate = run.setting("rate").unwrap_or("?");
        text += &match rate.split_once('/') {
            // As in 100..5000/60s.
            Some((ends, length)) => format!(", {ends}/s in {length}"),
            None => format!(", {rate}/s"),
        };
    }
    if let Some(size) = run.setting("size") {
        text += &format!(", {size} B");
    }
    text
}

fn headline(run: &Run) -> Headline {
    let notes = run.list("/notes").iter().filter_map(|note| note.as_str()).map(str::to_owned);
    let (state, state_text) = match (run.is("/clean"), run.is("/interrupted")) {
        (true, false) => ("good", "clean: nothing lost, doubled, reordered or damaged"),
        (true, true) => ("cut", "interrupted; clean until then"),
        (false, true) => ("bad", "interrupted, and not clean"),
        (false, false) => ("bad", "not clean"),
    };
    let environment = format!(
        "{}; Linux {}; {}; {} processors; loadgen {} ({} build)",
        time_of(run.number("/machine/unix_s")),
        run.text("/machine/kernel"),
        run.text("/machine/cpu"),
        run.number("/machine/cpus").unwrap_or_default(),
        run.text("/machine/version"),
        run.text("/machine/build"),
    );
    Headline {
        name: run.name.clone(),
        color: color_class(run.side),
        state,
        state_text: state_text.to_owned(),
        notes: notes.collect(),
        command: run.command(),
        environment,
    }
}

fn tiles(run: &Run) -> Vec<Tile> {
    let tile = |name: &str, value: String| Tile { name: name.to_owned(), value, state: "" };
    let at = |place: &str| run.number(place).unwrap_or_default() as u64;
    let mut tiles = Vec::new();
    if run.has_latency() {
        for (name, place) in [
            ("p50", "/latency/corrected/p50_ns"),
            ("p99", "/latency/corrected/p99_ns"),
            ("p99.9", "/latency/corrected/p99_9_ns"),
            ("max", "/latency/corrected/max_ns"),
        ] {
            tiles.push(tile(name, duration(at(place))));
        }
        tiles.push(tile("deliveries/s", count(at("/deliveries/per_s"))));
    } else {
        tiles.push(tile("connect p50", duration(at("/handshake/p50_ns"))));
        tiles.push(tile("connect p99", duration(at("/handshake/p99_ns"))));
        let connecting_s = run.number("/connections/connecting_s").unwrap_or_default();
        tiles.push(tile("all connected in", format!("{connecting_s:.2} s")));
    }
    if at("/connections/subscribers") > 0 {
        let lost = at("/faults/lost");
        let state = if lost > 0 { "bad" } else { "good" };
        tiles.push(Tile { name: "lost".to_owned(), value: count(lost), state });
    }
    if let Some(ns) = run.number("/server/cpu_ns_per_delivery").filter(|_| run.has_latency()) {
        tiles.push(tile("cpu/delivery", duration(ns as u64)));
    }
    tiles
}

fn percentiles(run: &Run) -> Vec<[String; 3]> {
    if !run.has_latency() {
        return Vec::new();
    }
    let names = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "p99_999", "max", "mean"];
    let row = |name: &&str| {
        let of = |which: &str| {
            let ns = run.number(&format!("/latency/{which}/{name}_ns"));
            duration(ns.unwrap_or_default() as u64)
        };
        [name.replace('_', "."), of("corrected"), of("uncorrected")]
    };
    names.iter().map(row).collect()
}

fn missed(run: &Run) -> Vec<String> {
    let list = run.list("/missed");
    let line = |missed: &serde_json::Value| {
        let number = |name: &str| missed.get(name).and_then(serde_json::Value::as_u64);
        let stream =
            number("stream").and_then(|at| run.list("/streams").get(at as usize)?.as_str());
        let [connection, from, to] =
            ["connection", "from", "to"].map(|name| number(name).unwrap_or_default());
        let stream = stream.unwrap_or("?");
        format!("connection {connection} missed {from} to {to} of {stream}")
    };
    let mut lines: Vec<_> = list.iter().take(MISSED_SHOWN).map(line).collect();
    if list.len() > MISSED_SHOWN {
        lines.push(format!("and {} more", count((list.len() - MISSED_SHOWN) as u64)));
    }
    lines
}

/// The others are in the JSON report.
const MISSED_SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(lost: u64) -> serde_json::Value {
        let step = |at: u64| {
            json!({"at_s": at, "deliveries": 100 + at, "published": 5, "wire_bytes": 9, "connections": 2,
                "measured": 5, "p50_ns": 50_000, "p99_ns": 90_000, "p99_9_ns": 95_000, "max_ns": 99_000})
        };
        let percentiles = json!({"count": 1000, "mean_ns": 1.5, "min_ns": 1000, "p50_ns": 50_000,
            "p90_ns": 70_000, "p99_ns": 90_000, "p99_9_ns": 95_000, "p99_99_ns": 97_000,
            "p99_999_ns": 98_000, "max_ns": 99_000});
        json!({
            "schema": 1, "clean": lost == 0, "notes": ["a <b>note</b> & more"],
            "settings": {"command": "fanout", "rate": "20", "size": "128"},
            "machine": {"kernel": "6.1", "cpu": "x", "cpus": 2, "version": "0.1.0", "build": "release",
                "command": ["loadgen", "fanout"], "unix_s": 1_790_000_000},
            "connections": {"subscribers": 2000, "failures": {"refused": 3}},
            "published": {"published": 10}, "deliveries": {"messages": 1000, "per_s": 100.5, "wire_bytes": 1234},
            "faults": {"lost": lost},
            "missed": [{"connection": 4, "stream": 0, "from": 7, "to": 9}],
            "streams": ["publisher 0"],
            "latency": {"corrected": percentiles, "uncorrected": percentiles},
            "curves": {"corrected": [{"quantile": 0.0, "ns": 1000}, {"quantile": 1.0, "ns": 99_000}],
                "uncorrected": []},
            "timeline": {"step_s": 1, "warmup_s": 2.0, "steps": [step(0), step(1)]},
            "spread_samples": [{"stream": 0, "number": 0, "first_us": 5, "median_us": 9, "last_us": 20}],
            "something_new": {"heat_ns": 5000},
        })
    }

    #[test]
    fn a_ramp_is_told_by_its_ends_and_its_length() {
        let mut ramp = report(0);
        ramp["settings"]["rate"] = "100..5000/60s".into();
        let title = title(&[Run::new("", ramp)]);
        assert_eq!(title, "fanout, 2,000 subscribers, 100..5000/s in 60s, 128 B");
    }

    #[test]
    fn a_run_has_its_plots_its_losses_and_whatever_else_is_in_the_report() {
        let text = text(&[Run::new("", report(3))], None).expect("a page");
        for part in [
            "fanout, 2,000 subscribers, 20/s, 128 B",
            "a &#60;b&#62;note&#60;/b&#62; &#38; more",
            "connection 4 missed 7 to 9 of publisher 0",
            "Latency by percentile",
            "From the first to the last subscriber",
            "Something new",
            "5.0 µs",
            "refused",
            "not clean",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert_eq!(text.matches("<svg").count(), 5);
        for outside in ["http://", "https://", "<script", "@import", "url("] {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(outside), "{outside}");
        }
    }

    #[test]
    fn several_runs_share_their_plots_and_old_reports_are_no_fault() {
        let runs = [Run::new("a", report(0)), Run::new("b", report(0)), Run::new("c", json!({}))];
        let comparison = Comparison {
            columns: vec!["figure".to_owned(), "ratio".to_owned()],
            rows: vec![vec!["p99".to_owned(), "0.97".to_owned()]],
            ..Comparison::default()
        };
        let text = text(&runs, Some(&comparison)).expect("a page");
        assert_eq!(text.matches("<svg").count(), 3);
        assert!(text.contains("3 runs beside each other") && text.contains("0.97"), "{text}");
    }
}
