//! `loadgen fanout`: one topic, many subscribers.
//!
//! Knows: which connections and sources that takes. Must not know: rings, report formats.

use std::sync::Arc;

use uringcast_protocol::Opcode;

use crate::crew::{Crew, churners};
use crate::failure::Failure;
use crate::flags::FanoutFlags;
use crate::judge::Identify;
use crate::plan::{ClientPlan, Role, Schedule};
use crate::report::Report;
use crate::run::{DRAIN_MAX, Timing};
use crate::shared::Shared;
use crate::source::{Pace, Source, StampedSource};
use crate::spread::Spread;
use crate::stamp::Finder;
use crate::verify::{Interest, StreamKind, Streams};

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
    let publishers = flags.publishers;
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
    let payload_bytes = flags.url.path.starts_with("/raw/").then_some(flags.size);
    let seconds = (flags.warmup + flags.duration).as_secs_f64();
    let publications = match flags.outstanding {
        Some(_) => CLOSED_LOOP_PER_S * seconds as u64,
        None => (flags.rate * seconds) as u64,
    };
    Crew {
        flags: &flags.run,
        groups: vec![flags.url.group(Some(0)), flags.publish_url.group(None)],
        clients,
        interests: vec![Interest::new(usize::from(publishers), |_| true)],
        streams,
        timing: Timing {
            warmup: flags.warmup,
            duration: Some(flags.duration),
            grace: flags.run.grace,
            drain_max: DRAIN_MAX,
        },
        payload_bytes,
        spread: Spread::new(publications / u64::from(publishers)),
        books: None,
        slow_bytes_per_s: 1,
        slow_catch_up: false,
        server_buffer_bytes: 0,
        closed_loop: flags.outstanding.is_some(),
    }
    .run(|shared| sources(flags, shared), || Identify::Stamp(Finder::default()))
}

fn sources(flags: &FanoutFlags, shared: &Arc<Shared>) -> Vec<Box<dyn Source>> {
    let opcode = if flags.binary { Opcode::Binary } else { Opcode::Text };
    let source = |publisher: u16| -> Box<dyn Source> {
        let pace = match flags.outstanding {
            Some(outstanding) => Pace::Closed { outstanding },
            None => Pace::Open(Schedule {
                publications_per_s: flags.rate,
                publishers: u64::from(flags.publishers),
                publisher: u64::from(publisher),
            }),
        };
        let shared = Arc::clone(shared);
        Box::new(StampedSource::new(pace, publisher, shared, flags.size, opcode))
    };
    (0..flags.publishers).map(source).collect()
}

const SUBSCRIBE: u16 = 0;
const PUBLISH: u16 = 1;
/// For choosing samples, a guess at what a closed loop reaches.
const CLOSED_LOOP_PER_S: u64 = 10_000;
