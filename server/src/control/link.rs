//! The control thread's node of the mesh: commands become mail, mail becomes answers.
//!
//! Knows: the mesh, where topics are at home, what is outstanding. Must not know: HTTP.

use std::{cell::Cell, collections::VecDeque, os::fd::OwnedFd, rc::Rc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    task::yield_now,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{error, warn};
use uringcast_mesh::{Node, Wake};
use uringcast_protocol::command::ErrorCode;
use uringcast_ring::{WakeHandle, pool::Pool};

use super::{
    asks::{Asks, Published},
    proxy::{Command, Draft},
};
use crate::{
    home::{home_of, topic_hash},
    ids::NodeId,
    journal::Intake,
    mail::{Ingest, Mail, Origin, Publisher, Refusal},
    payload, publication,
};

/// The mesh's task.
pub(super) struct Link {
    node: Node<Mail>,
    /// By shard.
    bells: Vec<WakeHandle>,
    /// By shard: mail that found its ring full, in order, at most [`PARKED_MAX`] publications.
    parked: Vec<VecDeque<Mail>>,
    asks: Asks,
    pool: Pool,
    commands: mpsc::Receiver<Command>,
    hash_seed: u64,
    /// Where entries for the journal go.
    journal: Option<Intake>,
    rests: Rests,
}

/// How often the mesh's task came to rest, all its mail read.
#[derive(Clone, Default)]
pub(super) struct Rests(Rc<Cell<u64>>);

impl Rests {
    /// Waits until all mail is read that is there now; not for ever.
    pub(super) async fn next(&self, rung: &Notify) {
        let before = self.0.get();
        for _ in 0..REST_TRIES {
            rung.notify_one();
            sleep(RETRY_INTERVAL).await;
            if self.0.get() > before {
                return;
            }
        }
    }
}

impl Link {
    pub(super) fn new(
        node: Node<Mail>,
        bells: Vec<WakeHandle>,
        commands: mpsc::Receiver<Command>,
        hash_seed: u64,
        journal: Option<Intake>,
    ) -> Self {
        let parked = bells.iter().map(|_| VecDeque::new()).collect();
        let (asks, pool) = (Asks::default(), Pool::unregistered());
        let rests = Rests::default();
        Self { node, bells, parked, asks, pool, commands, hash_seed, journal, rests }
    }

    pub(super) fn rests(&self) -> Rests {
        self.rests.clone()
    }

    /// Runs until nobody can send commands any more.
    pub(super) async fn run(mut self, rung: Rc<Notify>) {
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let received = self.receive();
            let commands = self.take_commands();
            self.send_parked();
            if received + commands > 0 || !self.node.prepare_sleep() {
                yield_now().await;
                continue;
            }
            self.rests.0.set(self.rests.0.get() + 1);
            let parked = self.parked.iter().any(|queue| !queue.is_empty());
            tokio::select! {
                () = rung.notified() => {}
                command = self.commands.recv() => match command {
                    Some(command) => self.carry_out(command),
                    None => return,
                },
                _ = sweep.tick() => self.asks.sweep(),
                // No bell tells that a full ring has room again.
                () = sleep(RETRY_INTERVAL), if parked => {}
            }
            self.node.awake();
        }
    }

    fn receive(&mut self) -> usize {
        let (asks, journal) = (&mut self.asks, &self.journal);
        self.node.receive(RECEIVE_BUDGET, |from, mail| match mail {
            Mail::Published { ticket, epoch, seq, snapshot_wanted } => {
                asks.published(ticket, Published { epoch, seq, duplicate: false, snapshot_wanted });
            }
            Mail::Refused {
                origin: Origin { publisher: Publisher::Request { ticket }, .. },
                refusal,
            } => {
                asks.refused(ticket, refusal);
            }
            Mail::Answer { ticket, answer } => {
                asks.answered(ticket, from, answer);
            }
            Mail::Journal(entry) => {
                if let Some(journal) = journal {
                    journal.take(&entry);
                }
            }
            other => warn!(shard = from, ?other, "mail that is not for the control thread"),
        })
    }

    fn take_commands(&mut self) -> usize {
        for taken in 0..COMMAND_BUDGET {
            match self.commands.try_recv() {
                Ok(command) => self.carry_out(command),
                Err(_) => return taken,
            }
        }
        COMMAND_BUDGET
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Ask { question, reply } => {
                if let Some(ticket) = self.asks.gather(self.bells.len(), reply) {
                    self.send_all(|| Mail::Ask { ticket, question: question.clone() });
                }
            }
            Command::Delete { topic, reply } => {
                if let Some(ticket) = self.asks.gather(self.bells.len(), reply) {
                    self.send_all(|| Mail::DeleteTopic { topic: topic.clone(), ticket });
                }
            }
            Command::Publish { publication, reply } => {
                if let Some(ticket) = self.asks.publish(reply)
                    && let Err(code) = self.publish(publication, ticket)
                {
                    self.asks.refused(ticket, Refusal::Code(code));
                }
            }
        }
    }

    fn publish(&mut self, draft: Draft, ticket: u64) -> Result<(), ErrorCode> {
        let hash = topic_hash(self.hash_seed, &draft.topic);
        let home = usize::from(home_of(hash, self.bells.len()).0);
        if self.parked[home].len() >= PARKED_MAX {
            return Err(ErrorCode::Busy);
        }
        let lease = publication::draft(
            &mut self.pool,
            &draft.topic,
            hash,
            draft.content,
            payload::opcode(draft.content),
            &draft.payload,
        )
        .map_err(|_| ErrorCode::Busy)?;
        let node = u16::try_from(self.node.id()).expect("a mesh has at most 65 nodes");
        let origin = Origin { node: NodeId(node), publisher: Publisher::Request { ticket } };
        self.send(
            home,
            Mail::Ingest(Ingest {
                lease,
                origin,
                pub_seq: draft.pub_seq,
                snapshot: draft.snapshot,
            }),
        );
        Ok(())
    }

    fn send_all(&mut self, mail: impl Fn() -> Mail) {
        for shard in 0..self.bells.len() {
            self.send(shard, mail());
        }
    }

    /// In order: mail to a shard that has parked mail is parked behind it.
    fn send(&mut self, shard: usize, mail: Mail) {
        if !self.parked[shard].is_empty() {
            return self.parked[shard].push_back(mail);
        }
        if let Err(mail) = self.try_send(shard, mail) {
            self.parked[shard].push_back(mail);
        }
    }

    fn send_parked(&mut self) {
        for shard in 0..self.parked.len() {
            while let Some(mail) = self.parked[shard].pop_front() {
                if let Err(mail) = self.try_send(shard, mail) {
                    self.parked[shard].push_front(mail);
                    break;
                }
            }
        }
    }

    fn try_send(&mut self, shard: usize, mail: Mail) -> Result<(), Mail> {
        if self.node.send(shard, mail)? == Wake::Needed {
            self.bells[shard].ring_bell();
        }
        Ok(())
    }
}

/// Reads the eventfd for ever, and passes each ringing on. A task of its own: a read that was given
/// up half-way would swallow the ringing.
pub(super) async fn listen(bell: OwnedFd, rung: Rc<Notify>) {
    let bell = tokio_uring::fs::File::from_std(bell.into());
    let mut buffer = Vec::with_capacity(8);
    loop {
        // An eventfd has no offset; a read sets its counter to 0.
        let (read, filled) = bell.read_at(buffer, 0).await;
        buffer = filled;
        if let Err(error) = read {
            // An eventfd's errors are bugs; without the bell, the sweep still wakes the mesh's task.
            error!(%error, "reading the control thread's eventfd");
            sleep(SWEEP_INTERVAL).await;
        }
        rung.notify_one();
    }
}

/// Mail taken before other tasks have their turn.
const RECEIVE_BUDGET: usize = 256;
const COMMAND_BUDGET: usize = 64;
/// Publications that may wait for one shard's ring; more are refused.
const PARKED_MAX: usize = 1_024;
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// A second of retries.
const REST_TRIES: u32 = 1_000;
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
