//! The command line, the same for all the servers. Must not know what is done with it.

use std::{env, fmt::Display, process, str::FromStr};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Flags {
    pub port: u16,
    /// One for each thread.
    pub cpus: Vec<usize>,
}

impl Flags {
    /// Those of the process; ends it with 2 where one is wrong.
    pub fn of_process() -> Self {
        Self::parse(env::args().skip(1)).unwrap_or_else(|wrong| {
            eprintln!("{wrong}\nusage: --port PORT [--threads 1|2] [--cpus CPU,…]");
            process::exit(2);
        })
    }

    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut port, mut cpus, mut threads) = (None, None, None);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} has no value"))?;
            match name.as_str() {
                "--port" => port = Some(number(&name, &value)?),
                "--threads" => threads = Some(number(&name, &value)?),
                "--cpus" => {
                    let each = value.split(',').map(|cpu| number(&name, cpu));
                    cpus = Some(each.collect::<Result<Vec<usize>, _>>()?);
                }
                _ => return Err(format!("{name} is not known")),
            }
        }
        let threads = threads.unwrap_or_else(|| cpus.as_ref().map_or(1, Vec::len));
        let cpus = cpus.unwrap_or_else(|| (0..threads).collect());
        if threads == 0 || cpus.len() != threads {
            return Err(format!("--threads {threads} needs as many --cpus, not {}", cpus.len()));
        }
        let port = port.ok_or("--port is missing")?;
        Ok(Self { port, cpus })
    }
}

fn number<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("{name} {value}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, String> {
        Flags::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn threads_have_processors() {
        assert_eq!(parse("--port 1 --threads 2").unwrap().cpus, [0, 1]);
        assert_eq!(parse("--port 1 --cpus 3").unwrap().cpus, [3]);
        assert!(parse("--port 1 --cpus 3 --threads 2").unwrap_err().contains("--cpus"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, named) in [
            ("--port 70000", "--port 70000"),
            ("--threads 1", "--port is missing"),
            ("--cpus 0", "--port is missing"),
            ("--port", "--port has no value"),
            ("--depth 3", "--depth is not known"),
        ] {
            assert!(parse(line).unwrap_err().contains(named), "{line}");
        }
    }
}
