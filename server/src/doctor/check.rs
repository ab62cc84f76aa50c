//! One finding: what was found, whether it is well, and the line that mends it.
//!
//! Knows: the words for numbers. Must not know: what is looked at.

use serde::Serialize;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The system's own name of it.
    pub name: &'static str,
    /// As it is.
    pub found: String,
    /// Whether that is well.
    pub verdict: Verdict,
    /// `serve` does not start like this.
    pub stops: bool,
    /// What follows from it, with numbers.
    pub why: String,
    /// Lines of which one mends it, whichever fits the place.
    pub fixes: Vec<Fix>,
}

/// Whether something is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing to do.
    Ok,
    /// A limit that some will meet.
    Note,
    /// The server does not run, or not with what was asked for.
    Problem,
}

/// A line that mends something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// To be typed or written as it stands.
    pub line: String,
    /// Where to.
    pub place: &'static str,
}

impl Check {
    /// All is well.
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        let (verdict, why, fixes) = (Verdict::Ok, String::new(), Vec::new());
        Self { name, found: found.into(), verdict, stops: false, why, fixes }
    }

    pub(super) fn note(self) -> Self {
        Self { verdict: Verdict::Note, ..self }
    }

    pub(super) fn problem(self) -> Self {
        Self { verdict: Verdict::Problem, ..self }
    }

    /// A problem with which the server does not start.
    pub(super) fn stops(self) -> Self {
        Self { verdict: Verdict::Problem, stops: true, ..self }
    }

    /// A limit that is too low for the connections planned: a problem to whoever asked for them.
    pub(super) fn short_of(self, asked: bool) -> Self {
        if asked { self.problem() } else { self.note() }
    }

    pub(super) fn why(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    pub(super) fn fix(mut self, place: &'static str, line: impl Into<String>) -> Self {
        self.fixes.push(Fix { line: line.into(), place });
        self
    }

    /// For a sysctl, whose fix needs root.
    pub(super) fn fix_sysctl(self, name: &str, value: impl std::fmt::Display) -> Self {
        let value = value.to_string();
        let quoted = if value.contains(' ') { format!("\"{value}\"") } else { value };
        self.fix(AS_ROOT, format!("sysctl -w {name}={quoted}"))
    }
}

/// `1,234,567`
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 reactor`, `2 reactors`
pub(super) fn several(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `8.0 MiB`
pub(super) fn bytes(number: u64) -> String {
    let (unit, name) = match number {
        0..1_024 => return format!("{number} B"),
        1_024..0x10_0000 => (1 << 10, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        _ => (1_u64 << 30, "GiB"),
    };
    format!("{:.1} {name}", number as f64 / unit as f64)
}

/// Of a limit: `none` where there is none.
pub(super) fn limit(limit: Option<u64>, shown: fn(u64) -> String) -> String {
    limit.map_or_else(|| "none".to_owned(), shown)
}

pub(super) const AS_ROOT: &str = "as root";
pub(super) const DOCKER: &str = "docker, podman";
pub(super) const SYSTEMD: &str = "in the systemd unit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_by_people() {
        assert_eq!([0, 999, 1_000, 1_000_000].map(count), ["0", "999", "1,000", "1,000,000"]);
        assert_eq!(
            [12, 4_096, 8 << 20, 3 << 29].map(bytes),
            ["12 B", "4.0 KiB", "8.0 MiB", "1.5 GiB"]
        );
        assert_eq!([1, 2_000].map(|number| several(number, "x")), ["1 x", "2,000 xs"]);
        assert_eq!(limit(None, count), "none");
    }

    #[test]
    fn a_sysctl_of_several_numbers_is_quoted() {
        let fixes = Check::ok("x", "").fix_sysctl("a.b", 1).fix_sysctl("c.d", "1 2").fixes;
        let lines: Vec<_> = fixes.iter().map(|fix| fix.line.as_str()).collect();
        assert_eq!(lines, ["sysctl -w a.b=1", "sysctl -w c.d=\"1 2\""]);
    }
}
