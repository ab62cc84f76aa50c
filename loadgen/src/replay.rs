//! `loadgen replay`: recorded market data, published at its recorded times.
//!
//! Knows: which connections and sources that takes. Must not know: file formats, rings.

use std::io::Write as _;
use std::sync::Arc;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng as _;
use uringcast_protocol::Opcode;
use uringcast_protocol::writer::write_message;

use crate::audience::Audience;
use crate::crew::Crew;
use crate::failure::Failure;
use crate::flags::{Format, ReplayFlags};
use crate::judge::Identify;
use crate::plan::{ClientPlan, Role};
use crate::recognizer::{Catalogue, Recognizer};
use crate::recorded::{RecordedError, Recording};
use crate::report::Report;
use crate::run::Timing;
use crate::shared::Shared;
use crate::source::{NEVER, SEND_BYTES_MAX, Source, Tally, masks};
use crate::spread::Spread;

/// Runs it.
///
/// # Errors
/// [`Failure`].
pub(crate) fn replay(flags: &ReplayFlags) -> Result<Report, Failure> {
    let recording = Recording::load(&flags.files).map_err(|(path, error)| {
        let error = match error {
            RecordedError::Read { error, .. } => error,
            other => std::io::Error::other(other),
        };
        Failure::Read { path, error }
    })?;
    if !flags.run.quiet {
        eprintln!(
            "{} messages in {} topics over {:.1} s; {} lines without a message skipped",
            recording.messages.len(),
            recording.topics.len(),
            recording.span_ns() as f64 / 1e9,
            recording.skipped
        );
    }
    let audience = Audience::new(&flags.audience, &flags.interest, recording.topics.clone())?;
    let catalogue = Arc::new(Catalogue::new(recording, flags.speed));
    let (mut groups, mut clients) = (audience.groups, audience.clients);
    let parts = parts(&catalogue.recording, flags.lines);
    for (number, part) in parts.iter().enumerate() {
        let path = match part.topic {
            Some(stream) => {
                format!("/publish/{}", catalogue.recording.topics[usize::from(stream)])
            }
            None => "/publish".to_owned(),
        };
        let group = groups.len() as u16;
        groups.push(flags.audience.publish_url.with_path(&path).group(None));
        clients.push(ClientPlan { role: Role::Publisher(number as u16), group });
    }
    let longest = parts.iter().map(|part| part.messages.len()).max().unwrap_or(0) as u64;
    let timing = Timing { warmup: flags.warmup, duration: flags.duration, grace: flags.run.grace };
    let json = flags.audience.format == Format::Json;
    let shared_by_judges = std::cell::OnceCell::new();
    Crew {
        flags: &flags.run,
        groups,
        clients,
        interests: audience.interests,
        streams: audience.streams,
        timing,
        payload_bytes: None,
        spread: Spread::new(longest),
        closed_loop: false,
    }
    .run(
        |shared| {
            shared_by_judges.get_or_init(|| Arc::clone(shared));
            let source = |part: Part| -> Box<dyn Source> {
                Box::new(RecordedSource::new(Arc::clone(&catalogue), Arc::clone(shared), part))
            };
            parts.into_iter().map(source).collect()
        },
        || match shared_by_judges.get() {
            Some(shared) => {
                let (catalogue, shared) = (Arc::clone(&catalogue), Arc::clone(shared));
                Identify::Recorded(Recognizer::new(catalogue, shared, json))
            }
            None => Identify::Nothing,
        },
    )
}

/// What one connection publishes.
struct Part {
    /// Its only topic; `None`: any, as lines of JSON.
    topic: Option<u16>,
    /// Indices of messages, in order.
    messages: Vec<u32>,
}

fn parts(recording: &Recording, lines: bool) -> Vec<Part> {
    if lines {
        return vec![Part {
            topic: None,
            messages: (0..recording.messages.len() as u32).collect(),
        }];
    }
    let part = |stream| Part { topic: Some(stream), messages: Vec::new() };
    let mut parts: Vec<_> = (0..recording.topics.len() as u16).map(part).collect();
    for (index, message) in recording.messages.iter().enumerate() {
        parts[usize::from(message.stream)].messages.push(index as u32);
    }
    parts
}

/// One connection's publications.
struct RecordedSource {
    catalogue: Arc<Catalogue>,
    shared: Arc<Shared>,
    part: Part,
    /// Index in `part.messages`.
    next: usize,
    masks: Pcg32,
    line: Vec<u8>,
    tally: Tally,
}

impl RecordedSource {
    fn new(catalogue: Arc<Catalogue>, shared: Arc<Shared>, part: Part) -> Self {
        let masks = masks(part.topic.map_or(u64::MAX, u64::from));
        let (line, tally) = (Vec::new(), Tally::default());
        Self { catalogue, shared, part, next: 0, masks, line, tally }
    }

    /// When the n-th of its messages is due; [`NEVER`] after the last or after the run's end.
    fn intended_ns(&self, place: usize, now_ns: u64) -> u64 {
        let Some(&index) = self.part.messages.get(place) else { return NEVER };
        let message = &self.catalogue.recording.messages[index as usize];
        let start_ns = self.shared.start_ns();
        let intended_ns = match self.catalogue.offset_ns(message) {
            Some(offset_ns) => start_ns.saturating_add(offset_ns),
            None => start_ns.max(now_ns),
        };
        if intended_ns < self.shared.end_ns() { intended_ns } else { NEVER }
    }

    fn put(&mut self, index: u32, out: &mut Vec<u8>) {
        let recording = &self.catalogue.recording;
        let message = &recording.messages[index as usize];
        let mask = self.masks.next_u32().to_ne_bytes();
        let mut payload = recording.payload(message);
        if self.part.topic.is_none() {
            let topic = &recording.topics[usize::from(message.stream)];
            self.line.clear();
            // Writing to a vector can't fail; topics need no escapes.
            let _ = write!(self.line, "{{\"topic\":\"{topic}\",\"data\":");
            self.line.extend_from_slice(payload);
            self.line.push(b'}');
            payload = &self.line;
        }
        write_message(out, Opcode::Text, payload, Some(mask));
        self.shared.set_published(message.stream, u64::from(message.number) + 1);
    }
}

impl Source for RecordedSource {
    fn due_ns(&mut self, now_ns: u64) -> u64 {
        self.intended_ns(self.next, now_ns)
    }

    fn fill(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        while out.len() < SEND_BYTES_MAX {
            let intended_ns = self.intended_ns(self.next, now_ns);
            if intended_ns > now_ns {
                break;
            }
            let index = self.part.messages[self.next];
            // Before the payload can arrive anywhere.
            self.catalogue.set_sent(index, now_ns);
            self.put(index, out);
            self.tally.note(intended_ns, now_ns);
            self.next += 1;
        }
    }

    fn is_done(&self, now_ns: u64) -> bool {
        self.shared.start_ns() != NEVER && self.intended_ns(self.next, now_ns) == NEVER
    }

    fn tally(&self, now_ns: u64) -> Tally {
        let rest = self.next..self.part.messages.len();
        let is_due = |place: &usize| self.intended_ns(*place, now_ns) < now_ns;
        Tally { unsent: rest.take_while(is_due).count() as u64, ..self.tally }
    }
}
