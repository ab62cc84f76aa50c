//! `loadgen compare`: the reports of several runs beside each other.
//!
//! Knows: sides, files, which figures are compared. Must not know: statistics, how reports come
//! about.

mod equals;
mod ratio;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use rand_pcg::Pcg32;
use serde::Serialize;

use self::equals::differences;
use self::ratio::{Ratio, ratio};
use crate::failure::Failure;
use crate::flags::CompareFlags;
use crate::page::{Comparison, Run};
use crate::report::words::{bytes, count, duration};

/// How a figure is written for people.
type Write = fn(f64) -> String;

/// What is compared: its name, where it is in a report, how it is written.
const FIGURES: [(&str, &str, Write); 7] = [
    ("p50", "/latency/corrected/p50_ns", as_duration),
    ("p99", "/latency/corrected/p99_ns", as_duration),
    ("p99.9", "/latency/corrected/p99_9_ns", as_duration),
    ("max", "/latency/corrected/max_ns", as_duration),
    ("deliveries/s", "/deliveries/per_s", as_count),
    ("server cpu per delivery", "/server/cpu_ns_per_delivery", as_duration),
    ("server resident", "/server/rss_bytes", as_bytes),
];

/// The runs of one side.
struct Side {
    name: String,
    runs: Vec<Run>,
}

/// `--json` of it.
#[derive(Debug, Serialize)]
struct Compared {
    /// What makes the runs no equals.
    differences: Vec<String>,
    figures: Vec<Figure>,
}

/// One figure of a side and of the first.
#[derive(Debug, Serialize)]
struct Figure {
    figure: &'static str,
    first: String,
    second: String,
    /// Of the runs of the first side.
    first_median: f64,
    second_median: f64,
    #[serde(flatten)]
    ratio: Ratio,
}

/// Compares; whether the runs are equals and were all clean.
///
/// # Errors
/// [`Failure`]: a file that is no report, or can't be written.
pub(crate) fn compare(flags: &CompareFlags) -> Result<bool, Failure> {
    let sides = sides(flags)?;
    let mut random = Pcg32::new(flags.seed, 0);
    let mut figures = Vec::new();
    for other in &sides[1..] {
        for (name, place, _) in FIGURES {
            // Of a figure that a run lacks there are no pairs.
            let of = |side: &Side| {
                side.runs.iter().map(|run| run.number(place)).collect::<Option<Vec<_>>>()
            };
            let (Some(first), Some(second)) = (of(&sides[0]), of(other)) else { continue };
            let Some(ratio) = ratio(&first, &second, &mut random) else { continue };
            figures.push(Figure {
                figure: name,
                first: sides[0].name.clone(),
                second: other.name.clone(),
                first_median: ratio::median(&first),
                second_median: ratio::median(&second),
                ratio,
            });
        }
    }
    let runs: Vec<_> = sides.iter().flat_map(|side| side.runs.iter().cloned()).collect();
    let compared = Compared { differences: differences(&runs), figures };
    let comparison = comparison(&compared, &sides);
    if !flags.quiet {
        // A closed standard output is the reader's wish.
        let _ = std::io::stdout().write_all(text(&comparison, &sides).as_bytes());
    }
    if let Some(path) = &flags.html {
        crate::page::write(path, &runs, Some(&comparison))?;
    }
    if let Some(path) = &flags.json {
        let failure = |error| Failure::Write { path: path.clone(), error };
        let text = serde_json::to_vec_pretty(&compared).map_err(std::io::Error::other);
        std::fs::write(path, text.map_err(failure)?).map_err(failure)?;
    }
    Ok(compared.differences.is_empty())
}

fn sides(flags: &CompareFlags) -> Result<Vec<Side>, Failure> {
    let files: Vec<Vec<PathBuf>> = if flags.sides.is_empty() {
        vec![flags.a.clone(), flags.b.clone()]
    } else {
        let of = |side: &String| side.split(',').map(PathBuf::from).collect();
        flags.sides.iter().map(of).collect()
    };
    if files.len() < 2 {
        let given = flags.sides.join(" ");
        return Err(Failure::usage("A.json", given, "two sides or more: A.json B.json"));
    }
    let is_alone = files.iter().all(|side| side.len() == 1);
    let side = |(number, paths): (usize, &Vec<PathBuf>)| {
        // Letters are shorter than paths, and there are no more sides than colours.
        let letter = char::from(b'A' + (number % 26) as u8);
        let run = |(at, path): (usize, &PathBuf)| {
            let place = if is_alone { letter.to_string() } else { format!("{letter}{}", at + 1) };
            let file = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
            let name = format!("{place}: {file}");
            let run = Run::new(&name, report(path)?);
            Ok(match paths.len() {
                1 => run.of_side(number, &name),
                runs => run.of_side(number, &format!("{letter}, {runs} runs")),
            })
        };
        let runs = paths.iter().enumerate().map(run).collect::<Result<_, Failure>>()?;
        Ok(Side { name: letter.to_string(), runs })
    };
    files.iter().enumerate().map(side).collect()
}

fn report(path: &Path) -> Result<serde_json::Value, Failure> {
    let failure = |reason: String| Failure::NoReport { path: path.to_owned(), reason };
    let text = std::fs::read(path).map_err(|error| failure(error.to_string()))?;
    let report: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| failure(error.to_string()))?;
    match report.get("schema").and_then(serde_json::Value::as_u64) {
        Some(SCHEMA) => Ok(report),
        Some(other) => Err(failure(format!("its schema is {other}, this version knows {SCHEMA}"))),
        None => Err(failure("it has no schema".to_owned())),
    }
}

fn comparison(compared: &Compared, sides: &[Side]) -> Comparison {
    let has_many = sides.len() > 2;
    let mut columns = vec!["figure".to_owned()];
    if has_many {
        columns.push("sides".to_owned());
    }
    let names = if has_many { ["first", "second"] } else { ["A", "B"] };
    columns.extend(names.map(str::to_owned));
    columns.extend(["ratio", "95 % interval", "runs"].map(str::to_owned));
    let row = |figure: &Figure| {
        let written = FIGURES.iter().find(|(name, ..)| *name == figure.figure);
        let write = written.map_or(as_count as Write, |&(_, _, write)| write);
        let mut row = vec![figure.figure.to_owned()];
        if has_many {
            row.push(format!("{} : {}", figure.second, figure.first));
        }
        row.extend([write(figure.first_median), write(figure.second_median)]);
        row.push(format!("{:.3}", figure.ratio.median));
        row.push(figure.ratio.interval_text());
        row.push(figure.ratio.runs_text());
        row
    };
    let mut explanation = vec![
        "Medians of each side, and the second side's figure as a multiple of the first's."
            .to_owned(),
    ];
    let ratios: Vec<_> = compared.figures.iter().map(|figure| &figure.ratio).collect();
    explanation.extend(ratio::explain(&ratios));
    Comparison {
        warnings: compared.differences.clone(),
        columns,
        rows: compared.figures.iter().map(row).collect(),
        explanation,
    }
}

/// For the terminal.
fn text(comparison: &Comparison, sides: &[Side]) -> String {
    let mut out = String::new();
    for run in sides.iter().flat_map(|side| &side.runs) {
        out += &format!("{}\n    $ {}\n", run.name, run.command());
    }
    out.push('\n');
    for warning in &comparison.warnings {
        out += &format!("!  {warning}\n");
    }
    if !comparison.warnings.is_empty() {
        out.push('\n');
    }
    let rows = || std::iter::once(&comparison.columns).chain(&comparison.rows);
    let width = |column: usize| rows().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..comparison.columns.len()).map(width).collect();
    for row in rows() {
        let mut line = format!("{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row[1..].iter().zip(&widths[1..]) {
            line += &format!("  {cell:>width$}");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out.push('\n');
    for line in &comparison.explanation {
        out += &format!("{line}\n");
    }
    out
}

fn as_duration(ns: f64) -> String {
    duration(ns as u64)
}

fn as_count(value: f64) -> String {
    count(value as u64)
}

fn as_bytes(value: f64) -> String {
    bytes(value as u64)
}

/// Of the reports that can be read.
const SCHEMA: u64 = 1;
