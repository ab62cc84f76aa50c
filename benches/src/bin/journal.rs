//! How fast the journal takes publications in, writes them, and reads them back.
//!
//! Knows: the journal and its figures. Must not know: shards. One thread does everything, as the control
//! thread does; the disk is that of `DIR`.

#![forbid(unsafe_code)]

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use uringcast::{
    clock,
    journal::{Fsync, Journal, Keep, Options, disk::UringDisk, finish},
    mail::JournalEntry,
    publication::{self, Order, PayloadContent},
};
use uringcast_protocol::opcode::Opcode;
use uringcast_ring::pool::Pool;

/// Publishes into a journal as fast as it takes it, and opens it again.
#[derive(Debug, Parser)]
struct Flags {
    /// A directory that is not there yet.
    directory: PathBuf,
    /// How many publications.
    #[arg(long, default_value_t = 2_000_000)]
    publications: u64,
    /// Of how many topics.
    #[arg(long, default_value_t = 1_000)]
    topics: u64,
    /// A payload's size, bytes.
    #[arg(long, default_value_t = 200)]
    payload_bytes: usize,
    /// off, always, or else every 100 ms.
    #[arg(long, default_value = "100ms")]
    fsync: String,
}

fn main() {
    let flags = Flags::parse();
    let fsync = match flags.fsync.as_str() {
        "always" => Fsync::Always,
        "off" => Fsync::Off,
        _ => Fsync::Every(Duration::from_millis(100)),
    };
    let options = Options::new(flags.directory.clone(), fsync, 8 << 30);
    let keep = Keep { messages: 100, bytes: 1 << 20, age: None };
    let open = || Journal::open(options.clone(), Box::new(move |_| keep)).expect("it opens");
    let (journal, _) = open();
    let figures = journal.figures();
    let begun_ns = clock::now().ns;
    tokio_uring::start(write(&flags, journal));
    let taken_s = seconds_since(begun_ns);
    let records = figures.records.value();
    let written_mb = figures.written_bytes.value() as f64 / 1e6;
    println!(
        "written: {:.0} records/s, {:.0} MB/s, {} fsyncs of {:.1} ms, {} dropped, {} copied",
        records as f64 / taken_s,
        written_mb / taken_s,
        figures.fsync.count(),
        figures.fsync.sum_us.value() as f64 / 1e3 / figures.fsync.count().max(1) as f64,
        figures.dropped.value(),
        figures.copied.value(),
    );
    let begun_ns = clock::now().ns;
    let (_, restored) = open();
    let taken_s = seconds_since(begun_ns);
    let read_mb = restored.bytes as f64 / 1e6;
    println!(
        "read: {:.0} records/s, {:.0} MB/s, {} topics",
        restored.records as f64 / taken_s,
        read_mb / taken_s,
        restored.topics.len()
    );
}

/// The pace is what the queue allows: a publication that would be dropped waits.
async fn write(flags: &Flags, journal: Journal) {
    let (intake, writer) = journal.start(UringDisk::new(&flags.directory));
    let writer = tokio_uring::spawn(writer);
    let figures = intake.figures();
    let mut pool = Pool::unregistered();
    let (payload, mut scratch) = (vec![b'x'; flags.payload_bytes], Vec::new());
    let names: Vec<_> = (0..flags.topics).map(|number| format!("md.T{number}.trade")).collect();
    for number in 0..flags.publications {
        let name = &names[(number % flags.topics) as usize];
        let lease =
            publication::draft(&mut pool, name, 1, PayloadContent::Text, Opcode::Text, &payload)
                .expect("the pool has room: a publication is let go at once");
        let seq = number / flags.topics + 1;
        let order = Order { epoch: 1, seq, ts_us: number, pub_seq: None, snapshot: false };
        let ordered = publication::order(&mut pool, lease, order, &mut scratch)
            .expect("the pool has room: a publication is let go at once");
        let frame = ordered.frame().clone();
        intake.take(&JournalEntry::Publication { frame });
        if number % 256 == 255 {
            tokio::task::yield_now().await;
            while figures.queue_bytes.value() > 32 << 20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    finish(&intake, writer).await;
}

fn seconds_since(begun_ns: u64) -> f64 {
    (clock::now().ns - begun_ns) as f64 / 1e9
}
