//! Cases that measure themselves, in turns.
//!
//! Knows: rounds, medians, ratios. Must not know: what the figures are of.
//!
//! `suite` times a case from outside; here a case also does what is not to be timed: its sockets must be
//! emptied, its publishers must write.

use std::{
    error::Error,
    fmt::Write as _,
    io::{IsTerminal as _, stderr},
};

use uringcast_benches::{suite::Summary, table::Table};

/// One sample of a case: a figure for each column of its group.
pub(crate) type Sample = Result<Vec<f64>, Box<dyn Error>>;

/// Cases that do the same in different ways; the first is what the others are compared with.
pub(crate) struct Turns<'c> {
    name: String,
    /// Ratios are of the first.
    columns: &'static [&'static str],
    cases: Vec<(String, Box<dyn FnMut() -> Sample + 'c>)>,
}

impl<'c> Turns<'c> {
    /// A group without cases.
    pub(crate) fn new(name: impl Into<String>, columns: &'static [&'static str]) -> Self {
        Self { name: name.into(), columns, cases: Vec::new() }
    }

    /// Adds a case.
    pub(crate) fn case(
        mut self,
        name: impl Into<String>,
        sample: impl FnMut() -> Sample + 'c,
    ) -> Self {
        self.cases.push((name.into(), Box::new(sample)));
        self
    }
}

/// Runs groups, prints their tables, and keeps the figures.
#[derive(Debug)]
pub(crate) struct Report {
    filter: String,
    rounds: u32,
    json: Vec<String>,
}

impl Report {
    pub(crate) fn new(filter: &str, rounds: u32) -> Self {
        Self { filter: filter.to_owned(), rounds, json: Vec::new() }
    }

    /// Whether a group of this name is to be measured: asked before its rings are made.
    pub(crate) fn wants(&self, group: &str) -> bool {
        group.contains(&self.filter)
    }

    /// Runs each case once unmeasured, then the rounds.
    pub(crate) fn run(&mut self, mut turns: Turns<'_>) -> Result<(), Box<dyn Error>> {
        for (_, sample) in &mut turns.cases {
            sample()?;
        }
        let mut samples: Vec<Vec<Vec<f64>>> = vec![Vec::new(); turns.cases.len()];
        for round in 0..self.rounds as usize {
            self.progress(&turns.name, round);
            // Whoever follows whom is not always the same.
            let mut order: Vec<_> = (0..turns.cases.len()).collect();
            order.rotate_left(round % turns.cases.len());
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                samples[index].push(turns.cases[index].1()?);
            }
        }
        if stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        println!("{}", table(&turns, &samples));
        self.json.push(json(&turns, &samples));
        Ok(())
    }

    /// Prints what is no comparison.
    pub(crate) fn say(&mut self, name: &str, figures: &[(&str, f64)]) {
        println!("{name}");
        let mut text = format!("{{\"name\":{name:?}");
        for (figure, value) in figures {
            println!("  {figure}  {value:.1}");
            // A string takes everything.
            let _ = write!(text, ",{figure:?}:{value:.3}");
        }
        println!();
        self.json.push(text + "}");
    }

    /// All groups, each with its cases' figures in the order of the rounds.
    pub(crate) fn json(&self) -> String {
        let kernel = rustix::system::uname();
        let kernel = kernel.release().to_string_lossy();
        format!("{{\"kernel\":{kernel:?},\"groups\":[\n{}\n]}}\n", self.json.join(",\n"))
    }

    fn progress(&self, name: &str, round: usize) {
        if stderr().is_terminal() {
            eprint!("\r\x1b[K{name}: round {} of {}", round + 1, self.rounds);
        }
    }
}

fn table(turns: &Turns<'_>, samples: &[Vec<Vec<f64>>]) -> Table {
    let column = |case: usize, column: usize| -> Vec<f64> {
        samples[case].iter().map(|figures| figures[column]).collect()
    };
    let mut head = vec![String::new()];
    head.extend(turns.columns.iter().map(|&column| column.to_owned()));
    head.extend(["ratio".to_owned(), "spread".to_owned()]);
    let mut table = Table::with_head(&turns.name, head);
    for (case, (name, _)) in turns.cases.iter().enumerate() {
        let mut row = vec![name.clone()];
        let medians =
            (0..turns.columns.len()).map(|index| Summary::of(&column(case, index)).median);
        row.extend(medians.map(|median| format!("{median:.1}")));
        let pairs = column(case, 0).into_iter().zip(column(0, 0));
        let ratios: Vec<f64> = pairs.map(|(own, first)| own / first).collect();
        let ratio = Summary::of(&ratios);
        match case {
            0 => row.extend(["1".to_owned(), String::new()]),
            _ => row.extend([format!("{:.3}", ratio.median), ratio.spread(3)]),
        }
        table.row(row);
    }
    table
}

fn json(turns: &Turns<'_>, samples: &[Vec<Vec<f64>>]) -> String {
    let cases = turns.cases.iter().zip(samples).map(|((name, _), samples)| {
        let rounds = samples.iter().map(|figures| {
            let figures: Vec<_> = figures.iter().map(|figure| format!("{figure:.3}")).collect();
            format!("[{}]", figures.join(","))
        });
        let rounds: Vec<_> = rounds.collect();
        format!("  {{\"name\":{name:?},\"rounds\":[{}]}}", rounds.join(","))
    });
    let cases: Vec<_> = cases.collect();
    format!(
        "{{\"name\":{:?},\"columns\":{:?},\"cases\":[\n{}]}}",
        turns.name,
        turns.columns,
        cases.join(",\n")
    )
}
