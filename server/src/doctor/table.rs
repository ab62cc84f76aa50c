//! How a report looks: lines for people, JSON for programs.
//!
//! Knows: columns and colours. Must not know: what is found.

use std::fmt::Write as _;

use clap::builder::styling::{AnsiColor, Style};

use super::{
    Report,
    check::{Check, Verdict, count, several},
};

impl Report {
    /// For a person; `coloured` if that is a terminal that shows colours.
    pub fn text(&self, coloured: bool) -> String {
        let mut out = String::new();
        for check in &self.checks {
            write_check(&mut out, check, coloured);
        }
        out.push_str(&self.summary());
        out
    }

    /// For programs, as one object on several lines.
    pub fn json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("strings and numbers");
        json.push('\n');
        json
    }

    fn summary(&self) -> String {
        let of =
            |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count() as u64;
        let (problems, notes) = (of(Verdict::Problem), of(Verdict::Note));
        let stopping = self.checks.iter().filter(|check| check.stops).map(|check| check.name);
        let stopping = stopping.collect::<Vec<_>>().join(", ");
        let outcome = if self.can_serve {
            format!(
                "uringcast runs here, with up to {} connections on {}",
                count(self.connections_max),
                several(self.reactors as u64, "reactor")
            )
        } else {
            format!("uringcast does not run here: {stopping}")
        };
        format!("\n{outcome} ({}, {})\n", several(problems, "problem"), several(notes, "note"))
    }
}

fn write_check(out: &mut String, check: &Check, coloured: bool) {
    let (word, colour) = match check.verdict {
        Verdict::Ok => ("ok", AnsiColor::Green),
        Verdict::Note => ("note", AnsiColor::Yellow),
        Verdict::Problem => ("PROBLEM", AnsiColor::Red),
    };
    let style = if coloured { colour.on_default() } else { Style::new() };
    let Check { name, found, why, .. } = check;
    // Padded outside of the colour, which has no width.
    let padding = VERDICT_WIDTH - word.len();
    line(out, format_args!("{style}{word}{style:#}{:padding$}{name:<NAME_WIDTH$}{found}", ""));
    for part in wrapped(why) {
        line(out, format_args!("{:INDENT$}{part}", ""));
    }
    let width = check.fixes.iter().map(|fix| fix.line.len()).max().unwrap_or(0);
    for fix in &check.fixes {
        let (text, place) = (&fix.line, fix.place);
        line(out, format_args!("{:INDENT$}> {text:<width$}   {place}", ""));
    }
}

/// Cut at spaces, as wide as what stands beside the names.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(last) if last.len() + 1 + word.len() <= WHY_WIDTH => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing into a string");
}

const VERDICT_WIDTH: usize = 9;
const NAME_WIDTH: usize = 21;
/// Below what was found.
const INDENT: usize = VERDICT_WIDTH + NAME_WIDTH;
const WHY_WIDTH: usize = 100 - INDENT;

#[cfg(test)]
mod tests {
    use super::*;

    fn report(check: Check) -> Report {
        Report {
            can_serve: !check.stops,
            reactors: 2,
            connections_max: 38_000,
            checks: vec![check],
        }
    }

    #[test]
    fn what_follows_stands_below_what_was_found() {
        let check =
            Check::ok("thing", "1").note().why("too few").fix("here", "a").fix("there", "bcd");
        assert_eq!(
            report(check).text(false),
            "note     thing                1\n\
             \x20                             too few\n\
             \x20                             > a     here\n\
             \x20                             > bcd   there\n\
             \n\
             uringcast runs here, with up to 38,000 connections on 2 reactors (0 problems, 1 note)\n"
        );
    }

    #[test]
    fn long_lines_are_cut_at_spaces() {
        let text = "word ".repeat(30);
        assert_eq!(wrapped(&text).iter().map(String::len).collect::<Vec<_>>(), [69, 69, 9]);
        assert!(wrapped("").is_empty());
    }

    #[test]
    fn colours_have_no_width() {
        let text = report(Check::ok("thing", "1").stops()).text(true);
        assert!(text.starts_with("\x1b[31mPROBLEM\x1b[0m  thing                1\n"), "{text:?}");
        assert!(text.ends_with("does not run here: thing (1 problem, 0 notes)\n"), "{text:?}");
    }

    #[test]
    fn json_has_the_words_of_verdicts() {
        let json = report(Check::ok("thing", "1").fix("here", "a")).json();
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["checks"][0]["verdict"], "ok");
        assert_eq!(value["checks"][0]["fixes"][0]["line"], "a");
        assert_eq!(value["can_serve"], true);
    }
}
