//! What grows with connections and topics: `growth`, the whole shard on the null ring.
//!
//! Knows: which sizes, and how to show them. Must not know: how they are measured.
//!
//! Each size is measured in a process of its own, which this one starts: memory that an earlier one gave
//! back would hide what the next one takes.

#![forbid(unsafe_code)]

use std::{
    env,
    error::Error,
    io::{IsTerminal, Write, stderr},
    process::{Command, Stdio},
};

use clap::Parser;
use mimalloc::MiMalloc;
use uringcast_benches::{
    growth::{FIGURES, Size},
    table::Table,
};

/// The server's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures memory and processor time of a shard with rising numbers of connections, then of topics.
#[derive(Debug, Parser)]
struct Flags {
    /// Connections, all subscribed to one topic.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    connections: Vec<u32>,
    /// Topics, each published to once.
    #[arg(long, value_delimiter = ',', default_value = "1,1000,100000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    topics: Vec<u32>,
    /// Measures the first of each only, and prints the figures alone.
    #[arg(long, hide = true)]
    alone: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    let (Some(&connections), Some(&topics)) = (flags.connections.first(), flags.topics.first())
    else {
        return Ok(());
    };
    if flags.alone {
        let taken = Size { connections, topics }.measure(progress);
        progress("");
        let figures = taken.figures().map(|figure| figure.to_string());
        println!("{}", figures.join(" "));
        return Ok(());
    }
    let sizes = flags.connections.iter().map(|&connections| Size { connections, topics });
    show(format!("more connections, with {topics} topic(s)"), sizes, |size| size.connections)?;
    let sizes = flags.topics.iter().map(|&topics| Size { connections, topics });
    show(format!("more topics, with {connections} connections"), sizes, |size| size.topics)
}

fn show(
    title: String,
    sizes: impl Iterator<Item = Size>,
    grows: fn(Size) -> u32,
) -> Result<(), Box<dyn Error>> {
    let mut table = Table::new(format!("{title}; in brackets: times the first"), HEAD);
    // The first of each that was measured.
    let mut bases = [None; FIGURES.len()];
    for size in sizes {
        let figures = measure_apart(size)?;
        let cells = figures.into_iter().zip(&mut bases).map(|(figure, base)| {
            let cell = cell(figure, *base);
            *base = base.or_else(|| figure.is_finite().then_some(figure));
            cell
        });
        table.row([grows(size).to_string()].into_iter().chain(cells.collect::<Vec<_>>()));
    }
    println!("{table}");
    Ok(())
}

/// In a process of its own.
fn measure_apart(size: Size) -> Result<Vec<f64>, Box<dyn Error>> {
    let Size { connections, topics } = size;
    let numbers = [format!("--connections={connections}"), format!("--topics={topics}")];
    let ended = Command::new(env::current_exe()?)
        .arg("--alone")
        .args(&numbers)
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(ended.stdout)?;
    let figures: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    if !ended.status.success() || figures.len() != FIGURES.len() {
        return Err(format!("{} ended with {}", numbers.join(" "), ended.status).into());
    }
    Ok(figures)
}

fn cell(figure: f64, base: Option<f64>) -> String {
    match base {
        _ if !figure.is_finite() => "–".to_owned(),
        Some(base) => format!("{figure:.0} ({:.2})", figure / base),
        None => format!("{figure:.0}"),
    }
}

fn progress(text: &str) {
    if stderr().is_terminal() {
        let _ = write!(stderr(), "\r\x1b[K{text}");
    }
}

const HEAD: [&str; FIGURES.len() + 1] = {
    let mut head = [""; FIGURES.len() + 1];
    let mut at = 0;
    while at < FIGURES.len() {
        head[at + 1] = FIGURES[at];
        at += 1;
    }
    head
};
