//! The search for the highest rate.
//!
//! Knows: names, defaults, help. Must not know: what is done with them.

use clap::Args;

use crate::find_max::Bound;

/// `--find-max`, of `fanout`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SearchFlags {
    /// Find the highest rate with nothing lost and these corrected latencies: p99=5ms,max=50ms. Each
    /// step has its own --warmup and --duration; from --rate upwards, or where a ramp fails
    #[arg(long, value_delimiter = ',', value_name = "pNN=TIME,…", conflicts_with = "outstanding")]
    pub(crate) find_max: Vec<Bound>,
    /// How close the highest rate that held and the lowest that did not shall be
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT", value_parser = precision, requires = "find_max")]
    pub(crate) precision: f64,
}

fn precision(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.5..=100.0).contains(&value) => Ok(value),
        _ => Err("should be a number from 0.5 to 100".to_owned()),
    }
}
