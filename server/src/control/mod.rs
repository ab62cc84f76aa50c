//! The control plane: one thread beside the reactors, on a `tokio_uring` runtime.
//!
//! Knows: the admin port, signals, the mesh and what travels on it, shared counters. Must not know:
//! connections, topics' insides, rings.
//!
//! ```text
//! admin port ─ http ─ guard ─ api ─┐                     ┌─ shard 0
//!                                  proxy ── link ── mesh ┼─ …
//! signals ── life ── stage ────────┘ bells ──────────────┴─ shard n−1
//! ```

mod admin;
mod api;
mod asks;
mod bulk;
mod error;
mod guard;
mod http;
mod life;
mod link;
mod merge;
mod metrics;
mod page;
mod process;
mod proxy;
mod stats;

use std::{io, net::TcpListener, os::fd::OwnedFd, rc::Rc, sync::Arc};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::Notify;
use tracing::{error, info};
use uringcast_mesh::Node;
use uringcast_ring::WakeHandle;

pub use self::life::Outcome;
use self::{admin::Admin, link::Link};
use crate::{
    journal::{self, Journal, disk::UringDisk},
    logging::DroppedLines,
    mail::Mail,
    settings::Settings,
    shared::Shared,
};

/// What the control thread is given.
#[derive(Debug)]
pub struct ControlInput {
    /// The last node of the mesh: its number is how many shards there are.
    pub node: Node<Mail>,
    /// One per shard, in their order.
    pub bells: Vec<WakeHandle>,
    /// The eventfd ([`bell`]) that shards ring to wake this thread.
    pub bell: OwnedFd,
    /// Counters, stage and flags of all threads.
    pub shared: Arc<Shared>,
    /// Bounds and rules for what is published here.
    pub settings: Settings,
    /// The admin port.
    pub admin: TcpListener,
    /// Names besides addresses and localhost by which it may be asked for.
    pub admin_hosts: Vec<String>,
    /// Where the page finds `/ws`.
    pub data_port: u16,
    /// How many log lines were dropped; `None` where nobody logs.
    pub lines_dropped: Option<DroppedLines>,
    /// What outlives the process; `None`: nothing does.
    pub journal: Option<Journal>,
}

/// Why the control plane did not start. It is the system's fault each time.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The listener could not be waited for.
    #[error("waiting for the admin port: {0}")]
    Listener(#[source] io::Error),
    /// No ring, or no epoll.
    #[error("the control thread's runtime: {0}")]
    Runtime(#[source] io::Error),
    /// SIGTERM or SIGINT could not be caught.
    #[error("catching signals: {0}")]
    Signals(#[source] io::Error),
}

/// An eventfd for [`ControlInput::bell`]; a clone of it goes into
/// [`WakeHandle::eventfd_only`] for the shards. Not `O_NONBLOCK`: with that flag a read through a
/// ring does not wait.
///
/// # Errors
/// The process has no file descriptors left.
pub fn bell() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

/// Runs the control plane on this thread until all shards have ended, or must be left behind:
/// [`Outcome`] says which, and the exit code. Marks the process ready when all shards are; on
/// SIGTERM and SIGINT moves it to draining and rings all bells.
///
/// # Errors
/// It could not start.
pub fn run(input: ControlInput) -> Result<Outcome, ControlError> {
    let runtime =
        tokio_uring::Runtime::new(&tokio_uring::builder()).map_err(ControlError::Runtime)?;
    runtime.block_on(control(input))
}

async fn control(input: ControlInput) -> Result<Outcome, ControlError> {
    let signals = life::Signals::catch().map_err(ControlError::Signals)?;
    input.admin.set_nonblocking(true).map_err(ControlError::Listener)?;
    let listener =
        tokio::net::TcpListener::from_std(input.admin).map_err(ControlError::Listener)?;
    let (proxy, commands) = proxy::proxy();
    let figures = input.journal.as_ref().map(Journal::figures);
    let (intake, writer) = input
        .journal
        .map(|journal| {
            let disk = UringDisk::new(journal.directory());
            let (intake, writer) = journal.start(disk);
            (intake, tokio_uring::spawn(writer))
        })
        .unzip();
    let (seed, bells) = (input.shared.hash_seed, input.bells.clone());
    let link = Link::new(input.node, bells, commands, seed, intake.clone());
    let rests = link.rests();
    let admin = Admin {
        proxy,
        shared: Arc::clone(&input.shared),
        settings: input.settings,
        hosts: input.admin_hosts,
        data_port: input.data_port,
        lines_dropped: input.lines_dropped.clone(),
        journal: figures,
    };
    let rung = Rc::new(Notify::new());
    let _bell = tokio_uring::spawn(link::listen(input.bell, Rc::clone(&rung)));
    let _link = tokio_uring::spawn(link.run(Rc::clone(&rung)));
    let _http = tokio_uring::spawn(http::serve(listener, admin::router(admin)));
    let outcome = life::watch(&input.shared, &input.bells, signals, input.lines_dropped).await;
    if let Some((intake, writer)) = intake.zip(writer) {
        rests.next(&rung).await;
        let unsent = input.shared.counters.iter().any(|of| of.journal_unsent.value() > 0);
        if unsent || !outcome.shards_ended() {
            intake.missed();
        }
        if !journal::finish(&intake, writer).await {
            error!("the journal was not written to its end in time");
        }
    }
    info!(?outcome, "the control plane has ended");
    Ok(outcome)
}
