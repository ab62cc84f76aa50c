//! `loadgen replay`: recorded market data, published at its recorded times.
//!
//! Knows: which connections and sources that takes. Must not know: file formats, rings.

use std::io::Write as _;
use std::sync::Arc;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng as _;
use uringcast_protocol::Opcode;
use uringcast_protocol::topic_name::Pattern;
use uringcast_protocol::writer::write_message;

use crate::audience::Audience;
use crate::books::{BooksPlan, Market, PublishersBooks, publish_first};
use crate::crew::Crew;
use crate::failure::Failure;
use crate::flags::{BOOKS_INTERESTS, BooksFlags, Format, REPLAY_INTERESTS, ReplayFlags};
use crate::judge::Identify;
use crate::plan::{ClientPlan, Role};
use crate::recognizer::{Catalogue, Recognizer};
use crate::recorded::{RecordedError, Recording};
use crate::report::Report;
use crate::run::{DRAIN_MAX, Timing};
use crate::shared::Shared;
use crate::source::{NEVER, SEND_BYTES_MAX, Source, Tally, masks};
use crate::spread::Spread;

/// Runs it.
///
/// # Errors
/// [`Failure`].
pub(crate) fn replay(flags: &ReplayFlags) -> Result<Report, Failure> {
    let recording = load(flags)?;
    let market = flags.books.books.then(|| market(&flags.books, &recording)).transpose()?;
    let audience = audience(flags, &recording.topics)?;
    if let Some(market) = &market {
        let topics = &recording.topics;
        publish_first(&flags.audience.publish_url, market, topics)
            .map_err(|error| Failure::Books(error.to_string()))?;
    }
    let catalogue = Arc::new(Catalogue::new(recording, flags.speed));
    let (mut groups, mut clients) = (audience.groups, audience.clients);
    let parts = parts(&catalogue.recording, flags.lines || market.is_some());
    for (number, part) in parts.iter().enumerate() {
        clients
            .push(ClientPlan { role: Role::Publisher(number as u16), group: groups.len() as u16 });
        let path = part.path(&catalogue.recording, market.is_some());
        groups.push(flags.audience.publish_url.with_path(&path).group(None));
    }
    let longest = parts.iter().map(|part| part.messages.len()).max().unwrap_or(0) as u64;
    let timing = Timing {
        warmup: flags.warmup,
        duration: flags.duration,
        grace: flags.run.grace,
        drain_max: if flags.books.books { flags.books.drain } else { DRAIN_MAX },
    };
    let json = flags.audience.format == Format::Json || market.is_some();
    let books = market.as_ref().map(|market| {
        Arc::new(BooksPlan { market: Arc::clone(market), resume: flags.books.resume })
    });
    let shared_by_judges = std::cell::OnceCell::new();
    Crew {
        groups,
        clients,
        interests: audience.interests,
        streams: audience.streams,
        spread: Spread::new(longest),
        books,
        slow_bytes_per_s: flags.books.slow_rate,
        slow_catch_up: flags.books.slow_catch_up,
        server_buffer_bytes: flags.books.server_buffer,
        ..Crew::plain(&flags.run, timing)
    }
    .run(
        |shared| {
            shared_by_judges.get_or_init(|| Arc::clone(shared));
            let source = |part: Part| -> Box<dyn Source> {
                let books = market.as_ref().map(|market| {
                    PublishersBooks::new(market, flags.books.snapshot_every.as_nanos() as u64)
                });
                let (catalogue, shared) = (Arc::clone(&catalogue), Arc::clone(shared));
                Box::new(RecordedSource::new(catalogue, shared, part, books))
            };
            parts.into_iter().map(source).collect()
        },
        || match shared_by_judges.get() {
            Some(shared) => {
                let (catalogue, shared) = (Arc::clone(&catalogue), Arc::clone(shared));
                let mut recognizer = Recognizer::new(catalogue, shared, json);
                if flags.books.books {
                    recognizer.begin_with_one();
                }
                Identify::Recorded(recognizer)
            }
            None => Identify::Nothing,
        },
    )
}

fn load(flags: &ReplayFlags) -> Result<Recording, Failure> {
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
    Ok(recording)
}

fn audience(flags: &ReplayFlags, topics: &[String]) -> Result<Audience, Failure> {
    let books = &flags.books;
    if books.slow > flags.audience.subscribers {
        let right = format!("at most --subscribers, {}", flags.audience.subscribers);
        return Err(Failure::usage("--slow", books.slow, &right));
    }
    let own: &[&str] = if books.books { &BOOKS_INTERESTS } else { &REPLAY_INTERESTS };
    let own: Vec<_> = own.iter().map(|&text| text.to_owned()).collect();
    let interests = if flags.interest.is_empty() { &own } else { &flags.interest };
    let deltas = if books.books { deltas(books)? } else { Vec::new() };
    let mut audience =
        Audience::new(&flags.audience, interests, topics.to_vec(), &deltas, books.slow)?;
    if books.books {
        // What is subscribed to is said once connected: where to resume does not fit a URL.
        let plain = flags.audience.url.with_path("/ws");
        for (index, group) in audience.groups.iter_mut().enumerate() {
            *group = plain.group(Some(index as u16));
        }
    }
    Ok(audience)
}

fn deltas(flags: &BooksFlags) -> Result<Vec<Pattern>, Failure> {
    let right = "a topic or pattern, as in *.*.depth";
    let parse =
        |text: &String| Pattern::parse(text).map_err(|_| Failure::usage("--delta", text, right));
    flags.delta.iter().map(parse).collect()
}

fn market(flags: &BooksFlags, recording: &Recording) -> Result<Arc<Market>, Failure> {
    let deltas = deltas(flags)?;
    let is_book = |topic: &str| deltas.iter().any(|delta| delta.matches(topic));
    let market =
        Market::new(recording, is_book).map_err(|error| Failure::Books(error.to_string()))?;
    Ok(Arc::new(market))
}

/// What one connection publishes.
struct Part {
    /// Its only topic; `None`: any, as lines of JSON.
    topic: Option<u16>,
    /// Indices of messages, in order.
    messages: Vec<u32>,
}

impl Part {
    /// Where it is published.
    fn path(&self, recording: &Recording, asks_for_answers: bool) -> String {
        match self.topic {
            Some(stream) => format!("/publish/{}", recording.topics[usize::from(stream)]),
            None if asks_for_answers => "/publish?ack=1".to_owned(),
            None => "/publish".to_owned(),
        }
    }
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
    books: Option<PublishersBooks>,
}

impl RecordedSource {
    fn new(
        catalogue: Arc<Catalogue>,
        shared: Arc<Shared>,
        part: Part,
        books: Option<PublishersBooks>,
    ) -> Self {
        let masks = masks(part.topic.map_or(u64::MAX, u64::from));
        let (line, tally) = (Vec::new(), Tally::default());
        Self { catalogue, shared, part, next: 0, masks, line, tally, books }
    }

    fn has_begun(&self) -> bool {
        self.shared.start_ns() != NEVER
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
            let _ = write!(self.line, "{{\"topic\":\"{topic}\",");
            let books = self.books.as_mut();
            if let Some(update_id) = books.and_then(|books| books.apply(message)) {
                let _ = write!(self.line, "\"pub_seq\":{update_id},");
            }
            self.line.extend_from_slice(b"\"data\":");
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
        let due_ns = self.intended_ns(self.next, now_ns);
        match &self.books {
            Some(books) if due_ns != NEVER => due_ns.min(books.due_ns(self.shared.start_ns())),
            Some(books) if self.has_begun() && books.has_last() => now_ns,
            _ => due_ns,
        }
    }

    fn fill(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        while out.len() < SEND_BYTES_MAX {
            let intended_ns = self.intended_ns(self.next, now_ns);
            if let Some(books) = &mut self.books
                && let Some(snapshot) = books.next(intended_ns, now_ns, self.shared.start_ns())
            {
                if let Some(line) = books.line(snapshot, &self.catalogue.recording.topics) {
                    let mask = self.masks.next_u32().to_ne_bytes();
                    write_message(out, Opcode::Text, &line, Some(mask));
                    self.tally.snapshots += 1;
                }
                continue;
            }
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
        self.has_begun()
            && self.intended_ns(self.next, now_ns) == NEVER
            && !self.books.as_ref().is_some_and(PublishersBooks::has_last)
    }

    fn tally(&self, now_ns: u64) -> Tally {
        let rest = self.next..self.part.messages.len();
        let is_due = |place: &usize| self.intended_ns(*place, now_ns) < now_ns;
        Tally { unsent: rest.take_while(is_due).count() as u64, ..self.tally.clone() }
    }
}
