//! All that a report has, as tables: also what this version knows nothing of.
//!
//! Knows: that a field's name ends in its unit. Must not know: which fields there are.

use serde_json::{Map, Value};

use super::run::Run;
use crate::report::words::{bytes, count, duration};

/// A table with a column for each run.
pub(super) struct Section {
    pub(super) title: String,
    pub(super) rows: Vec<Row>,
}

/// A figure of all runs.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) cells: Vec<String>,
}

/// Everything but what is shown otherwise.
pub(super) fn sections(runs: &[Run]) -> Vec<Section> {
    let mut titles: Vec<&str> = Vec::new();
    for run in runs {
        for name in run.report.as_object().into_iter().flat_map(Map::keys) {
            // A single run's percentiles have a table of their own.
            let is_shown =
                SHOWN_OTHERWISE.contains(&name.as_str()) || (name == "latency" && runs.len() == 1);
            if !is_shown && !titles.contains(&name.as_str()) {
                titles.push(name);
            }
        }
    }
    // Who is looked at first stands first; unknown ones stand before the settings.
    let place = |name: &&str| ORDER.iter().position(|known| known == name).unwrap_or(OTHERS_AT);
    titles.sort_by_key(place);
    let section = |name: &&str| {
        let mut rows: Vec<Row> = Vec::new();
        for (number, run) in runs.iter().enumerate() {
            let mut found = Vec::new();
            if let Some(value) = run.report.get(*name) {
                flatten(name, "", value, &mut found);
            }
            for (name, text) in found {
                let at = rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
                    rows.push(Row { name, cells: vec![String::new(); runs.len()] });
                    rows.len() - 1
                });
                rows[at].cells[number] = text;
            }
        }
        Section { title: sentence(name), rows }
    };
    titles.iter().map(section).filter(|section| !section.rows.is_empty()).collect()
}

/// Names and values of everything below `value`, which is called `key` and stands under `path`.
fn flatten(key: &str, path: &str, value: &Value, found: &mut Vec<(String, String)>) {
    let below = |name: &str| match path {
        "" => words(name),
        path => format!("{path}, {}", words(name)),
    };
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|(a, _), (b, _)| place(a).total_cmp(&place(b)));
            for (name, field) in fields {
                let path = below(name);
                flatten(name, &path, field, found);
            }
        }
        Value::Array(items) if items.iter().all(Value::is_object) => {
            for (number, item) in items.iter().take(ITEMS_SHOWN).enumerate() {
                flatten(key, &below(&number.to_string()), item, found);
            }
        }
        Value::Array(items) => {
            let text: Vec<_> =
                items.iter().take(ITEMS_SHOWN).map(|item| figure("", item)).collect();
            found.push((below(key), text.join(", ")));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let name = if path.is_empty() { words(key) } else { path.to_owned() };
            found.push((name, figure(key, value)));
        }
    }
}

/// Percentiles stand in their order between the least and the longest, all else before them.
fn place(key: &str) -> f64 {
    let percentile = key.strip_prefix('p').and_then(|rest| rest.strip_suffix("_ns"));
    match key {
        "min_ns" => 1.0,
        "max_ns" => 101.0,
        "mean_ns" => 102.0,
        _ => percentile.and_then(|number| number.replace('_', ".").parse().ok()).unwrap_or(0.0),
    }
}

/// A value in the unit that the field's name ends in.
fn figure(key: &str, value: &Value) -> String {
    match value {
        Value::Bool(is) => if *is { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            let value = number.as_f64().unwrap_or_default();
            let whole = value.max(0.0) as u64;
            let has = |unit: &str| key.ends_with(unit) || key.contains(&format!("{unit}_"));
            if has("_ns") || key.starts_with("cpu_ns") {
                duration(whole)
            } else if has("_us") {
                duration(whole * 1000)
            } else if key == "unix_s" {
                time_of(Some(value))
            } else if key.ends_with("per_s") {
                count(whole)
            } else if key.ends_with("_s") {
                format!("{value:.2} s")
            } else if key.contains("bytes") {
                bytes(whole)
            } else if key.ends_with("_share") {
                format!("{:.1} %", value * 100.0)
            } else if number.is_u64() {
                count(whole)
            } else {
                format!("{value:.3}")
            }
        }
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

/// `p99_9_ns` → p99.9, `window_messages` → window messages.
fn words(key: &str) -> String {
    let is_rate = key.ends_with("per_s");
    let unit = UNITS.iter().filter(|_| !is_rate).find_map(|unit| key.strip_suffix(unit));
    let name = unit.unwrap_or(key);
    let is_percentile =
        name.starts_with('p') && name[1..].starts_with(|c: char| c.is_ascii_digit());
    // In the middle a unit says no more than at the end.
    let name = name.replace("_ns_", "_").replace("_us_", "_");
    name.replace('_', if is_percentile { "." } else { " " })
}

fn sentence(key: &str) -> String {
    let mut text = words(key);
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// A time in seconds since 1970 as date and time of day, UTC.
pub(super) fn time_of(unix_s: Option<f64>) -> String {
    let Some(unix_s) = unix_s.filter(|&unix_s| (0.0..1e11).contains(&unix_s)) else {
        return String::new();
    };
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_s as u64);
    humantime::format_rfc3339_seconds(time).to_string().replace('T', " ").replace('Z', " UTC")
}

const UNITS: [&str; 3] = ["_ns", "_us", "_s"];
const SHOWN_OTHERWISE: [&str; 11] = [
    "clean",
    "curves",
    "interrupted",
    "machine",
    "missed",
    "missed_unlisted",
    "notes",
    "schema",
    "spread_samples",
    "streams",
    "timeline",
];
const ORDER: [&str; 12] = [
    "latency",
    "deliveries",
    "published",
    "faults",
    "connections",
    "handshake",
    "spread",
    "fairness",
    "server",
    "",
    "threads",
    "settings",
];
/// Where all others stand.
const OTHERS_AT: usize = 9;
const ITEMS_SHOWN: usize = 16;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn units_come_from_names() {
        for (key, value, text) in [
            ("p99_ns", json!(1500), "1.5 µs"),
            ("cpu_ns_per_delivery", json!(83.2), "83 ns"),
            ("first_us", json!(20), "20.0 µs"),
            ("window_s", json!(10.0), "10.00 s"),
            ("per_s", json!(12345.6), "12,345"),
            ("wire_bytes", json!(2000), "2.0 kB"),
            ("user_share", json!(0.125), "12.5 %"),
            ("messages", json!(4321), "4,321"),
            ("mean_place_min", json!(0.5), "0.500"),
            ("publishes", json!(true), "yes"),
        ] {
            assert_eq!(figure(key, &value), text, "{key}");
        }
        assert_eq!(words("p99_999_ns"), "p99.999");
        assert_eq!(words("cpu_ns_per_delivery"), "cpu per delivery");
        assert_eq!(words("published"), "published");
        let mut keys = ["max_ns", "p99_9_ns", "p99_99_ns", "p50_ns", "min_ns", "count", "p99_ns"];
        keys.sort_by(|a, b| place(a).total_cmp(&place(b)));
        let right = ["count", "min_ns", "p50_ns", "p99_ns", "p99_9_ns", "p99_99_ns", "max_ns"];
        assert_eq!(keys, right);
        assert_eq!(words("window_messages"), "window messages");
        assert_eq!(time_of(Some(0.0)), "1970-01-01 00:00:00 UTC");
    }

    #[test]
    fn runs_stand_beside_each_other_whatever_they_have() {
        let first =
            json!({"zeal": {"a": 1, "b": {"c_ns": 5}}, "threads": [{"busy": 2}], "clean": true});
        let second = json!({"zeal": {"a": 3}, "settings": {"rate": "20"}});
        let found = sections(&[Run::new("x", first), Run::new("y", second)]);
        let titles: Vec<_> = found.iter().map(|section| section.title.as_str()).collect();
        assert_eq!(titles, ["Zeal", "Threads", "Settings"]);
        let rows: Vec<_> =
            found[0].rows.iter().map(|row| (row.name.as_str(), row.cells.join("|"))).collect();
        assert_eq!(rows, [("a", "1|3".to_owned()), ("b, c", "5 ns|".to_owned())]);
        assert_eq!(found[1].rows[0].name, "0, busy");
    }
}
