//! Why a command did not run to its end, and the exit code that says so.
//!
//! Knows: whose fault it is. Must not know: what was attempted.

use std::fmt::Display;
use std::path::PathBuf;

use thiserror::Error;

use crate::driver::RingError;
use crate::run::RunError;

/// What is printed to standard error before the end.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// Order books that can't be rebuilt, or not begun.
    #[error("--books: {0}")]
    Books(String),
    /// More connections than descriptors.
    #[error(
        "{connections} connections are too many: here each is a file descriptor (no table of sockets in \
         io_uring, which is of Linux 5.19, or --kernel-tier base), and RLIMIT_NOFILE allows {most}; raise \
         it (`ulimit -n`, LimitNOFILE=) to {needed} or more"
    )]
    Files { connections: u64, most: u64, needed: u64 },
    /// A file that should be a report.
    #[error("error: invalid value '{}' for 'A.json': should be a report as written by --json ({reason})", path.display())]
    NoReport { path: PathBuf, reason: String },
    /// A file that was to be read.
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    /// No io_uring.
    #[error(transparent)]
    Ring(RingError),
    /// While running.
    #[error(transparent)]
    Run(#[from] RunError),
    /// What a scenario file says.
    #[error("{}:{line}: {problem}", path.display())]
    Scenario { path: PathBuf, line: usize, problem: String },
    /// What the threads share.
    #[error("setting up: {0}")]
    Setup(std::io::Error),
    /// A flag's value that makes no sense.
    #[error("error: invalid value '{value}' for '{flag}': should be {right}")]
    Usage { flag: &'static str, value: String, right: String },
    /// A file that was to be written.
    #[error("{}: {error}", path.display())]
    Write { path: PathBuf, error: std::io::Error },
}

impl Failure {
    /// The user's mistake: which flag, its value, what would be right.
    pub(crate) fn usage(flag: &'static str, value: impl Display, right: &str) -> Self {
        Self::Usage { flag, value: value.to_string(), right: right.to_owned() }
    }

    /// 1 failed while running, 2 wrong use.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Files { .. }
            | Self::NoReport { .. }
            | Self::Scenario { .. }
            | Self::Usage { .. } => 2,
            Self::Books(_)
            | Self::Read { .. }
            | Self::Ring(_)
            | Self::Run(_)
            | Self::Setup(_)
            | Self::Write { .. } => 1,
        }
    }
}
