//! What can be typed about seeing: a run's page and metrics, and runs beside each other.
//!
//! Knows: names, defaults, help. Must not know: what is done with them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
use crate::server_process::ServerProcess;

/// Of every command that runs.
#[derive(Clone, Debug, Args)]
pub(crate) struct SeeingFlags {
    /// Write the report as a page that needs nothing else: percentiles, what happened when, figures
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Serve the run's figures as Prometheus text while it lasts: 127.0.0.1:9100, then /metrics
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) metrics: Option<SocketAddr>,
}

/// Whose processor time and memory are reported.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerFlags {
    /// Process id of the server: report CPU time and memory, children included
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Processors that the server of --pid has for itself: what the kernel does there in ksoftirqd
    /// counts with it
    #[arg(long, value_delimiter = ',', value_name = "CPU,…", requires = "pid")]
    pub(crate) pid_cpus: Vec<usize>,
}

impl ServerFlags {
    /// The server, if it is given.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) fn find(&self) -> Result<Option<ServerProcess>, Failure> {
        let Some(pid) = self.pid else { return Ok(None) };
        let process = ServerProcess::find(pid).map_err(|error| {
            let right = format!("the id of a running process of your own ({error})");
            Failure::usage("--pid <PID>", pid, &right)
        })?;
        let process = process.with_cpus(&self.pid_cpus).map_err(|error| {
            let cpus: Vec<_> = self.pid_cpus.iter().map(usize::to_string).collect();
            let right = format!("processors whose ksoftirqd is to be seen in /proc ({error})");
            Failure::usage("--pid-cpus <CPU,…>", cpus.join(","), &right)
        })?;
        Ok(Some(process))
    }
}

/// `loadgen compare`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompareFlags {
    /// Reports (--json) of each side; several runs of one side with commas between them. The first side
    /// is what the others are compared with
    #[arg(value_name = "A.json[,A.json…]", conflicts_with_all = ["a", "b"], required_unless_present_all = ["a", "b"])]
    pub(crate) sides: Vec<String>,
    /// The same by name: the reports of the first side
    #[arg(long, num_args = 1.., value_name = "FILE", requires = "b")]
    pub(crate) a: Vec<PathBuf>,
    /// And of the second
    #[arg(long, num_args = 1.., value_name = "FILE", requires = "a")]
    pub(crate) b: Vec<PathBuf>,
    /// Write a page with all runs, their percentiles in one plot
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write the table as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// No table: files and exit code only
    #[arg(long)]
    pub(crate) quiet: bool,
    /// For the samples that intervals are calculated from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "should be an IP address and a port, as in 127.0.0.1:9100".to_owned())
}

const EXAMPLES: &str = "\
A ratio is the second side's figure to the first's: 0.9 is a tenth less. With as many runs on both sides they
are compared in pairs, in the order given: run them in turn. The interval holds the true median ratio with
95 %, for what chance does between runs (bootstrap over the pairs); one run of each says nothing about chance.

Examples:
  loadgen compare before.json after.json
  loadgen compare before1.json,before2.json,before3.json after1.json,after2.json,after3.json
  loadgen compare --a before*.json --b after*.json --html both.html
  loadgen compare ours.json nchan.json nats.json --html all.html

Exit codes: 0 compared, 1 compared although something differs that makes them no equals, or a run was not
clean, 2 wrong use, or a file that is no report.";
