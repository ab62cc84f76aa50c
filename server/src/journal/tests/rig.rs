//! A directory for a test, a disk that can be made to fail, and publications.
//!
//! Knows: files. Must not know: what a test is about.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use uringcast_protocol::opcode::Opcode;
use uringcast_ring::pool::{Frame, Pool};

use super::super::{
    Fsync, Intake, Journal, Keep, Options, Restored, RestoredTopic, disk, disk::Disk, segment,
};
use crate::{
    mail::JournalEntry,
    publication::{self, Order, PayloadContent},
};

/// A directory that is gone at the end of the test.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        let name =
            format!("uringcast-journal-{}-{:016x}", std::process::id(), rand::random::<u64>());
        Self(std::env::temp_dir().join(name))
    }

    pub(super) fn options(&self) -> Options {
        let every = Fsync::Every(Duration::from_millis(2));
        Options::new(self.0.clone(), every, 1 << 30)
    }

    /// All segments, the oldest first.
    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).expect("the journal's directory");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "segment"));
        paths.sort();
        paths
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed stays in the system's temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a disk does wrong.
#[derive(Default)]
pub(super) struct Faults {
    /// Writes fail with this.
    pub(super) write: Cell<Option<io::ErrorKind>>,
    /// The next so many syncs fail, and what was not synced is lost, as the kernel may do it.
    pub(super) syncs: Cell<u32>,
    /// A write takes so many bytes at most.
    pub(super) write_bytes_max: Cell<Option<usize>>,
    /// A write takes so long.
    pub(super) delay: Cell<Duration>,
    /// Opening a segment fails.
    pub(super) open: Cell<bool>,
    unsynced: RefCell<BTreeMap<u64, usize>>,
}

/// Real files, with faults.
pub(super) struct RiggedDisk {
    directory: PathBuf,
    pub(super) faults: Rc<Faults>,
}

impl RiggedDisk {
    pub(super) fn new(directory: &Path, faults: &Rc<Faults>) -> Self {
        Self { directory: directory.to_owned(), faults: Rc::clone(faults) }
    }
}

impl Disk for RiggedDisk {
    type File = fs::File;

    async fn open(&self, number: u64) -> io::Result<fs::File> {
        if self.faults.open.get() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk::open(&self.directory, number)
    }

    async fn write(
        &self,
        file: &fs::File,
        bytes: Vec<u8>,
        from: usize,
        offset: u64,
    ) -> (io::Result<usize>, Vec<u8>) {
        if !self.faults.delay.get().is_zero() {
            tokio::time::sleep(self.faults.delay.get()).await;
        }
        let most = self.faults.write_bytes_max.get().unwrap_or(usize::MAX);
        let to = bytes.len().min(from.saturating_add(most));
        if let Some(kind) = self.faults.write.get() {
            // Half of it may be there nevertheless.
            let _ = file.write_at(&bytes[from..from + (to - from) / 2], offset);
            return (Err(kind.into()), bytes);
        }
        let written = file.write_at(&bytes[from..to], offset);
        self.faults.unsynced.borrow_mut().insert(offset, to - from);
        (written, bytes)
    }

    async fn sync(&self, file: &fs::File) -> io::Result<()> {
        let unsynced = std::mem::take(&mut *self.faults.unsynced.borrow_mut());
        if self.faults.syncs.get() == 0 {
            return Ok(());
        }
        self.faults.syncs.set(self.faults.syncs.get() - 1);
        for (offset, bytes) in unsynced {
            file.write_all_at(&vec![0; bytes], offset).expect("a real file");
        }
        Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()))
    }

    async fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        fs::read(segment::path(&self.directory, number))
    }

    async fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(segment::path(&self.directory, number))
    }
}

/// Everything of every topic.
pub(super) const EVERYTHING: Keep = Keep { messages: u64::MAX, bytes: u64::MAX, age: None };

pub(super) fn open(options: Options, keep: Keep) -> (Journal, Restored) {
    Journal::open(options, Box::new(move |_| keep)).expect("it opens")
}

/// Opens a journal, runs `body` with it, and ends it as a clean end does, or as a kill does.
pub(super) fn run<F: Future>(
    options: Options,
    keep: Keep,
    faults: &Rc<Faults>,
    clean_end: bool,
    body: impl FnOnce(Intake, Restored) -> F,
) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let disk = RiggedDisk::new(&options.directory, faults);
    let (journal, restored) = open(options, keep);
    runtime.expect("a runtime").block_on(async {
        let (intake, writer) = journal.start(disk);
        let mut output = None;
        let work = async {
            output = Some(body(intake.clone(), restored).await);
            if clean_end {
                intake.stop();
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = writer => {}
            () = work => {}
        }
        output.expect("the writer does not end before it is told to")
    })
}

/// Waits until it is so, at most ten seconds.
pub(super) async fn until(what: &str, is: impl Fn() -> bool) {
    for _ in 0..5_000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("not within ten seconds: {what}");
}

pub(super) fn frame(topic: &str, order: Order, payload: &[u8]) -> Frame {
    let mut pool = Pool::unregistered();
    let lease =
        publication::draft(&mut pool, topic, 1, PayloadContent::Text, Opcode::Text, payload)
            .expect("room");
    let ordered = publication::order(&mut pool, lease, order, &mut Vec::new()).expect("room");
    ordered.frame().clone()
}

pub(super) fn publish(topic: &str, epoch: u64, seq: u64, payload: &[u8]) -> JournalEntry {
    let ts_us = crate::clock::now().utc_us;
    let order = Order { epoch, seq, ts_us, pub_seq: Some(seq * 10), snapshot: false };
    JournalEntry::Publication { frame: frame(topic, order, payload) }
}

pub(super) fn snapshot(topic: &str, epoch: u64, covers: u64, payload: &[u8]) -> JournalEntry {
    let ts_us = crate::clock::now().utc_us;
    let order = Order { epoch, seq: covers, ts_us, pub_seq: Some(covers), snapshot: true };
    JournalEntry::Snapshot { frame: frame(topic, order, payload) }
}

pub(super) fn begin(topic: &str, epoch: u64, first_seq: u64) -> JournalEntry {
    JournalEntry::Topic { topic: topic.into(), epoch, first_seq }
}

/// What a publication of this number says.
pub(super) fn words(topic: &str, seq: u64) -> Vec<u8> {
    format!("{topic} says {seq} {}", "x".repeat((seq % 40) as usize)).into_bytes()
}

pub(super) fn topic<'a>(restored: &'a Restored, name: &str) -> &'a RestoredTopic {
    restored.topics.iter().find(|topic| &*topic.name == name).expect("a topic that is there")
}

/// The numbers of a topic's history, whose payloads are as [`words`] has them.
pub(super) fn numbers(topic: &RestoredTopic) -> Vec<u64> {
    let numbers: Vec<_> = topic.publications.iter().map(|publication| publication.seq).collect();
    for publication in topic.publications.iter().chain(&topic.last) {
        assert_eq!(publication.payload, words(&topic.name, publication.seq));
    }
    if let Some(last) = numbers.last() {
        assert_eq!(*last + 1, topic.next_seq);
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    }
    numbers
}
