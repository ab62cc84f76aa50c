//! Where publications come from: what is due when, as frames ready to send.
//!
//! Knows: schedules, payloads, the closed loop's window. Must not know: sockets, subscribers.

use std::sync::Arc;

use hdrhistogram::Histogram;
use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng as _;

use crate::clock::NANOS_PER_MILLI;
use crate::payload::Payload;
use crate::plan::Schedule;
use crate::rate::first_not;
use crate::shared::Shared;
use crate::stamp::Stamp;

/// One publisher's publications.
pub(crate) trait Source: Send {
    /// When the next one is due, ns; [`NEVER`] if there is none for now.
    fn due_ns(&mut self, now_ns: u64) -> u64;

    /// Appends the frames of all that is due, up to about [`SEND_BYTES_MAX`].
    fn fill(&mut self, now_ns: u64, out: &mut Vec<u8>);

    /// Nothing will ever be due again.
    fn is_done(&self, now_ns: u64) -> bool;

    /// How it went. Publications due by `now_ns` and not sent are counted.
    fn tally(&self, now_ns: u64) -> Tally;

    /// The server has answered a request, if it is requests that are sent.
    fn answered(&mut self) {}

    /// No further answer will come: returns how many are missing.
    fn abandon(&mut self) -> u64 {
        0
    }
}

/// How a publisher did.
#[derive(Clone, Debug, Default, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct Tally {
    /// Publications given to the kernel.
    pub(crate) published: u64,
    /// Of these, more than a millisecond after their time.
    pub(crate) late: u64,
    /// The latest of them, ns.
    pub(crate) late_ns_max: u64,
    /// Due, and never sent: the server did not take them.
    pub(crate) unsent: u64,
    /// Snapshots of order books given to the kernel, none of them among the above.
    pub(crate) snapshots: u64,
    /// How late each publication was, ns.
    #[serde(skip)]
    pub(crate) lateness: Option<Box<Histogram<u64>>>,
}

impl Tally {
    /// Counts one publication.
    pub(crate) fn note(&mut self, intended_ns: u64, now_ns: u64) {
        let late_ns = now_ns.saturating_sub(intended_ns);
        self.published += 1;
        self.late += u64::from(late_ns > NANOS_PER_MILLI);
        self.late_ns_max = self.late_ns_max.max(late_ns);
        self.lateness.get_or_insert_with(lateness).saturating_record(late_ns);
    }

    /// Adds another publisher's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.published += other.published;
        self.late += other.late;
        self.late_ns_max = self.late_ns_max.max(other.late_ns_max);
        self.unsent += other.unsent;
        self.snapshots += other.snapshots;
        if let Some(others) = &other.lateness {
            let own = self.lateness.get_or_insert_with(lateness);
            own.add(others.as_ref()).expect("all are made by `lateness`, with the same bounds");
        }
    }
}

/// An empty histogram of nanoseconds, 1 µs to 20 minutes, of two digits: every publisher has one.
fn lateness() -> Box<Histogram<u64>> {
    let histogram = Histogram::new_with_bounds(1000, 1200 * 1_000_000_000, 2);
    Box::new(histogram.expect("constant bounds that hdrhistogram allows"))
}

/// When the next publication is due.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// At set times, whatever the server does.
    Open(Schedule),
    /// As long as fewer than so many have not been received by every subscriber.
    Closed { outstanding: u64 },
}

/// Stamped payloads of one size.
pub(crate) struct StampedSource {
    pace: Pace,
    stream: u16,
    shared: Arc<Shared>,
    payload: Payload,
    masks: Pcg32,
    next: u64,
    tally: Tally,
}

impl StampedSource {
    pub(crate) fn new(pace: Pace, stream: u16, shared: Arc<Shared>, payload: Payload) -> Self {
        Self {
            pace,
            stream,
            shared,
            payload,
            masks: masks(u64::from(stream)),
            next: 0,
            tally: Tally::default(),
        }
    }

    /// As [`Source::fill`], and no more than `most`; returns how many.
    pub(crate) fn fill_up_to(&mut self, now_ns: u64, out: &mut Vec<u8>, most: u64) -> u64 {
        let first = self.next;
        while out.len() < SEND_BYTES_MAX && self.next - first < most {
            let intended_ns = self.due_ns(now_ns);
            if intended_ns > now_ns {
                break;
            }
            let stamp =
                Stamp { stream: self.stream, number: self.next, intended_ns, sent_ns: now_ns };
            let mask = self.masks.next_u32().to_ne_bytes();
            self.payload.write(&stamp, mask, out);
            self.tally.note(intended_ns, now_ns);
            self.next += 1;
        }
        self.shared.set_published(self.stream, self.next);
        self.next - first
    }

    /// When publication `number` is due, or `now_ns` in a closed loop that has room for it.
    fn intended_ns(&self, number: u64, now_ns: u64) -> u64 {
        let start_ns = self.shared.start_ns();
        match self.pace {
            Pace::Open(schedule) => start_ns.saturating_add(schedule.offset_ns(number)),
            Pace::Closed { .. } if now_ns < start_ns => start_ns,
            Pace::Closed { outstanding }
                if number < self.shared.seen_by_all().saturating_add(outstanding) =>
            {
                now_ns
            }
            Pace::Closed { .. } => NEVER,
        }
    }
}

impl Source for StampedSource {
    fn due_ns(&mut self, now_ns: u64) -> u64 {
        let intended_ns = self.intended_ns(self.next, now_ns);
        if intended_ns < self.shared.end_ns() { intended_ns } else { NEVER }
    }

    fn fill(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        self.fill_up_to(now_ns, out, u64::MAX);
    }

    fn is_done(&self, now_ns: u64) -> bool {
        match self.pace {
            Pace::Open(_) => self.intended_ns(self.next, now_ns) >= self.shared.end_ns(),
            Pace::Closed { .. } => now_ns >= self.shared.end_ns(),
        }
    }

    fn tally(&self, now_ns: u64) -> Tally {
        let mut tally = self.tally.clone();
        if let Pace::Open(schedule) = self.pace {
            let due_by = now_ns.min(self.shared.end_ns());
            let start_ns = self.shared.start_ns();
            let is_due = |number: u64| start_ns.saturating_add(schedule.offset_ns(number)) < due_by;
            tally.unsent = first_not(self.next, is_due) - self.next;
        }
        tally
    }
}

/// A generator of masking keys. RFC 6455 section 5.3 wants them unpredictable, against scripts
/// that choose the payload; here both are ours.
pub(crate) fn masks(stream: u64) -> Pcg32 {
    Pcg32::new(0x9E37_79B9_7F4A_7C15, stream)
}

/// Nothing is due.
pub(crate) const NEVER: u64 = u64::MAX;
/// Frames are put into one send up to this size, bytes.
pub(crate) const SEND_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use uringcast_protocol::Opcode;

    use super::*;
    use crate::burst::Burst;
    use crate::rate::Rate;

    fn source(pace: Pace) -> (StampedSource, Arc<Shared>) {
        let shared = Arc::new(Shared::new(1, 1).expect("an eventfd"));
        let payload = Payload::message(128, None, Opcode::Text);
        (StampedSource::new(pace, 0, Arc::clone(&shared), payload), shared)
    }

    fn constant(per_s: f64, count: Option<u64>) -> Schedule {
        Schedule {
            rate: Rate::constant(per_s),
            burst: Burst::NONE,
            count,
            publishers: 1,
            publisher: 0,
        }
    }

    #[test]
    fn a_counted_schedule_ends_by_itself() {
        let (mut source, shared) = source(Pace::Open(constant(1000.0, Some(3))));
        shared.set_window(1_000_000, u64::MAX);
        assert!(!source.is_done(1_000_000));
        assert_eq!(source.tally(99_000_000).unsent, 3);
        source.fill(2_000_000, &mut Vec::new());
        assert_eq!((shared.published(0), source.due_ns(2_000_000)), (2, 3_000_000));
        source.fill(99_000_000, &mut Vec::new());
        assert_eq!((shared.published(0), source.due_ns(99_000_000)), (3, NEVER));
        assert!(source.is_done(99_000_000));
        assert_eq!(source.tally(99_000_000).unsent, 0);
    }

    #[test]
    fn overdue_publications_go_at_once_and_keep_their_own_times() {
        let schedule = constant(1000.0, None);
        let (mut source, shared) = source(Pace::Open(schedule));
        assert_eq!(source.due_ns(5), NEVER);
        shared.set_window(1_000_000, 11_000_000);
        assert_eq!(source.due_ns(5), 1_000_000);
        let mut out = Vec::new();
        source.fill(5_500_000, &mut out);
        assert_eq!(shared.published(0), 5);
        assert_eq!(source.due_ns(5_500_000), 6_000_000);
        assert_eq!(source.tally(9_500_000).unsent, 4);
        assert_eq!(source.tally(99_500_000).unsent, 5);
        assert_eq!(source.tally(0).late, 4);
        source.fill(99_000_000, &mut out);
        assert_eq!(shared.published(0), 10);
        assert!(source.is_done(99_000_000));
        assert_eq!(source.tally(99_000_000).unsent, 0);
    }

    #[test]
    fn a_closed_loop_waits_for_every_subscriber() {
        let (mut source, shared) = source(Pace::Closed { outstanding: 2 });
        shared.set_window(100, 1000);
        shared.progress[0].seen_by_all.store(0, std::sync::atomic::Ordering::Release);
        assert_eq!(source.due_ns(50), 100);
        source.fill(200, &mut Vec::new());
        assert_eq!(shared.published(0), 2);
        assert_eq!(source.due_ns(300), NEVER);
        shared.progress[0].seen_by_all.store(1, std::sync::atomic::Ordering::Release);
        assert_eq!(source.due_ns(300), 300);
        assert!(!source.is_done(300) && source.is_done(1000));
    }
}
