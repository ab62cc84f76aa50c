//! `loadgen run FILE`: a TOML file in place of a command line.
//!
//! Knows: how TOML is spelled, that keys are the flags' names, which flags a command has. Must not
//! know: what a flag means. A file becomes command lines, and these are read as any other, so what
//! is wrong with a value is said as for a flag.
//!
//! ```toml
//! command = "fanout"
//! subscribers = 5000
//! json = "run.json"            # with several steps: run-1.json, run-2.json
//!
//! [[step]]                     # each a run of its own; keys above hold for all
//! name = "rising"
//! rate = "100..5000/60s"
//!
//! [[step]]
//! name = "steady"
//! rate = 2000
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::failure::Failure;
use crate::flags::ScenarioFlags;

/// One command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// What the step is called, with its number; empty if it is the only one.
    pub(crate) title: String,
    /// From the program's name on.
    pub(crate) arguments: Vec<String>,
}

/// The command lines that a file stands for; `cli` says which flags there are.
///
/// # Errors
/// The file can't be read, is no TOML, or has what is no flag.
pub(crate) fn lines(flags: &ScenarioFlags, cli: &clap::Command) -> Result<Vec<Line>, Failure> {
    let text = std::fs::read_to_string(&flags.file)
        .map_err(|error| Failure::Read { path: flags.file.clone(), error })?;
    parse(&Text { path: &flags.file, text: &text }, &flags.overrides, cli)
}

struct Text<'a> {
    path: &'a Path,
    text: &'a str,
}

/// Key, where it stands, its values; a switch has none.
type Keys = BTreeMap<String, (usize, Vec<String>)>;

fn parse(file: &Text<'_>, overrides: &[String], cli: &clap::Command) -> Result<Vec<Line>, Failure> {
    let table = DeTable::parse(file.text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        file.wrong(at, format!("wants TOML: {}", error.message()))
    })?;
    let (mut common, mut steps) = (Keys::new(), Vec::new());
    for (key, value) in table.get_ref() {
        let at = key.span().start;
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("step", DeValue::Array(list)) => {
                for step in list {
                    let DeValue::Table(table) = step.get_ref() else {
                        return Err(file.wrong(at, "step: wants [[step]] tables".to_owned()));
                    };
                    let mut keys = Keys::new();
                    for (key, value) in table {
                        file.key(&mut keys, key.get_ref(), key.span().start, value.get_ref())?;
                    }
                    steps.push(keys);
                }
            }
            ("step", _) => return Err(file.wrong(at, "step: wants [[step]] tables".to_owned())),
            (name, value) => file.key(&mut common, name, at, value)?,
        }
    }
    if steps.is_empty() {
        steps.push(Keys::new());
    }
    let count = steps.len();
    let line = |(number, step): (usize, Keys)| {
        let number = (count > 1).then_some(number + 1);
        file.line(&common, step, overrides, number, cli)
    };
    steps.into_iter().enumerate().map(line).collect()
}

impl Text<'_> {
    fn key(
        &self,
        keys: &mut Keys,
        name: &str,
        at: usize,
        value: &DeValue<'_>,
    ) -> Result<(), Failure> {
        let values = match value {
            DeValue::Boolean(false) => return Ok(()),
            DeValue::Boolean(true) => Vec::new(),
            DeValue::Array(list) => {
                let scalar = |value: &DeValue<'_>| self.scalar(name, at, value);
                list.iter().map(|one| scalar(one.get_ref())).collect::<Result<_, _>>()?
            }
            one => vec![self.scalar(name, at, one)?],
        };
        if keys.insert(name.replace('_', "-"), (at, values)).is_some() {
            return Err(self.wrong(at, format!("{name}: is given twice")));
        }
        Ok(())
    }

    fn scalar(&self, name: &str, at: usize, value: &DeValue<'_>) -> Result<String, Failure> {
        match value {
            DeValue::String(text) => Ok(text.as_ref().to_owned()),
            DeValue::Integer(number) => Ok(number.to_string()),
            DeValue::Float(number) => Ok(number.to_string()),
            DeValue::Boolean(yes) => Ok(yes.to_string()),
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                let wanted = "wants a string, a number, true or false, or a list of them";
                Err(self.wrong(at, format!("{name}: {wanted}")))
            }
        }
    }

    fn line(
        &self,
        common: &Keys,
        mut step: Keys,
        overrides: &[String],
        number: Option<usize>,
        cli: &clap::Command,
    ) -> Result<Line, Failure> {
        for (key, (at, values)) in common {
            step.entry(key.clone()).or_insert_with(|| {
                let numbered = |value: &String| match number {
                    Some(number) if FILES.contains(&key.as_str()) => with_number(value, number),
                    _ => value.clone(),
                };
                (*at, values.iter().map(numbered).collect())
            });
        }
        let name = step.remove("name").and_then(|(_, values)| values.into_iter().next());
        let command = self.command(&mut step, cli)?;
        let mut arguments = vec!["loadgen".to_owned(), command.get_name().to_owned()];
        let mut places = Vec::new();
        for (key, (at, values)) in step {
            let by_name = |arg: &&clap::Arg| {
                arg.get_long() == Some(&key) || (arg.is_positional() && arg.get_id() == &key)
            };
            let Some(arg) = command.get_arguments().find(by_name) else {
                return Err(self.wrong(at, unknown(&key, command)));
            };
            if is_given(&key, overrides) {
                continue;
            }
            match (arg.is_positional(), values.as_slice()) {
                (true, _) => places.extend(values),
                (false, []) => arguments.push(format!("--{key}")),
                (false, values) => {
                    arguments.extend(values.iter().map(|value| format!("--{key}={value}")));
                }
            }
        }
        arguments.extend(overridden(overrides, number));
        arguments.extend(places);
        let title = match (number, name) {
            (Some(number), Some(name)) => format!("step {number}, {name}"),
            (Some(number), None) => format!("step {number}"),
            (None, name) => name.unwrap_or_default(),
        };
        Ok(Line { title, arguments })
    }

    fn command<'a>(
        &self,
        step: &mut Keys,
        cli: &'a clap::Command,
    ) -> Result<&'a clap::Command, Failure> {
        let runs = |command: &&clap::Command| !NO_RUNS.contains(&command.get_name());
        let commands = || cli.get_subcommands().filter(runs);
        let names: Vec<_> = commands().map(clap::Command::get_name).collect();
        let right = format!("should be one of {}", names.join(", "));
        let Some((at, values)) = step.remove("command") else {
            let missing = format!("command: is missing; {right}: command = \"fanout\"");
            return Err(self.wrong(0, missing));
        };
        let given = values.first().map_or("true", String::as_str);
        commands()
            .find(|command| command.get_name() == given)
            .ok_or_else(|| self.wrong(at, format!("command: {given:?} is none; {right}")))
    }

    fn wrong(&self, at: usize, problem: String) -> Failure {
        let line = self.text[..at].matches('\n').count() + 1;
        Failure::Scenario { path: self.path.to_owned(), line, problem }
    }
}

fn unknown(key: &str, command: &clap::Command) -> String {
    let names = command.get_arguments().filter_map(clap::Arg::get_long);
    let near = names
        .map(|name| (strsim::damerau_levenshtein(name, key), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3);
    let command = command.get_name();
    match near {
        Some((_, name)) => format!("{key}: is no flag of {command}; {name} is one"),
        None => format!("{key}: is no flag of {command}; `loadgen {command} --help` has them all"),
    }
}

/// The command line has it: what the file says does not count.
fn is_given(key: &str, overrides: &[String]) -> bool {
    let flags = overrides.iter().filter_map(|token| token.strip_prefix("--"));
    flags.map(|flag| flag.split('=').next().unwrap_or(flag)).any(|flag| flag == key)
}

/// Files of a step have its number in their names.
fn overridden(overrides: &[String], number: Option<usize>) -> Vec<String> {
    let Some(number) = number else { return overrides.to_vec() };
    let mut out = Vec::with_capacity(overrides.len());
    let mut is_file = false;
    for token in overrides {
        let flag = token.strip_prefix("--");
        let (name, value) = flag.and_then(|flag| flag.split_once('=')).unwrap_or_default();
        out.push(match (is_file, FILES.contains(&name)) {
            (true, _) => with_number(token, number),
            (false, true) => format!("--{name}={}", with_number(value, number)),
            (false, false) => token.clone(),
        });
        is_file = flag.is_some_and(|flag| FILES.contains(&flag));
    }
    out
}

/// `run.json` as `run-2.json`.
fn with_number(path: &str, number: usize) -> String {
    let path = Path::new(path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let end = path.extension().map(|end| format!(".{}", end.to_string_lossy()));
    let name = format!("{stem}-{number}{}", end.unwrap_or_default());
    path.with_file_name(name).to_string_lossy().into_owned()
}

/// Flags that name a file to be written.
const FILES: [&str; 3] = ["hgrm", "html", "json"];

/// Commands that are no runs.
const NO_RUNS: [&str; 3] = ["compare", "run", "schema"];

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::flags::Flags;

    fn read(text: &str, overrides: &[&str]) -> Result<Vec<Line>, String> {
        let file = Text { path: Path::new("f.toml"), text };
        let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
        parse(&file, &overrides, &Flags::command()).map_err(|failure| failure.to_string())
    }

    fn arguments(text: &str, overrides: &[&str]) -> Vec<String> {
        let lines = read(text, overrides).expect("a scenario");
        lines.iter().map(|line| line.arguments[1..].join(" ")).collect()
    }

    #[test]
    fn keys_become_flags() {
        let text = "command = 'fanout'\nrate = '100..5000/60s'\nbinary = true\ndeflate = false\n\
                    size = 0x80\nreceive_buffer = 4096\nchurn = 1.5\ncpus = [0, 1]\n";
        assert_eq!(
            arguments(text, &[]),
            ["fanout --binary --churn=1.5 --cpus=0 --cpus=1 --rate=100..5000/60s \
              --receive-buffer=4096 --size=0x80"]
        );
        let text = "command = 'replay'\nfiles = ['a.gz', 'b.gz']\nspeed = 2\n";
        assert_eq!(arguments(text, &["--quiet"]), ["replay --speed=2 --quiet a.gz b.gz"]);
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let text = "command = 'fanout'\nrate = 100\nsource = ['127.0.0.1', '127.0.0.2']\nsize = 99";
        assert_eq!(
            arguments(text, &["--rate", "5", "--source=127.0.0.3"]),
            ["fanout --size=99 --rate 5 --source=127.0.0.3"]
        );
    }

    #[test]
    fn each_step_is_a_run_with_files_of_its_own() {
        let text = "command = 'fanout'\njson = 'out/run.json'\nrate = 10\n\
                    [[step]]\nname = 'one'\nrate = 20\n[[step]]\nhgrm = 'x'\n";
        let lines = read(text, &["--html", "p.html"]).expect("a scenario");
        assert_eq!(lines[0].title, "step 1, one");
        assert_eq!(
            lines.iter().map(|line| line.arguments[1..].join(" ")).collect::<Vec<_>>(),
            [
                "fanout --json=out/run-1.json --rate=20 --html p-1.html",
                "fanout --hgrm=x --json=out/run-2.json --rate=10 --html p-2.html"
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_would_be_right() {
        for (text, problem) in [
            ("rate = 1", "f.toml:1: command: is missing"),
            ("command = 'fan'", "f.toml:1: command: \"fan\" is none; should be one of connect"),
            (
                "command = 'fanout'\n\nsubscriber = 1",
                "f.toml:3: subscriber: is no flag of fanout; subscribers is one",
            ),
            ("command = 'fanout'\nx = 1", "f.toml:2: x: is no flag of fanout; `loadgen fanout"),
            ("command = 'fanout'\nrate = {a = 1}", "f.toml:2: rate: wants a string"),
            ("command = 'fanout'\nstep = 1", "f.toml:2: step: wants [[step]] tables"),
            ("command = 'fanout'\n[[step]]\nrat = 1", "f.toml:3: rat: is no flag of fanout; rate"),
            ("command = 'fanout'\npublish_url = 'a'\npublish-url = 'b'", "is given twice"),
            ("command = ", "f.toml:1: wants TOML"),
        ] {
            let said = read(text, &[]).expect_err(text);
            assert!(said.contains(problem), "{text}: {said}");
        }
    }
}
