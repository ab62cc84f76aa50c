//! `loadgen fanout`: one topic, many subscribers.
//!
//! Knows: which connections and sources that takes. Must not know: rings, report formats.

use std::sync::Arc;

use uringcast_protocol::Opcode;

use crate::crew::{Crew, churners};
use crate::dial;
use crate::failure::Failure;
use crate::flags::FanoutFlags;
use crate::judge::Identify;
use crate::payload::Payload;
use crate::plan::{ClientPlan, Group, Role, Schedule};
use crate::post::PostSource;
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
    let is_raw = is_own(flags) && flags.url.path.starts_with("/raw/");
    let payload_bytes = is_raw.then_some(flags.size);
    let seconds = (flags.warmup + flags.duration).as_secs_f64();
    let publications = match flags.outstanding {
        Some(_) => CLOSED_LOOP_PER_S * seconds as u64,
        None => (flags.rate * seconds) as u64,
    };
    let publish =
        dial::publishing(flags.publish_url.group(None), &flags.publisher, &flags.run.dial);
    Crew {
        flags: &flags.run,
        groups: vec![flags.url.group(Some(0)), publish.clone()],
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
    .run(
        |shared| sources(flags, &publish, shared),
        || match is_own(flags) {
            true => Identify::Stamp(Finder::default()),
            false => Identify::Foreign(Finder::default()),
        },
    )
}

/// Whether messages are as our server sends them: one publication each, or words of its protocol.
fn is_own(flags: &FanoutFlags) -> bool {
    let path = &flags.url.path;
    let is_path =
        path.starts_with("/raw/") || (path.starts_with("/ws?") && path.contains("topics="));
    let has_greetings = !flags.run.dial.sends.greetings.is_empty();
    is_path && !has_greetings && flags.publisher.template.is_none()
}

fn sources(flags: &FanoutFlags, group: &Group, shared: &Arc<Shared>) -> Vec<Box<dyn Source>> {
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
        let template = flags.publisher.template.as_ref();
        if group.scheme.is_http() {
            let number = u32::from(publisher);
            let payload = Payload::post(flags.size, template, opcode, group, number);
            let source = StampedSource::new(pace, publisher, shared, payload);
            return Box::new(PostSource::new(source, flags.publisher.pipeline));
        }
        let payload = Payload::message(flags.size, template, opcode);
        Box::new(StampedSource::new(pace, publisher, shared, payload))
    };
    (0..flags.publishers).map(source).collect()
}

const SUBSCRIBE: u16 = 0;
const PUBLISH: u16 = 1;
/// For choosing samples, a guess at what a closed loop reaches.
const CLOSED_LOOP_PER_S: u64 = 10_000;
