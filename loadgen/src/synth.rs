//! `loadgen synth`: made-up market data, published as it happens.
//!
//! Knows: which connections and sources that takes. Must not know: how ticks are made up, rings.

use std::io::Write as _;
use std::sync::Arc;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng as _;
use uringcast_protocol::Opcode;
use uringcast_protocol::writer::write_message;

use crate::audience::Audience;
use crate::crew::Crew;
use crate::failure::Failure;
use crate::flags::SynthFlags;
use crate::judge::Identify;
use crate::plan::{ClientPlan, Role};
use crate::report::Report;
use crate::run::{DRAIN_MAX, Timing};
use crate::shared::Shared;
use crate::source::{NEVER, SEND_BYTES_MAX, Source, Tally, masks};
use crate::spread::Spread;
use crate::stamp::{Finder, Stamp};
use crate::ticks::{Market, Tick, stamp_offset};

/// Runs it.
///
/// # Errors
/// [`Failure`].
pub(crate) fn synth(flags: &SynthFlags) -> Result<Report, Failure> {
    let market = Market::new(flags.symbols, flags.rate, flags.run.seed);
    let topics = market.topics();
    let audience = Audience::new(&flags.audience, &flags.interest, topics.clone(), &[], 0)?;
    let (mut groups, mut clients) = (audience.groups, audience.clients);
    clients.push(ClientPlan { role: Role::Publisher(0), group: groups.len() as u16 });
    groups.push(flags.audience.publish_url.with_path("/publish").group(None));
    let seconds = flags.duration.map_or(LONG_S, |duration| duration.as_secs_f64());
    let timing = Timing {
        warmup: flags.warmup,
        duration: flags.duration,
        grace: flags.run.grace,
        drain_max: DRAIN_MAX,
    };
    Crew {
        groups,
        clients,
        interests: audience.interests,
        streams: audience.streams,
        spread: Spread::new((seconds * flags.rate / f64::from(flags.symbols)) as u64),
        ..Crew::plain(&flags.run, timing)
    }
    .run(
        |shared| vec![Box::new(SynthSource::new(market, topics, Arc::clone(shared)))],
        || Identify::Stamp(Finder::default()),
    )
}

/// Lines of JSON over one connection.
struct SynthSource {
    market: Market,
    topics: Vec<String>,
    /// By topic: ticks so far.
    numbers: Vec<u64>,
    shared: Arc<Shared>,
    masks: Pcg32,
    /// The tick that comes next, and its JSON.
    next: Tick,
    payload: Vec<u8>,
    line: Vec<u8>,
    tally: Tally,
}

impl SynthSource {
    fn new(mut market: Market, topics: Vec<String>, shared: Arc<Shared>) -> Self {
        let mut payload = Vec::with_capacity(1024);
        let next = market.tick(&mut payload);
        Self {
            market,
            numbers: vec![0; topics.len()],
            topics,
            shared,
            masks: masks(0),
            next,
            payload,
            line: Vec::with_capacity(1024),
            tally: Tally::default(),
        }
    }

    fn intended_ns(&self) -> u64 {
        let intended_ns = self.shared.start_ns().saturating_add(self.next.at_ns);
        if intended_ns < self.shared.end_ns() { intended_ns } else { NEVER }
    }
}

impl Source for SynthSource {
    fn due_ns(&mut self, _now_ns: u64) -> u64 {
        self.intended_ns()
    }

    fn fill(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        while out.len() < SEND_BYTES_MAX {
            let intended_ns = self.intended_ns();
            if intended_ns > now_ns {
                break;
            }
            let (stream, topic) = (self.next.topic, usize::from(self.next.topic));
            let number = self.numbers[topic];
            let stamp = Stamp { stream, number, intended_ns, sent_ns: now_ns };
            stamp.write(&mut self.payload[stamp_offset()..]);
            self.line.clear();
            // Writing to a vector can't fail; topics need no escapes.
            let _ = write!(self.line, "{{\"topic\":\"{}\",\"data\":", self.topics[topic]);
            self.line.extend_from_slice(&self.payload);
            self.line.push(b'}');
            let mask = self.masks.next_u32().to_ne_bytes();
            write_message(out, Opcode::Text, &self.line, Some(mask));
            self.tally.note(intended_ns, now_ns);
            self.numbers[topic] = number + 1;
            self.shared.set_published(stream, number + 1);
            self.payload.clear();
            self.next = self.market.tick(&mut self.payload);
        }
    }

    fn is_done(&self, _now_ns: u64) -> bool {
        self.shared.start_ns() != NEVER && self.intended_ns() == NEVER
    }

    fn tally(&self, now_ns: u64) -> Tally {
        // How many more would have been due is not known without making them up.
        let is_due = self.intended_ns() < now_ns.min(self.shared.end_ns());
        Tally { unsent: u64::from(is_due), ..self.tally.clone() }
    }
}

/// For choosing samples when there is no end: an hour, s.
const LONG_S: f64 = 3600.0;
