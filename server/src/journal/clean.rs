//! Segments that go: the oldest, once nothing in it is needed or what is needed is copied forward.
//!
//! Knows: which segment goes when, and what of it is copied. Must not know: how files are read or
//! deleted.
//!
//! Always the oldest, so that a record which ends what older ones say is never gone before them.

use tracing::warn;

use super::{
    core::Core,
    ledger::{Need, Place, SnapshotId},
    record::Record,
    segment::Records,
};

/// What is known for deciding.
#[derive(Debug, Default)]
pub(super) struct Tidiness {
    /// Bytes added since the last segment was read for copying; copies do not count, lest copying
    /// causes copying.
    fresh_bytes: u64,
    /// Nearly all that the last segment held had to be copied although there was too much.
    in_vain: bool,
}

impl Tidiness {
    pub(super) fn added(&mut self, bytes: usize) {
        self.fresh_bytes += bytes as u64;
    }

    pub(super) fn copied(&mut self, bytes: usize) {
        self.fresh_bytes = self.fresh_bytes.saturating_sub(bytes as u64);
    }
}

/// What is to be done with the oldest segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Nothing,
    /// Delete it, once what makes it unneeded is on the disk.
    Remove {
        number: u64,
    },
    /// Read it, and copy forward what is needed.
    Copy {
        number: u64,
        mode: Mode,
    },
}

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// All that is needed.
    All,
    /// Last values and snapshots: the journal is too large, and old history goes first.
    States,
    /// Only that topics are there: last values alone are too much.
    Names,
}

/// A segment that is being copied from.
#[derive(Debug)]
pub(super) struct Cleaning {
    pub(super) number: u64,
    mode: Mode,
    bytes: Vec<u8>,
    at: usize,
    copied_bytes: u64,
    /// All is copied; it goes when the copies up to this chunk are on the disk.
    pub(super) waits_for: Option<u64>,
}

impl Cleaning {
    /// Of a segment that was read.
    pub(super) fn new(number: u64, mode: Mode, bytes: Vec<u8>) -> Self {
        let at = super::segment::HEADER_BYTES;
        Self { number, mode, bytes, at, copied_bytes: 0, waits_for: None }
    }

    /// Of a segment that nothing is needed of, once all up to this chunk is on the disk.
    pub(super) fn removing(number: u64, chunk: u64) -> Self {
        let waits_for = Some(chunk);
        Self { waits_for, ..Self::new(number, Mode::All, Vec::new()) }
    }
}

impl Core {
    /// What is to be done about the oldest segment.
    pub(super) fn plan_cleaning(&self, now_us: u64) -> Plan {
        let Some(oldest) = self.shelf.oldest() else { return Plan::Nothing };
        let (number, bytes) = (oldest.number, oldest.bytes);
        if self.oldest_queued().is_some_and(|queued| queued <= number) {
            return Plan::Nothing;
        }
        let needed_bytes = oldest.needed_bytes(&self.ledger, now_us);
        if needed_bytes == 0 {
            return Plan::Remove { number };
        }
        // The current segment counts as what it will be.
        let current = self.shelf.segments.back().map_or(0, |current| current.bytes);
        let to_come = self.options.segment_bytes_max.saturating_sub(current);
        let total_bytes = self.shelf.bytes() + to_come;
        if total_bytes > self.options.bytes_max {
            let mode = if self.tidiness.in_vain { Mode::Names } else { Mode::States };
            return match oldest.unreadable {
                true => Plan::Remove { number },
                false => Plan::Copy { number, mode },
            };
        }
        let few = needed_bytes.saturating_mul(2) <= bytes;
        let crowded = total_bytes > self.options.bytes_max / 2;
        let due = self.tidiness.fresh_bytes >= self.options.segment_bytes_max / 2;
        if due && (few || crowded) && !oldest.unreadable {
            return Plan::Copy { number, mode: Mode::All };
        }
        Plan::Nothing
    }

    /// Copies a part of what is needed, as far as there is room. The segment can go when
    /// [`Cleaning::waits_for`] says so.
    pub(super) fn clean_some(&mut self, cleaning: &mut Cleaning, now_us: u64) {
        if cleaning.waits_for.is_some() {
            return;
        }
        let before = self.figures.copied.value();
        let bytes = std::mem::take(&mut cleaning.bytes);
        let mut records = Records::new(&bytes, cleaning.at);
        while records.at() - cleaning.at < STEP_BYTES {
            if self.is_crowded() {
                break;
            }
            let Ok((record, _, size)) = records.next() else {
                cleaning.waits_for = Some(self.newest_chunk());
                break;
            };
            let copied = self.figures.copied.value();
            self.keep_record(&record, cleaning, now_us);
            cleaning.copied_bytes += (self.figures.copied.value() - copied) * size as u64;
        }
        cleaning.at = records.at();
        cleaning.bytes = bytes;
        if self.figures.copied.value() > before {
            self.show();
        }
    }

    fn keep_record(&mut self, record: &Record<'_>, cleaning: &Cleaning, now_us: u64) {
        let Some(id) = self.ledger.find(record.topic()) else { return };
        let Some(topic) = self.ledger.topic(id) else { return };
        let states = cleaning.mode != Mode::Names;
        match *record {
            // What it says now stands for what it said then.
            Record::Topic { .. } if [0, cleaning.number].contains(&topic.announced_in) => {
                self.introduce(id, 0);
            }
            Record::Publication { ref head, sum, .. } => {
                let (epoch, seq, ts_us) = (head.epoch, head.seq, head.ts_us);
                let place = Place { epoch, seq, ts_us, sum };
                match topic.need(&place, now_us) {
                    Need::State if states => self.copy(id, record, Some(place)),
                    Need::History if cleaning.mode == Mode::All => {
                        self.copy(id, record, Some(place));
                    }
                    _ => {}
                }
            }
            Record::Snapshot { ref head, .. } => {
                if states && topic.needs_snapshot(&SnapshotId::of(head)) {
                    self.copy(id, record, None);
                }
            }
            // Ends and deletions are of older records, which are gone. What an end says stands in the
            // topic's own record, since that is always in a segment as new, or is written anew.
            Record::Topic { .. } | Record::End { .. } | Record::Forget { .. } => {}
        }
    }

    /// The oldest segment was deleted.
    pub(super) fn removed(&mut self, cleaning: &Cleaning) {
        let segment = cleaning.number;
        if self.shelf.oldest().is_some_and(|oldest| oldest.number == segment)
            && let Some(gone) = self.shelf.segments.pop_front()
        {
            let in_vain = cleaning.copied_bytes * 4 > gone.bytes * 3;
            self.tidiness.in_vain = in_vain && cleaning.mode == Mode::States;
            if cleaning.mode == Mode::Names {
                warn!(
                    segment,
                    "last values alone pass --journal-bytes-max; the oldest are no longer kept"
                );
            }
        }
        self.show();
    }

    /// A segment is going to be read for copying.
    pub(super) fn begin_cleaning(&mut self) {
        self.tidiness.fresh_bytes = 0;
    }

    /// The oldest segment could not be read: it stays until there is too much.
    pub(super) fn unreadable(&mut self, number: u64, reason: &std::io::Error) {
        self.figures.errors.add(1);
        warn!(segment = number, %reason, "an old segment of the journal can't be read");
        if let Some(oldest) = self.shelf.segments.front_mut().filter(|of| of.number == number) {
            oldest.unreadable = true;
        }
    }
}

/// Records looked at before other tasks have their turn, bytes.
const STEP_BYTES: usize = 1 << 20;
