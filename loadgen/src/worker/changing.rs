//! Subscribers that change what they watch, when it is time.
//!
//! Knows: whose turn it is, the ring. Must not know: topics, answers (the judge does).

use rand::RngExt as _;
use uringcast_protocol::Opcode;
use uringcast_protocol::writer::write_message;

use super::{Worker, WorkerError};
use crate::client::State;
use crate::shared::Phase;
use crate::source::NEVER;

impl Worker {
    /// When the next change is due, ns.
    pub(super) fn change_due_ns(&self) -> u64 {
        match &self.outcome.judge.changes {
            Some(changes) if self.phase == Phase::Running => changes.due_ns(),
            _ => NEVER,
        }
    }

    /// Sends the changes that are due, and looks at what has come in between.
    pub(super) fn change(&mut self, now: u64) -> Result<(), WorkerError> {
        if self.change_due_ns() > now {
            return Ok(());
        }
        for _ in 0..CHANGES_PER_TURN {
            let (judge, clients) = (&mut self.outcome.judge, &self.clients);
            let Some(changes) = &mut judge.changes else { break };
            let is_open = |index: u32| matches!(clients[index as usize].state, State::Open);
            let Some((index, words)) = changes.ask(now, &judge.ledger, is_open) else { break };
            let mut frames = Vec::with_capacity(160);
            for word in words {
                write_message(
                    &mut frames,
                    Opcode::Text,
                    word.as_bytes(),
                    Some(self.random.random()),
                );
            }
            self.queue(self.socket(index), &frames)?;
        }
        Ok(())
    }
}

/// Changes begun before completions are looked at again.
const CHANGES_PER_TURN: u32 = 64;
