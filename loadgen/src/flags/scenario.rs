//! A scenario file in place of flags.
//!
//! Knows: names, defaults, help. Must not know: what is done with them.

use std::path::PathBuf;

use clap::Args;

/// `loadgen run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ScenarioFlags {
    /// TOML: `command = "fanout"` and flags by their names; each [[step]] is a run of its own
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Flags of the command, which go before what the file says
    #[arg(value_name = "FLAGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) overrides: Vec<String>,
}
