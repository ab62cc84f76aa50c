//! The journal at work: a task that writes what was taken in, and a handle to give it in.
//!
//! Knows: when to write, to sync, to try again, to clean. Must not know: what is written.

use std::{cell::RefCell, future::Future, io, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Fsync,
    clean::{Cleaning, Plan},
    core::{Core, Job},
    disk::Disk,
    figures::Figures,
};
use crate::{clock, mail::JournalEntry};

/// Where entries go in. Cheap to clone; of one thread.
#[derive(Clone)]
pub struct Intake {
    core: Rc<RefCell<Core>>,
    wake: Rc<Notify>,
    stopping: Rc<std::cell::Cell<bool>>,
    /// Something was published that never came here.
    missed: Rc<std::cell::Cell<bool>>,
}

impl Intake {
    /// Takes an entry in, or drops and counts it. Never waits.
    pub fn take(&self, entry: &JournalEntry) {
        self.core.borrow_mut().take(entry);
        self.wake.notify_one();
    }

    /// A topic's epoch and the last of its publications that survives a crash of the machine (with
    /// `--journal-fsync off`: of the process); 0 if none does.
    pub fn durable_seq(&self, topic: &str) -> Option<(u64, u64)> {
        let core = self.core.borrow();
        let topic = core.ledger.topic(core.ledger.find(topic)?)?;
        Some((topic.current().epoch, topic.durable_seq))
    }

    /// The journal's figures.
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.core.borrow().figures)
    }

    /// Something was published, and who should have sent it here has not.
    pub fn missed(&self) {
        self.missed.set(true);
    }

    /// Whether all that was ever to be taken in is on the disk.
    pub(super) fn is_complete(&self) -> bool {
        !self.missed.get() && self.core.borrow().is_complete()
    }

    /// Lets the writer end once all that was taken in is on the disk, or can't be written.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.wake.notify_one();
    }
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").finish_non_exhaustive()
    }
}

/// Makes the handle and the task.
pub(super) fn pair<D: Disk>(core: Core, disk: D) -> (Intake, impl Future<Output = ()>) {
    let intake = Intake {
        core: Rc::new(RefCell::new(core)),
        wake: Rc::new(Notify::new()),
        stopping: Rc::default(),
        missed: Rc::default(),
    };
    let writer = Writer {
        disk,
        intake: intake.clone(),
        file: None,
        unsynced_since: None,
        cleaning: None,
        plan_at: Instant::now() + PLAN_INTERVAL,
        segments_planned: 0,
    };
    (intake, writer.run())
}

struct Writer<D: Disk> {
    disk: D,
    intake: Intake,
    /// The segment that is open, with its number.
    file: Option<(u64, D::File)>,
    /// Since when something is written that may not be on the disk.
    unsynced_since: Option<Instant>,
    cleaning: Option<Cleaning>,
    /// When it is looked again whether old segments can go.
    plan_at: Instant,
    /// How many segments there were when it was looked.
    segments_planned: usize,
}

impl<D: Disk> Writer<D> {
    async fn run(mut self) {
        loop {
            let stopping = self.intake.stopping.get();
            if let Err(reason) = self.round(stopping).await {
                self.file = None;
                self.unsynced_since = None;
                self.intake.core.borrow_mut().failed(&reason);
                if stopping {
                    return;
                }
                self.pause().await;
                continue;
            }
            if self.has_work(stopping) {
                yield_now().await;
                continue;
            }
            if stopping {
                return;
            }
            self.wait().await;
        }
    }

    /// After a failure. Entries that come meanwhile do not shorten it, the end does.
    async fn pause(&self) {
        let until = Instant::now() + RETRY_INTERVAL;
        while !self.intake.stopping.get() && Instant::now() < until {
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.intake.wake.notified() => {}
            }
        }
    }

    fn has_work(&self, stopping: bool) -> bool {
        let core = self.intake.core.borrow();
        let copying = self
            .cleaning
            .as_ref()
            .is_some_and(|cleaning| cleaning.waits_for.is_none_or(|chunk| core.is_durable(chunk)));
        core.next_segment().is_some() || (copying && !stopping)
    }

    async fn wait(&self) {
        let sync_at = self.sync_at().unwrap_or(self.plan_at);
        tokio::select! {
            () = self.intake.wake.notified() => {}
            () = sleep_until(sync_at.min(self.plan_at)) => {}
        }
    }

    fn sync_at(&self) -> Option<Instant> {
        let since = self.unsynced_since?;
        match self.intake.core.borrow().options.fsync {
            Fsync::Always => Some(since),
            Fsync::Every(interval) => Some(since + interval),
            Fsync::Off => None,
        }
    }

    /// Writes what there is, syncs if it is time, cleans a little.
    async fn round(&mut self, last: bool) -> io::Result<()> {
        self.intake.core.borrow_mut().settle();
        for _ in 0..CHUNKS_PER_ROUND {
            if !self.write_one().await? {
                break;
            }
        }
        let cleaned = self.cleaning.as_ref().is_some_and(|cleaning| cleaning.waits_for.is_some());
        let due = self.sync_at().is_some_and(|at| at <= Instant::now());
        // What is written and not synced fills the queue too.
        let crowded = {
            let core = self.intake.core.borrow();
            core.is_crowded() && core.options.fsync != Fsync::Off
        };
        if due || last || cleaned || crowded {
            self.sync().await?;
        }
        self.intake.core.borrow_mut().settle();
        if last { Ok(()) } else { self.clean(cleaned).await }
    }

    /// Writes the next chunk, if there is one.
    async fn write_one(&mut self) -> io::Result<bool> {
        let Some(segment) = self.intake.core.borrow().next_segment() else { return Ok(false) };
        if self.file.as_ref().is_none_or(|(number, _)| *number != segment) {
            // A segment that is left behind is on the disk before the next one begins, so that only
            // the last one of a process can end in torn records.
            self.sync().await?;
            self.file = None;
            self.file = Some((segment, self.disk.open(segment).await?));
        }
        let (Some((_, file)), Some(mut job)) =
            (&self.file, self.intake.core.borrow_mut().next_job())
        else {
            return Ok(false);
        };
        self.unsynced_since.get_or_insert_with(Instant::now);
        match write_all(&self.disk, file, &mut job).await {
            Ok(()) => self.intake.core.borrow_mut().wrote(job),
            Err(reason) => {
                // Given back here; the error is counted where the round ends.
                self.intake.core.borrow_mut().give_back(job);
                return Err(reason);
            }
        }
        Ok(true)
    }

    async fn sync(&mut self) -> io::Result<()> {
        if self.unsynced_since.is_none() {
            return Ok(());
        }
        let Some((_, file)) = &self.file else { return Ok(()) };
        let begun = clock::now().ns;
        self.disk.sync(file).await?;
        self.unsynced_since = None;
        let mut core = self.intake.core.borrow_mut();
        core.figures.fsync.record_ns(clock::now().ns.saturating_sub(begun));
        core.synced();
        Ok(())
    }

    /// `synced`: what was copied is on the disk, if the copying had ended before.
    async fn clean(&mut self, synced: bool) -> io::Result<()> {
        let now_us = clock::now().utc_us;
        let Some(cleaning) = &mut self.cleaning else { return self.plan(now_us).await };
        let done = {
            let mut core = self.intake.core.borrow_mut();
            core.clean_some(cleaning, now_us);
            synced && cleaning.waits_for.is_some_and(|chunk| core.is_durable(chunk))
        };
        if done {
            self.disk.remove(cleaning.number).await?;
            self.intake.core.borrow_mut().removed(cleaning);
            self.cleaning = None;
            self.segments_planned = 0;
        }
        Ok(())
    }

    async fn plan(&mut self, now_us: u64) -> io::Result<()> {
        let plan = {
            let core = self.intake.core.borrow();
            let same = core.shelf.segments.len() == self.segments_planned;
            if core.is_failing() || (same && Instant::now() < self.plan_at) {
                return Ok(());
            }
            self.segments_planned = core.shelf.segments.len();
            core.plan_cleaning(now_us)
        };
        self.plan_at = Instant::now() + PLAN_INTERVAL;
        match plan {
            Plan::Nothing => {}
            Plan::Remove { number } => {
                let chunk = self.intake.core.borrow().newest_chunk();
                self.cleaning = Some(Cleaning::removing(number, chunk));
            }
            Plan::Copy { number, mode } => {
                self.intake.core.borrow_mut().begin_cleaning();
                match self.disk.read(number).await {
                    Ok(bytes) => self.cleaning = Some(Cleaning::new(number, mode, bytes)),
                    Err(reason) => self.intake.core.borrow_mut().unreadable(number, &reason),
                }
                self.segments_planned = 0;
            }
        }
        Ok(())
    }
}

/// Writes a job whole, in as many writes as it takes.
async fn write_all<D: Disk>(disk: &D, file: &D::File, job: &mut Job) -> io::Result<()> {
    let mut at = 0;
    while at < job.bytes.len() {
        let bytes = std::mem::take(&mut job.bytes);
        let (written, bytes) = disk.write(file, bytes, at, job.offset + at as u64).await;
        job.bytes = bytes;
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => at += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends a writer and waits for it, but not for ever: a disk that hangs must not keep the process.
/// `false`: it was given up.
pub async fn finish(intake: &Intake, writer: impl Future) -> bool {
    intake.stop();
    tokio::select! {
        _ = writer => true,
        () = sleep(FINISH_TIMEOUT) => false,
    }
}

/// Chunks written before it is looked whether it is time to sync.
const CHUNKS_PER_ROUND: usize = 16;
/// After a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// It is looked so often whether age made an old segment unneeded.
const PLAN_INTERVAL: Duration = Duration::from_secs(10);
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
