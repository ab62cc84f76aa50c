//! Help that can be read in a minute: flags in four groups, the most used ones with `-h`, examples.
//!
//! Knows: flags by their names. Must not know: what they do. A flag that is named nowhere here is
//! shown with `--help`, at the end.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::{Arg, ArgMatches, Command, CommandFactory as _, FromArgMatches as _};

use crate::flags::Flags;

/// Flags and their values.
pub(crate) type Settings = BTreeMap<String, String>;

/// Reads a command line.
///
/// # Errors
/// What clap says; also if help was asked for.
pub(crate) fn parse(
    arguments: impl Iterator<Item = OsString>,
) -> Result<(Flags, Settings), clap::Error> {
    let arguments: Vec<_> = arguments.collect();
    let short = arguments.iter().any(|argument| argument == "-h");
    let matches = command(short).try_get_matches_from(arguments)?;
    Ok((Flags::from_arg_matches(&matches)?, settings(&matches)))
}

/// Every flag of the command with its value, defaults too.
fn settings(matches: &ArgMatches) -> Settings {
    let Some((command, flags)) = matches.subcommand() else { return Settings::new() };
    let known = Flags::command();
    let Some(known) = known.find_subcommand(command) else { return Settings::new() };
    let mut settings = Settings::from([("command".to_owned(), command.to_owned())]);
    for id in known.get_arguments().map(Arg::get_id) {
        let Ok(Some(values)) = flags.try_get_raw(id.as_str()) else { continue };
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        settings.insert(id.as_str().to_owned(), values.join(","));
    }
    settings
}

/// The command line as it is shown; `short` leaves the less used flags out.
pub(crate) fn command(short: bool) -> Command {
    let command = Flags::command().after_help(EXAMPLES);
    command.mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        let hides = short && command.get_arguments().count() > FEW;
        let command = command.mut_args(|arg| shown(arg, hides));
        match (hides, EXAMPLES_OF.iter().find(|(of, _)| *of == name)) {
            (true, _) => command.after_help(format!("All flags: loadgen {name} --help")),
            (false, Some((_, examples))) => command.after_help(*examples),
            (false, None) => command,
        }
    })
}

fn shown(mut arg: Arg, short: bool) -> Arg {
    let name = arg.get_long().unwrap_or_default().to_owned();
    if let Some((heading, _)) = HEADINGS.iter().find(|(_, names)| names.contains(&name.as_str())) {
        arg = arg.help_heading(*heading);
    }
    if let Some(help) = arg.get_help().map(StyledStr::to_string).filter(|help| help.contains("{n}"))
    {
        // clap takes {n} for a line break. An escape sequence inside, which does nothing and is
        // stripped where there is no terminal, keeps it from that.
        arg = arg.help(help.replace("{n}", "{\u{1b}[0mn}"));
    }
    let values: Vec<_> =
        arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if arg.get_action().takes_values() && !values.is_empty() {
        // Else clap writes a page with a paragraph for each flag.
        let help = arg.get_help().map(StyledStr::to_string).unwrap_or_default();
        arg = arg.hide_possible_values(true).help(format!("{help}: {}", values.join(" or ")));
    }
    let hidden = short && !arg.is_positional() && !MOST_USED.contains(&name.as_str());
    arg.hide(hidden)
}

/// A command with no more flags than this shows them all.
const FEW: usize = 12;

const HEADINGS: [(&str, &[&str]); 4] = [
    (
        "Load",
        &[
            "acks",
            "binary",
            "books",
            "burst",
            "change-rate",
            "changing",
            "count",
            "duration",
            "find-max",
            "hold",
            "lines",
            "outstanding",
            "precision",
            "publishers",
            "rate",
            "seed",
            "size",
            "snapshot-every",
            "speed",
            "symbols",
            "warmup",
        ],
    ),
    (
        "Connections",
        &[
            "churn",
            "connect-rate",
            "connections",
            "cpus",
            "deflate",
            "format",
            "interest",
            "kernel-tier",
            "lists",
            "publish-url",
            "receive-buffer",
            "resume",
            "send-buffer",
            "server-buffer",
            "slow",
            "slow-catch-up",
            "slow-rate",
            "source",
            "stalled",
            "subscribers",
            "threads",
            "topics",
            "url",
            "watch",
        ],
    ),
    ("Checks", &["delta", "drain", "grace", "silence", "value"]),
    ("Output", &["hgrm", "html", "json", "metrics", "pid", "pid-cpus", "quiet"]),
];

const MOST_USED: [&str; 19] = [
    "acks",
    "connections",
    "count",
    "duration",
    "find-max",
    "format",
    "hold",
    "interest",
    "json",
    "pid",
    "publish-url",
    "publishers",
    "rate",
    "size",
    "speed",
    "subscribers",
    "topics",
    "url",
    "watch",
];

const EXAMPLES: &str = "\
Examples:
  loadgen fanout --subscribers 5000 --rate 20 --pid $(pidof uringcast)
  loadgen fanout --subscribers 1000 --find-max p99=5ms
  loadgen replay spot/*.gz usdm/*.gz --subscribers 10000 --churn 1
  loadgen connect --connections 15000 --hold 60s
  loadgen run scenario.toml --json run.json

`loadgen COMMAND -h` has the flags most used, `loadgen COMMAND --help` all of them.
Exit codes: 0 nothing lost or wrong, of an interrupted run as well; 1 something lost, or failed, or
interrupted while connecting (what there is is reported); 2 wrong use.";

const EXAMPLES_OF: [(&str, &str); 8] = [
    (
        "connect",
        "\
Examples:
  loadgen connect --connections 15000 --hold 60s --pid $(pidof uringcast)
  loadgen connect --url ws://10.0.0.5:9001/ws --topics 'a,own.{n}'",
    ),
    (
        "fanout",
        "\
Examples:
  loadgen fanout --subscribers 2000 --rate 3000 --cpus 1 --json run.json
  loadgen fanout --subscribers 1000 --rate 100..5000/60s
  loadgen fanout --subscribers 1000 --find-max p99=5ms,max=50ms
  loadgen fanout --url 'ws://127.0.0.1:9001/ws?topics=bench' --outstanding 4",
    ),
    (
        "publish",
        "\
Examples:
  loadgen publish --rate 50000 --publishers 4 --duration 10s
  loadgen publish --count 100000 --rate 20000 --acks",
    ),
    (
        "replay",
        "\
Examples:
  loadgen replay spot/*.gz usdm/*.gz --subscribers 10000 --churn 1 --format json
  loadgen replay spot/*.gz --speed 4 --subscribers 5000 --deflate",
    ),
    (
        "run",
        "\
A scenario:
  command = \"fanout\"
  subscribers = 5000
  json = \"run.json\"          # of two steps: run-1.json, run-2.json
  [[step]]
  rate = \"100..5000/60s\"
  [[step]]
  rate = 2000
  duration = \"10m\"

Examples:
  loadgen run scenario.toml
  loadgen run scenario.toml --subscribers 100 --quiet",
    ),
    ("selftest", "Example:\n  loadgen selftest --threads 4 --json selftest.json"),
    (
        "synth",
        "\
Examples:
  loadgen synth --symbols 20 --rate 500
  loadgen synth --subscribers 1000 --duration 30s --seed 7",
    ),
    (
        "watchlists",
        "\
Examples:
  loadgen watchlists --topics 10000 --rate 10000 --size 512 --subscribers 40000
  loadgen watchlists --topics 5000 --watch 50 --format json --rate 2000 --subscribers 5000
  loadgen watchlists --topics 5000 --watch 50 --format json --changing 5 --change-rate 1000",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn help(command: &str, how: &str) -> String {
        let arguments = ["loadgen", command, how].into_iter().map(OsString::from);
        parse(arguments).expect_err("help").to_string()
    }

    #[test]
    fn every_name_here_is_a_flag() {
        let command = Flags::command();
        let all: Vec<_> = command.get_subcommands().flat_map(Command::get_arguments).collect();
        let is_flag = |name: &&str| all.iter().any(|arg| arg.get_long() == Some(name));
        let named = HEADINGS.iter().flat_map(|(_, names)| names.iter()).chain(&MOST_USED);
        assert_eq!(named.filter(|name| !is_flag(name)).collect::<Vec<_>>(), Vec::<&&str>::new());
        let is_command = |name: &str| command.find_subcommand(name).is_some();
        assert!(EXAMPLES_OF.iter().all(|(name, _)| is_command(name)));
    }

    #[test]
    fn short_help_has_the_most_used_flags_and_long_help_has_all() {
        let flags =
            |text: &str| text.lines().filter(|line| line.trim_start().starts_with("--")).count();
        let (short, long) = (help("fanout", "-h"), help("fanout", "--help"));
        assert!(flags(&short) <= 12 && short.contains("--find-max"), "{short}");
        assert!(flags(&long) > 20 && long.contains("--receive-buffer"), "{long}");
        assert!(long.contains("Load:") && long.contains("Connections:"), "{long}");
        // In groups; what is used most is read in a minute with -h.
        assert!(long.lines().count() < 115, "{long}");
    }

    #[test]
    fn the_number_in_an_url_is_shown_as_it_is_typed() {
        assert!(help("fanout", "--help").contains("{n}"), "{}", help("fanout", "--help"));
        assert!(help("connect", "--help").contains("{n}"), "{}", help("connect", "--help"));
    }
}
