//! The bare lane: one log of bytes, a cursor per subscriber, and one send of everything between the
//! two.
//!
//! Knows: the log, the cursors, whose turn it is. Must not know: frames, topics, lag rules.
//!
//! Positions count bytes since the beginning and never step back; the log holds those from `base`
//! on. When everybody has everything the log begins anew, so that in good times a few pages of it
//! stay in the cache.

use std::error::Error;

use arrayvec::ArrayVec;
use uringcast_ring::{Io, Ring, Send, SendOutcome, Slot};

use crate::floor::{Fanout, Masked, Outcome};

/// The bare lane.
#[derive(Debug)]
pub struct Lane {
    log: Vec<u8>,
    /// The position of the log's first byte.
    base: u64,
    /// The position after the log's last byte.
    head: u64,
    subscribers: Vec<Slot>,
    /// By slot.
    cursors: Vec<Cursor>,
    /// INVARIANT: at most the number of subscribers: whose turn it is.
    turn: usize,
    /// How many subscribers have everything.
    caught_up: usize,
    /// How many sockets are full.
    blocked: usize,
    /// No cursor of a subscriber that is not blocked was before this when the turn last began anew.
    slowest: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    position: u64,
    /// INVARIANT: never of a subscriber that has everything.
    blocked: bool,
}

impl Lane {
    /// Nobody, nothing.
    pub fn new() -> Self {
        Self {
            log: vec![0; LOG_BYTES],
            base: 0,
            head: 0,
            subscribers: Vec::new(),
            cursors: Vec::new(),
            turn: 0,
            caught_up: 0,
            blocked: 0,
            slowest: 0,
        }
    }

    fn cursor(&mut self, slot: Slot) -> &mut Cursor {
        &mut self.cursors[slot.0 as usize]
    }

    /// Makes room for `bytes` at the log's end.
    fn make_room(&mut self, bytes: usize) {
        if self.caught_up == self.subscribers.len() {
            self.base = self.head;
            return;
        }
        let used = (self.head - self.base) as usize;
        if used + bytes <= LOG_BYTES {
            return;
        }
        // Whoever is further behind than this is skipped here and closed when it is visited next.
        let oldest = self.head.saturating_sub(LAG_BYTES_MAX);
        let cursors = self.subscribers.iter().map(|slot| self.cursors[slot.0 as usize].position);
        let keep = cursors.min().unwrap_or(self.head).max(oldest);
        let from = (keep - self.base) as usize;
        self.log.copy_within(from..used, 0);
        self.base = keep;
    }

    fn begin_anew(&mut self) {
        self.turn = 0;
        let cursors = self.subscribers.iter().map(|slot| self.cursors[slot.0 as usize]);
        let running = cursors.filter(|cursor| !cursor.blocked).map(|cursor| cursor.position);
        self.slowest = running.min().unwrap_or(self.head);
    }

    /// The next subscribers that want something.
    fn gather(&mut self, outcome: &mut Outcome) -> ArrayVec<Slot, BATCH> {
        let mut batch = ArrayVec::new();
        for _ in 0..self.subscribers.len() {
            if batch.is_full() || !self.is_behind() {
                break;
            }
            if self.turn == self.subscribers.len() {
                self.begin_anew();
            }
            let slot = self.subscribers[self.turn];
            self.turn += 1;
            let cursor = self.cursors[slot.0 as usize];
            if cursor.position < self.base {
                outcome.dead.push(slot);
            } else if !cursor.blocked && cursor.position < self.head {
                batch.push(slot);
            }
        }
        batch
    }

    fn range(&self, slot: Slot) -> &[u8] {
        let from = (self.cursors[slot.0 as usize].position - self.base) as usize;
        let to = (self.head - self.base) as usize;
        &self.log[from..to.min(from + SEND_BYTES_MAX)]
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self::new()
    }
}

impl Fanout for Lane {
    fn add(&mut self, slot: Slot) {
        let index = slot.0 as usize;
        if self.cursors.len() <= index {
            self.cursors.resize(index + 1, Cursor::default());
        }
        self.cursors[index] = Cursor { position: self.head, blocked: false };
        self.subscribers.push(slot);
        self.caught_up += 1;
    }

    fn remove(&mut self, slot: Slot) {
        let Some(place) = self.subscribers.iter().position(|&subscriber| subscriber == slot) else {
            return;
        };
        self.subscribers.remove(place);
        if place < self.turn {
            self.turn -= 1;
        }
        let cursor = *self.cursor(slot);
        self.blocked -= usize::from(cursor.blocked);
        self.caught_up -= usize::from(cursor.position == self.head);
    }

    fn writable(&mut self, slot: Slot) {
        let cursor = self.cursor(slot);
        if cursor.blocked {
            cursor.blocked = false;
            self.blocked -= 1;
        }
    }

    fn publish(&mut self, header: &[u8], payload: Masked<'_>) {
        if self.subscribers.is_empty() {
            return;
        }
        self.make_room(header.len() + payload.len());
        let start = (self.head - self.base) as usize;
        let payload_start = start + header.len();
        let end = payload_start + payload.len();
        self.log[start..payload_start].copy_from_slice(header);
        payload.unmask_into(&mut self.log[payload_start..end]);
        self.head = self.base + end as u64;
        self.caught_up = 0;
    }

    fn visit(&mut self, io: &mut Ring, outcome: &mut Outcome) -> Result<(), Box<dyn Error>> {
        if !self.is_behind() {
            return Ok(());
        }
        let batch = self.gather(outcome);
        {
            let send = |&slot| Send { slot, bytes: self.range(slot) };
            let sends: ArrayVec<Send<'_>, BATCH> = batch.iter().map(send).collect();
            io.send(&sends, &mut outcome.troubles)?;
        }
        let mut troubles = outcome.troubles.iter().peekable();
        for (index, &slot) in batch.iter().enumerate() {
            let cursor = &mut self.cursors[slot.0 as usize];
            let trouble = troubles.next_if(|trouble| trouble.index as usize == index);
            match trouble.map(|trouble| trouble.outcome) {
                None => {
                    cursor.position = self.head.min(cursor.position + SEND_BYTES_MAX as u64);
                    self.caught_up += usize::from(cursor.position == self.head);
                }
                Some(SendOutcome::Dead(_)) => outcome.dead.push(slot),
                Some(trouble) => {
                    if let SendOutcome::Short(bytes) = trouble {
                        cursor.position += u64::from(bytes);
                    }
                    cursor.blocked = true;
                    self.blocked += 1;
                    outcome.blocked.push(slot);
                }
            }
        }
        Ok(())
    }

    fn is_behind(&self) -> bool {
        self.caught_up + self.blocked < self.subscribers.len()
    }

    fn is_full(&self) -> bool {
        self.is_behind() && self.head.saturating_sub(self.slowest) > HOLD_BYTES
    }
}

/// Sends per enter.
const BATCH: usize = 256;
/// Bytes per send.
const SEND_BYTES_MAX: usize = 64 << 10;
/// The log.
const LOG_BYTES: usize = 64 << 20;
/// A subscriber further behind is closed.
const LAG_BYTES_MAX: u64 = LOG_BYTES as u64 / 2;
/// Publishers are held when a subscriber whose socket takes bytes is so far behind: that is us being
/// slow.
const HOLD_BYTES: u64 = LAG_BYTES_MAX / 2;
