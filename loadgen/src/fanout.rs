//! `loadgen fanout`: one topic, many subscribers.
//!
//! Knows: which connections and sources that takes. Must not know: rings, report formats.

use std::sync::Arc;
use std::time::Duration;

use uringcast_protocol::Opcode;

use crate::crew::{Crew, churners};
use crate::dial;
use crate::failure::Failure;
use crate::find_max::find;
use crate::flags::FanoutFlags;
use crate::interest::Interest;
use crate::judge::Identify;
use crate::plan::{ClientPlan, Group, Role, Schedule};
use crate::post;
use crate::report::{Report, StepsOf};
use crate::run::{DRAIN_MAX, Timing};
use crate::shared::Shared;
use crate::source::{Pace, Source};
use crate::spread::Spread;
use crate::stamp::Finder;
use crate::steps::Steps;
use crate::verify::{StreamKind, Streams};

/// Runs it.
///
/// # Errors
/// [`Failure`].
pub(crate) fn fanout(flags: &FanoutFlags) -> Result<Report, Failure> {
    if flags.outstanding.is_some() && flags.publishers != 1 {
        return Err(Failure::usage(
            "--publishers",
            flags.publishers,
            "1 with --outstanding: a closed loop has one publisher",
        ));
    }
    if flags.search.find_max.is_empty() { once(flags) } else { find(flags, once) }
}

/// One run at one rate, or along one ramp.
fn once(flags: &FanoutFlags) -> Result<Report, Failure> {
    let publishers = flags.publishers;
    let duration = flags.duration.or_else(|| flags.rate.ramp()).unwrap_or(DURATION);
    let rate = flags.rate.held_for(flags.warmup);
    let step_ns = rate.ramp().map(|ramp| (ramp.as_nanos() as u64 / STEPS).max(1));
    let steps = step_ns.map(|step_ns| {
        let count = (duration.as_nanos() as u64).div_ceil(step_ns).min(STEPS_MAX);
        Steps::new(count as usize, step_ns)
    });
    let names = (0..publishers).map(|number| format!("publisher {number}")).collect();
    let streams = Streams { names, kinds: vec![StreamKind::Event; usize::from(publishers)] };
    let mut clients: Vec<_> = (0..publishers)
        .map(|number| ClientPlan { role: Role::Publisher(number), group: PUBLISH })
        .collect();
    let churns = churners(flags.subscribers, flags.churn);
    clients.extend((0..flags.subscribers).map(|number| ClientPlan {
        role: Role::Subscriber { churns: churns(number) },
        group: SUBSCRIBE,
    }));
    let stalled = ClientPlan { role: Role::Stalled, group: SUBSCRIBE };
    clients.extend((0..flags.stalled).map(|_| stalled));
    // A JSON server wraps the payload: only on a raw path is its length known.
    let is_raw = is_own(flags) && flags.url.path.starts_with("/raw/");
    let payload_bytes = is_raw.then_some(flags.size);
    let whole = flags.warmup + duration;
    let publications = match flags.outstanding {
        Some(_) => CLOSED_LOOP_PER_S * whole.as_secs(),
        None => rate.count_before(whole.as_nanos() as u64),
    };
    let publish =
        dial::publishing(flags.publish_url.group(None), &flags.publisher, &flags.run.dial);
    let schedule = Schedule { burst: flags.burst, ..Schedule::new(rate, publishers) };
    let timing = Timing {
        warmup: flags.warmup,
        duration: Some(duration),
        grace: flags.run.grace,
        drain_max: DRAIN_MAX,
    };
    let crew = Crew {
        groups: vec![flags.url.group(Some(0)), publish.clone()],
        clients,
        interests: vec![Interest::new(usize::from(publishers), |_| true)],
        streams,
        payload_bytes,
        spread: Spread::new(publications / u64::from(publishers)),
        closed_loop: flags.outstanding.is_some(),
        steps,
        ..Crew::plain(&flags.run, timing)
    };
    let mut report = crew.run(
        |shared| sources(flags, &publish, schedule, shared),
        || match is_own(flags) {
            true => Identify::Stamp(Finder::default()),
            false => Identify::Foreign(Finder::default()),
        },
    )?;
    if let Some(steps) = &report.latencies.steps {
        let of = StepsOf {
            schedule: &schedule,
            warmup_ns: flags.warmup.as_nanos() as u64,
            window_ns: (report.deliveries.window_s * 1e9) as u64,
            published: report.published.published,
            missed: &report.missed,
        };
        report.steps = of.list(steps);
    }
    Ok(report)
}

/// Whether messages are as our server sends them: one publication each, or words of its protocol.
fn is_own(flags: &FanoutFlags) -> bool {
    let path = &flags.url.path;
    let is_path =
        path.starts_with("/raw/") || (path.starts_with("/ws?") && path.contains("topics="));
    let has_greetings = !flags.run.dial.sends.greetings.is_empty();
    is_path && !has_greetings && flags.publisher.template.is_none()
}

fn sources(
    flags: &FanoutFlags,
    group: &Group,
    schedule: Schedule,
    shared: &Arc<Shared>,
) -> Vec<Box<dyn Source>> {
    let opcode = if flags.binary { Opcode::Binary } else { Opcode::Text };
    let source = |publisher: u16| -> Box<dyn Source> {
        let pace = match flags.outstanding {
            Some(outstanding) => Pace::Closed { outstanding },
            None => Pace::Open(Schedule { publisher: u64::from(publisher), ..schedule }),
        };
        let payload = (flags.size, opcode);
        post::publisher(pace, publisher, Arc::clone(shared), payload, group, &flags.publisher)
    };
    (0..flags.publishers).map(source).collect()
}

const SUBSCRIBE: u16 = 0;
const PUBLISH: u16 = 1;
/// For choosing samples, a guess at what a closed loop reaches.
const CLOSED_LOOP_PER_S: u64 = 10_000;
const DURATION: Duration = Duration::from_secs(10);
/// A ramp is told in so many steps; what follows it, in steps of the same length.
const STEPS: u64 = 20;
const STEPS_MAX: u64 = 60;
