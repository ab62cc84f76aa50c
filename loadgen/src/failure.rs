//! Why a command did not run to its end, and the exit code that says so.
//!
//! Knows: whose fault it is. Must not know: what was attempted.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use thiserror::Error;

use crate::run::RunError;

/// What is printed to standard error before the end.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// Order books that can't be rebuilt, or not begun.
    #[error("--books: {0}")]
    Books(String),
    /// A file that should be a report.
    #[error("error: invalid value '{}' for 'A.json': should be a report as written by --json ({reason})", path.display())]
    NoReport { path: PathBuf, reason: String },
    /// A file that was to be read.
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    /// While running.
    #[error(transparent)]
    Run(#[from] RunError),
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
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NoReport { .. } | Self::Usage { .. } => 2,
            Self::Books(_)
            | Self::Read { .. }
            | Self::Run(_)
            | Self::Setup(_)
            | Self::Write { .. } => 1,
        })
    }
}
