//! `loadgen connect`: connections that are opened, held and watched.
//!
//! Knows: which connections that takes. Must not know: rings, report formats.

use std::time::Duration;

use crate::crew::Crew;
use crate::failure::Failure;
use crate::flags::ConnectFlags;
use crate::judge::Identify;
use crate::plan::{ClientPlan, Role};
use crate::report::Report;
use crate::run::{DRAIN_MAX, Timing};

/// Runs it.
///
/// # Errors
/// [`Failure`].
pub(crate) fn connect(flags: &ConnectFlags) -> Result<Report, Failure> {
    let target = match flags.topics.is_empty() {
        true => flags.url.clone(),
        false => {
            let topics = flags.topics.join(",").replace('>', "%3E");
            let path = flags.url.path.split('?').next().unwrap_or_default();
            flags.url.with_path(&format!("{path}?topics={topics}"))
        }
    };
    let client = ClientPlan { role: Role::Idle, group: 0 };
    let timing = Timing {
        warmup: Duration::ZERO,
        duration: Some(flags.hold),
        // Nothing is on its way, but each thread has to look.
        grace: Duration::from_secs(1),
        drain_max: DRAIN_MAX,
    };
    Crew {
        groups: vec![target.group(None)],
        clients: vec![client; flags.connections as usize],
        ..Crew::plain(&flags.run, timing)
    }
    .run(|_| Vec::new(), || Identify::Nothing)
}
