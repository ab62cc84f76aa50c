//! How a request on the admin port reaches the shards: a bounded queue to the mesh's own task.
//!
//! Knows: commands, deadlines, and that there is a bound. Must not know: HTTP, the mesh.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use uringcast_protocol::command::ErrorCode;

use super::asks::{ASKS_MAX, FromShard, Published};
use crate::{mail::Question, publication::PayloadContent};

/// What the mesh's task is to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Ask all shards.
    Ask { question: Question, reply: oneshot::Sender<Vec<FromShard>> },
    /// Have all shards forget a topic.
    Delete { topic: Box<str>, reply: oneshot::Sender<Vec<FromShard>> },
    /// Have a topic's home order this.
    Publish { publication: Draft, reply: oneshot::Sender<Result<Published, ErrorCode>> },
}

/// A publication before it has a place.
#[derive(Debug)]
pub(super) struct Draft {
    /// A valid name.
    pub(super) topic: Box<str>,
    pub(super) content: PayloadContent,
    pub(super) payload: Bytes,
    pub(super) pub_seq: Option<u64>,
    pub(super) snapshot: bool,
}

/// Why there is no answer from the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Too much is outstanding; nothing was done.
    Busy,
    /// Not within the deadline; a publication or deletion may have happened or happen yet.
    Late,
}

/// The handlers' end. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    commands: mpsc::Sender<Command>,
    outstanding: Arc<Semaphore>,
}

/// A publication on its way; [`Pending::verdict`] waits for it.
#[derive(Debug)]
pub(super) struct Pending {
    verdict: oneshot::Receiver<Result<Published, ErrorCode>>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

/// Both ends.
pub(super) fn proxy() -> (Proxy, mpsc::Receiver<Command>) {
    let (commands, receiver) = mpsc::channel(ASKS_MAX);
    (Proxy { commands, outstanding: Arc::new(Semaphore::new(ASKS_MAX)) }, receiver)
}

impl Proxy {
    /// Sends a publication off. Those of one topic are ordered as they are sent.
    pub(super) fn publish(&self, publication: Draft) -> Result<Pending, NoAnswer> {
        let permit = self.permit()?;
        let (reply, verdict) = oneshot::channel();
        self.send(Command::Publish { publication, reply })?;
        Ok(Pending { verdict, _permit: permit })
    }

    /// All shards' answers, in any order.
    pub(super) async fn ask(&self, question: Question) -> Result<Vec<FromShard>, NoAnswer> {
        self.gather(|reply| Command::Ask { question, reply }).await
    }

    /// All shards' answers to the order to forget a topic.
    pub(super) async fn delete(&self, topic: Box<str>) -> Result<Vec<FromShard>, NoAnswer> {
        self.gather(|reply| Command::Delete { topic, reply }).await
    }

    async fn gather(
        &self,
        command: impl FnOnce(oneshot::Sender<Vec<FromShard>>) -> Command,
    ) -> Result<Vec<FromShard>, NoAnswer> {
        let _permit = self.permit()?;
        let (reply, answers) = oneshot::channel();
        self.send(command(reply))?;
        in_time(answers).await
    }

    fn permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, NoAnswer> {
        Arc::clone(&self.outstanding).try_acquire_owned().map_err(|_| NoAnswer::Busy)
    }

    fn send(&self, command: Command) -> Result<(), NoAnswer> {
        self.commands.try_send(command).map_err(|_| NoAnswer::Busy)
    }
}

impl Pending {
    /// The home shard's verdict.
    pub(super) async fn verdict(self) -> Result<Result<Published, ErrorCode>, NoAnswer> {
        in_time(self.verdict).await
    }
}

async fn in_time<T>(answer: oneshot::Receiver<T>) -> Result<T, NoAnswer> {
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        // The mesh's task dropped the sender: it had no room.
        Ok(Err(_)) => Err(NoAnswer::Busy),
        Err(_) => Err(NoAnswer::Late),
    }
}

/// A shard that takes longer than this over an answer is in trouble that its metrics show.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
