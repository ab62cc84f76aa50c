//! `loadgen publish`: publishers alone.
//!
//! Knows: which connections and sources that takes. Must not know: rings, report formats.

use std::sync::Arc;
use std::time::Duration;

use uringcast_protocol::Opcode;

use crate::acks::Acks;
use crate::burst::Burst;
use crate::crew::Crew;
use crate::dial;
use crate::failure::Failure;
use crate::flags::PublishFlags;
use crate::judge::Identify;
use crate::plan::{ClientPlan, Group, Role, Schedule};
use crate::post;
use crate::report::Report;
use crate::run::{DRAIN_MAX, Timing};
use crate::shared::Shared;
use crate::source::{Pace, Source};
use crate::targets::Target;
use crate::verify::{StreamKind, Streams};

/// Runs it.
///
/// # Errors
/// [`Failure`].
pub(crate) fn publish(flags: &PublishFlags) -> Result<Report, Failure> {
    if flags.acks && flags.url.scheme.is_http() {
        let right = "left out: over HTTP every publication is answered";
        return Err(Failure::usage("--acks", true, right));
    }
    let target = if flags.acks { with_acks(&flags.url) } else { flags.url.clone() };
    let group = dial::publishing(target.group(None), &flags.publisher, &flags.run.dial);
    let publishers = flags.publishers;
    let schedule = Schedule {
        rate: flags.rate.held_for(flags.warmup),
        burst: Burst::NONE,
        count: flags.count,
        publishers: u64::from(publishers),
        publisher: 0,
    };
    let of = move |publisher: u16| Schedule { publisher: u64::from(publisher), ..schedule };
    let duration = match flags.count {
        Some(_) => flags.duration,
        None => flags.duration.or_else(|| flags.rate.ramp()).or(Some(DURATION)),
    };
    let names = (0..publishers).map(|number| format!("publisher {number}")).collect();
    let client = |number| ClientPlan { role: Role::Publisher(number), group: 0 };
    let timing =
        Timing { warmup: flags.warmup, duration, grace: flags.run.grace, drain_max: DRAIN_MAX };
    Crew {
        groups: vec![group.clone()],
        clients: (0..publishers).map(client).collect(),
        streams: Streams { names, kinds: vec![StreamKind::Event; usize::from(publishers)] },
        acks: wants_acks(&target).then(|| Acks::new((0..publishers).map(of))),
        ..Crew::plain(&flags.run, timing)
    }
    .run(|shared| sources(flags, &group, of, shared), || Identify::Nothing)
}

fn sources(
    flags: &PublishFlags,
    group: &Group,
    schedule_of: impl Fn(u16) -> Schedule,
    shared: &Arc<Shared>,
) -> Vec<Box<dyn Source>> {
    let opcode = if flags.binary { Opcode::Binary } else { Opcode::Text };
    let source = |publisher: u16| -> Box<dyn Source> {
        let pace = Pace::Open(schedule_of(publisher));
        let payload = (flags.size, opcode);
        post::publisher(pace, publisher, Arc::clone(shared), payload, group, &flags.publisher)
    };
    (0..flags.publishers).map(source).collect()
}

fn wants_acks(target: &Target) -> bool {
    if target.scheme.is_http() {
        return false;
    }
    let (_, query) = target.path.split_once('?').unwrap_or_default();
    query.split('&').any(|field| field == ACK)
}

fn with_acks(target: &Target) -> Target {
    if wants_acks(target) {
        return target.clone();
    }
    let joint = if target.path.contains('?') { '&' } else { '?' };
    target.with_path(&format!("{}{joint}{ACK}", target.path))
}

const DURATION: Duration = Duration::from_secs(10);
const ACK: &str = "ack=1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_asked_for_once() {
        let with = |url: &str| {
            let target: Target = url.parse().expect("a target");
            with_acks(&target).path
        };
        assert_eq!(with("ws://127.0.0.1:1/publish/a"), "/publish/a?ack=1");
        assert_eq!(with("ws://127.0.0.1:1/publish/a?x=1"), "/publish/a?x=1&ack=1");
        assert_eq!(with("ws://127.0.0.1:1/publish/a?ack=1"), "/publish/a?ack=1");
    }
}
