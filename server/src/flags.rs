//! What was typed: the command line as it stands, before anything is decided.
//!
//! Knows: names of flags. Must not know: what a value means, the configuration file's contents or
//! the machine. Filling [`LowArgs`] needs no system call.

pub mod table;

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::Str};

use self::table::{FLAGS, Fallback, Flag};

/// What the process is asked to do.
#[derive(Debug)]
pub enum Invocation {
    /// Check this file, name every mistake, and stop.
    CheckConfig(PathBuf),
    /// Say what this machine allows of `serve` with these flags, and stop.
    Doctor {
        /// What `serve` would be given.
        low: LowArgs,
        /// For programs.
        json: bool,
    },
    /// Serve.
    Serve(LowArgs),
}

/// The flags of `serve` that were given, as text.
#[derive(Clone, Debug, Default)]
pub struct LowArgs {
    /// `--config`
    pub config: Option<PathBuf>,
    /// What was given, in order.
    pub given: Vec<Given>,
}

/// One value that somebody gave, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The flag's name in the table.
    pub name: &'static str,
    /// As it stands; switches are `true` or `false`.
    pub value: String,
    /// For the message, if it is wrong: `--reactors`, `uringcast.toml:3: reactors`.
    pub place: String,
    /// A rule of the file, whose pattern is the value: its other keys.
    pub keys: Option<Vec<GivenKey>>,
}

/// One key of a rule for topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenKey {
    /// Its name, dashes or underscores; of an inline table `history-messages` and the like.
    pub key: String,
    /// As it stands.
    pub value: String,
    /// For the message, if it is wrong.
    pub place: String,
}

/// Reads the command line.
///
/// # Errors
/// clap's, which knows its exit code (2, or 0 for `--help`) and prints itself.
pub fn parse<I>(arguments: I) -> Result<Invocation, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let matches = command().try_get_matches_from(arguments)?;
    Ok(match matches.subcommand() {
        Some(("check-config", matches)) => Invocation::CheckConfig(
            matches.get_one::<PathBuf>("file").cloned().expect("clap: the argument is required"),
        ),
        Some(("doctor", matches)) => {
            Invocation::Doctor { low: low_args(matches), json: matches.get_flag("json") }
        }
        Some((_, matches)) => Invocation::Serve(low_args(matches)),
        None => unreachable!("clap: a subcommand is required"),
    })
}

/// The flag of this name, dashes or underscores.
pub fn flag(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| {
        flag.name.len() == name.len()
            && flag.name.bytes().zip(name.bytes()).all(|(a, b)| a == b || (a == b'-' && b == b'_'))
    })
}

/// The whole command line, for its help.
pub fn command() -> Command {
    Command::new("uringcast")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A WebSocket push server for Linux on io_uring")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve())
        .subcommand(
            Command::new("check-config")
                .about("Reads a configuration file and names every mistake in it")
                .arg(
                    Arg::new("file")
                        .value_name("FILE")
                        .required(true)
                        .value_parser(clap::value_parser!(PathBuf)),
                ),
        )
        .subcommand(doctor())
}

/// Takes every flag of `serve`, so that one word of a command line needs to be changed, and shows those
/// that change what it says.
fn doctor() -> Command {
    let json = Arg::new("json").long("json").help("The same as JSON").action(ArgAction::SetTrue);
    let matters = |flag: &Flag| DOCTOR_FLAGS.contains(&flag.name);
    Command::new("doctor")
        .about("Says what this machine allows, and the line that mends what is wrong")
        .after_help(DOCTOR_AFTER_HELP)
        .arg(json)
        .arg(config().hide(true))
        .args(FLAGS.iter().map(|flag| argument(flag).hide(!matters(flag))))
}

fn config() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help(
            "A TOML file with the same names as these flags (`ping_interval = \"25s\"`, lists where \
             a flag is repeatable, `[[topic]] pattern = \"md.>\"` for --topic). A flag wins over \
             the file. `uringcast check-config FILE` names every mistake in one.",
        )
}

fn serve() -> Command {
    Command::new("serve")
        .about("Serves")
        .after_help(AFTER_HELP)
        .arg(config())
        .args(FLAGS.iter().map(argument))
}

fn argument(flag: &'static Flag) -> Arg {
    let help = match flag.default {
        Fallback::Typed(text) => format!("{} [default: {text}]", flag.help),
        Fallback::Found(text) => format!("{} [default: {text}]", flag.help),
        Fallback::Nothing => flag.help.to_owned(),
    };
    let argument = Arg::new(flag.name).long(flag.name).help(help).help_heading(flag.heading);
    if flag.value.is_empty() {
        return argument.action(ArgAction::SetTrue);
    }
    argument.value_name(Str::from(flag.value)).action(if flag.repeats {
        ArgAction::Append
    } else {
        ArgAction::Set
    })
}

fn low_args(matches: &ArgMatches) -> LowArgs {
    let mut given = Vec::new();
    for flag in FLAGS {
        let mut push = |value| {
            let place = format!("--{}", flag.name);
            given.push(Given { name: flag.name, value, place, keys: None });
        };
        if flag.value.is_empty() {
            if matches.get_flag(flag.name) {
                push("true".to_owned());
            }
        } else {
            matches.get_many::<String>(flag.name).into_iter().flatten().cloned().for_each(push);
        }
    }
    LowArgs { config: matches.get_one::<PathBuf>("config").cloned(), given }
}

const AFTER_HELP: &str = "\
BYTES are a number with or without KiB, MiB, GiB (1024) or kB, MB, GB (1000). \
TIME is a number with ms, s, m or h. \
Exit codes: 0 clean, 1 failed while running, 2 wrong use.";

/// The flags of which much or little of the machine is wanted.
const DOCTOR_FLAGS: [&str; 6] =
    ["reactors", "cpus", "kernel-tier", "connections-max", "backlog", "send-buffer"];
const DOCTOR_AFTER_HELP: &str = "\
All other flags of serve, --config too, are taken as well: put doctor where serve stands. \
Exit codes: 0 the server runs here, 1 it does not, 2 wrong use.";

#[cfg(test)]
mod tests {
    use super::*;

    fn given(arguments: &[&str]) -> Vec<Given> {
        let all = ["uringcast", "serve"].iter().chain(arguments);
        match parse(all) {
            Ok(Invocation::Serve(low)) => low.given,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_typed_is_kept_as_text_with_its_place() {
        let one = |name, value: &str, place: &str| Given {
            name,
            value: value.into(),
            place: place.into(),
            keys: None,
        };
        assert_eq!(
            given(&["--reactors", "banana", "--echo"]),
            [one("echo", "true", "--echo"), one("reactors", "banana", "--reactors"),]
        );
    }

    #[test]
    fn repeatable_flags_keep_their_order() {
        let rules = given(&["--topic", "b:kind=value", "--topic=a.>:kind=event"]);
        assert_eq!(
            rules.iter().map(|given| given.value.as_str()).collect::<Vec<_>>(),
            ["b:kind=value", "a.>:kind=event"]
        );
    }

    #[test]
    fn doctor_takes_the_flags_of_serve() {
        let arguments = ["uringcast", "doctor", "--json", "--reactors", "4", "--listen", "[::]:1"];
        let Ok(Invocation::Doctor { low, json: true }) = parse(arguments) else { panic!() };
        let names: Vec<_> = low.given.iter().map(|given| given.name).collect();
        assert_eq!(names, ["listen", "reactors"]);
        assert!(DOCTOR_FLAGS.iter().all(|name| flag(name).is_some()));
    }

    #[test]
    fn wrong_use_is_named_and_exits_with_2() {
        for (arguments, named) in [
            (vec!["uringcast", "serve", "--reactor", "2"], "--reactors"),
            (vec!["uringcast", "serve", "--reactors"], "--reactors <N>"),
            (vec!["uringcast", "serve", "--listen", "a", "--listen", "b"], "--listen"),
            (vec!["uringcast", "serve", "stray"], "stray"),
            (vec!["uringcast", "server"], "server"),
            (vec!["uringcast", "check-config"], "<FILE>"),
        ] {
            let error = parse(&arguments).expect_err("wrong use");
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
            assert!(error.to_string().contains(named), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn the_help_names_every_flag_with_its_default() {
        let error = parse(["uringcast", "serve", "--help"]).expect_err("help is no invocation");
        assert_eq!(error.exit_code(), 0);
        // Wrapped lines are joined again, so that a phrase is found wherever it was cut.
        let help = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        for flag in FLAGS {
            assert!(help.contains(&format!("--{} ", flag.name)), "{}", flag.name);
            assert!(help.contains(flag.help), "{}: {}", flag.name, flag.help);
            if let Fallback::Typed(default) = flag.default {
                assert!(help.contains(&format!("[default: {default}]")), "{}", flag.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_found_with_dashes_or_underscores() {
        for (index, wanted) in FLAGS.iter().enumerate() {
            assert!(FLAGS[..index].iter().all(|other| other.name != wanted.name));
            for spelling in [wanted.name.to_owned(), wanted.name.replace('-', "_")] {
                assert_eq!(flag(&spelling).map(|flag| flag.name), Some(wanted.name));
            }
        }
        assert!(flag("Listen").is_none());
    }
}
