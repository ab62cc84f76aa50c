//! A run's report in its JSON form, this run's or one of another day and version.
//!
//! Knows: where in a report what is found; whatever is not there is `None`. Must not know: how it
//! is shown.

use serde_json::Value;

/// One report and what it is called.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Among others.
    pub(crate) name: String,
    /// Which side it is a run of: its colour. And what that is called where one name is enough.
    pub(crate) side: usize,
    pub(crate) side_name: String,
    pub(crate) report: Value,
}

impl Run {
    pub(crate) fn new(name: &str, report: Value) -> Self {
        Self { name: name.to_owned(), side: 0, side_name: name.to_owned(), report }
    }

    /// The same as one of several of a side.
    pub(crate) fn of_side(self, side: usize, side_name: &str) -> Self {
        Self { side, side_name: side_name.to_owned(), ..self }
    }

    /// The number at a place like `/latency/corrected/p50_ns`.
    pub(crate) fn number(&self, place: &str) -> Option<f64> {
        self.report.pointer(place)?.as_f64()
    }

    /// The text at a place.
    pub(crate) fn text(&self, place: &str) -> &str {
        self.report.pointer(place).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it is true there.
    pub(crate) fn is(&self, place: &str) -> bool {
        self.report.pointer(place).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The list at a place; nothing if there is none.
    pub(crate) fn list(&self, place: &str) -> &[Value] {
        self.report.pointer(place).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Two numbers of each of a list's entries.
    pub(crate) fn points(&self, place: &str, x: &str, y: &str) -> Vec<(f64, f64)> {
        let of = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_f64);
        let point = |entry: &Value| Some((of(entry, x)?, of(entry, y)?));
        self.list(place).iter().filter_map(point).collect()
    }

    /// A flag of its command, if the report says it.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.report.get("settings")?.get(name)?.as_str()
    }

    /// The command as it was typed.
    pub(crate) fn command(&self) -> String {
        let words: Vec<_> =
            self.list("/machine/command").iter().filter_map(Value::as_str).map(quoted).collect();
        words.join(" ")
    }

    /// Server processor time per delivery and the like exist with --pid only.
    pub(crate) fn has_latency(&self) -> bool {
        self.number("/latency/corrected/count").is_some_and(|count| count > 0.0)
    }
}

/// As a shell wants it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_nothing() {
        let run = Run::new(
            "a",
            serde_json::json!({
                "latency": {"corrected": {"p50_ns": 5}},
                "list": [{"x": 1, "y": 2}, {"x": 3}],
                "machine": {"command": ["loadgen", "fanout", "ws://a/?b"]},
            }),
        );
        assert_eq!(run.number("/latency/corrected/p50_ns"), Some(5.0));
        assert_eq!(run.number("/latency/corrected/p51_ns"), None);
        assert_eq!(run.points("/list", "x", "y"), [(1.0, 2.0)]);
        assert_eq!(run.points("/nowhere", "x", "y"), []);
        assert_eq!(run.command(), "loadgen fanout 'ws://a/?b'");
        assert!(!run.has_latency() && run.setting("rate").is_none());
    }
}
