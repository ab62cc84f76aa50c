//! The plain floor: one frame per send, to each subscriber in turn, and nothing else.
//!
//! Knows: frames in the order they came, and what is left over for sockets that were full. Must not
//! know: topics, lag rules.

use std::{collections::VecDeque, error::Error};

use arrayvec::ArrayVec;
use uringcast_ring::{Io, Ring, Send, SendOutcome, Slot};

use crate::floor::{Fanout, Masked, Outcome};

/// The plain floor.
#[derive(Debug, Default)]
pub struct Plain {
    /// The first is on its way to the subscribers.
    frames: VecDeque<Vec<u8>>,
    /// Frames that have been sent to all, to be written to again.
    spare: Vec<Vec<u8>>,
    subscribers: Vec<Slot>,
    /// INVARIANT: at most the number of subscribers: who gets the first frame next.
    next: usize,
    /// By slot: what could not be sent to it, in order. Empty for almost all.
    backlogs: Vec<Backlog>,
    /// Can be sent to again.
    writable: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Backlog {
    bytes: Vec<u8>,
    /// The socket is full, or its turn among [`Plain::writable`] has not come.
    blocked: bool,
}

impl Plain {
    /// Nobody, nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn visit_writable(
        &mut self,
        io: &mut Ring,
        outcome: &mut Outcome,
    ) -> Result<(), Box<dyn Error>> {
        let from = self.writable.len().saturating_sub(BATCH);
        let batch: ArrayVec<Slot, BATCH> = self.writable.drain(from..).collect();
        {
            let send = |&slot: &Slot| Send { slot, bytes: &self.backlogs[slot.0 as usize].bytes };
            let sends: ArrayVec<Send<'_>, BATCH> = batch.iter().map(send).collect();
            io.send(&sends, &mut outcome.troubles)?;
        }
        let mut troubles = outcome.troubles.iter().peekable();
        for (index, &slot) in batch.iter().enumerate() {
            let backlog = &mut self.backlogs[slot.0 as usize];
            let trouble = troubles.next_if(|trouble| trouble.index as usize == index);
            match trouble.map(|trouble| trouble.outcome) {
                None => {
                    // Its memory goes too: such a subscriber is rare.
                    *backlog = Backlog::default();
                }
                Some(SendOutcome::Dead(_)) => outcome.dead.push(slot),
                Some(SendOutcome::Full) => outcome.blocked.push(slot),
                Some(SendOutcome::Short(bytes)) => {
                    backlog.bytes.drain(..bytes as usize);
                    outcome.blocked.push(slot);
                }
            }
        }
        Ok(())
    }

    fn visit_subscribers(
        &mut self,
        io: &mut Ring,
        outcome: &mut Outcome,
    ) -> Result<(), Box<dyn Error>> {
        let Some(frame) = self.frames.front() else { return Ok(()) };
        let mut batch: ArrayVec<Send<'_>, BATCH> = ArrayVec::new();
        while let Some(&slot) = self.subscribers.get(self.next)
            && !batch.is_full()
        {
            self.next += 1;
            let backlog = &mut self.backlogs[slot.0 as usize];
            if !backlog.blocked {
                batch.push(Send { slot, bytes: frame });
            } else if backlog.bytes.len() + frame.len() <= BACKLOG_BYTES_MAX {
                backlog.bytes.extend_from_slice(frame);
            } else {
                outcome.dead.push(slot);
            }
        }
        io.send(&batch, &mut outcome.troubles)?;
        for trouble in &outcome.troubles {
            let slot = batch[trouble.index as usize].slot;
            let taken = match trouble.outcome {
                SendOutcome::Dead(_) => {
                    outcome.dead.push(slot);
                    continue;
                }
                SendOutcome::Full => 0,
                SendOutcome::Short(bytes) => bytes as usize,
            };
            let backlog = &mut self.backlogs[slot.0 as usize];
            backlog.blocked = true;
            backlog.bytes.extend_from_slice(&frame[taken..]);
            outcome.blocked.push(slot);
        }
        drop(batch);
        if self.next == self.subscribers.len() {
            self.next = 0;
            self.spare.extend(self.frames.pop_front());
        }
        Ok(())
    }
}

impl Fanout for Plain {
    fn add(&mut self, slot: Slot) {
        let index = slot.0 as usize;
        if self.backlogs.len() <= index {
            self.backlogs.resize_with(index + 1, Backlog::default);
        }
        self.backlogs[index] = Backlog::default();
        self.subscribers.push(slot);
    }

    fn remove(&mut self, slot: Slot) {
        let Some(place) = self.subscribers.iter().position(|&subscriber| subscriber == slot) else {
            return;
        };
        self.subscribers.remove(place);
        if place < self.next {
            self.next -= 1;
        }
        self.writable.retain(|&writable| writable != slot);
        self.backlogs[slot.0 as usize] = Backlog::default();
        if self.subscribers.is_empty() {
            self.frames.clear();
        }
    }

    fn writable(&mut self, slot: Slot) {
        self.writable.push(slot);
    }

    fn publish(&mut self, header: &[u8], payload: Masked<'_>) {
        if self.subscribers.is_empty() {
            return;
        }
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        frame.extend_from_slice(header);
        frame.resize(header.len() + payload.len(), 0);
        payload.unmask_into(&mut frame[header.len()..]);
        self.frames.push_back(frame);
    }

    fn visit(&mut self, io: &mut Ring, outcome: &mut Outcome) -> Result<(), Box<dyn Error>> {
        if !self.writable.is_empty() {
            self.visit_writable(io, outcome)?;
        }
        self.visit_subscribers(io, outcome)
    }

    fn is_behind(&self) -> bool {
        !self.frames.is_empty() || !self.writable.is_empty()
    }

    fn is_full(&self) -> bool {
        self.frames.len() > FRAMES_MAX
    }
}

/// Sends per enter.
const BATCH: usize = 256;
/// A subscriber with more waiting is closed.
const BACKLOG_BYTES_MAX: usize = 4 << 20;
/// Publishers are held above so many.
const FRAMES_MAX: usize = 4096;
