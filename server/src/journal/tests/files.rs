//! What is read back: after a clean end, after a kill at every byte, after damage.

use std::{fs, os::unix::fs::PermissionsExt as _, rc::Rc};

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use super::{
    super::{
        Journal, OpenError, Options, RestoredTopic,
        disk::UringDisk,
        finish,
        record::EpochRange,
        restore::Reading,
        segment::{End, HEADER_BYTES, Records},
        shelf::Segment,
    },
    rig::{EVERYTHING, Scratch, begin, numbers, open, publish, run, snapshot, topic, words},
};
use crate::mail::JournalEntry;

/// Three topics, one of which is deleted, one large publication.
fn write_some(options: Options) {
    run(options, EVERYTHING, &Rc::default(), true, |intake, _| async move {
        intake.take(&begin("a", 1, 1));
        for seq in 1..=12 {
            intake.take(&publish("a", 1, seq, &words("a", seq)));
            intake.take(&publish("b.c", 2, seq, &words("b.c", seq)));
            if seq % 5 == 0 {
                intake.take(&publish("gone", 3, seq / 5, &words("gone", seq / 5)));
                intake.take(&snapshot("b.c", 2, seq, b"book"));
                // Several chunks, so that the order of writes matters.
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            }
        }
        intake.take(&JournalEntry::Forget { topic: "gone".into() });
        intake.take(&publish("a", 1, 13, &words("a", 13)));
    });
}

/// Reads a segment's bytes as opening does.
fn read(bytes: &[u8]) -> (Vec<RestoredTopic>, End) {
    let keep = |_: &str| EVERYTHING;
    let mut reading = Reading::new(&keep);
    let mut segment = Segment::new(1);
    let mut records = Records::new(bytes, HEADER_BYTES);
    while let Ok((record, copied, size)) = records.next() {
        reading.record(record, copied, size, &mut segment);
    }
    let end = records.end();
    let (_, topics) = reading.finish(u64::MAX);
    (topics, end)
}

#[test]
fn what_was_written_is_there_at_the_next_start() {
    let scratch = Scratch::new();
    write_some(scratch.options());
    let (_, restored) = open(scratch.options(), EVERYTHING);
    assert_eq!((restored.topics.len(), restored.torn_bytes), (2, 0));
    assert!(restored.damaged.is_empty());
    let a = topic(&restored, "a");
    assert_eq!(numbers(a), (1..=13).collect::<Vec<_>>());
    assert_eq!(a.epochs, [EpochRange { epoch: 1, first_seq: 1, last_seq: 13 }]);
    assert_eq!((a.next_seq, &a.snapshot), (14, &None));
    assert_eq!(a.last.as_ref().and_then(|last| last.pub_seq), Some(130));
    let b = topic(&restored, "b.c");
    assert_eq!(numbers(b), (1..=12).collect::<Vec<_>>());
    let book = b.snapshot.as_ref().expect("a snapshot");
    assert_eq!((book.seq, &book.payload[..]), (10, &b"book"[..]));
}

#[test]
fn a_kill_at_any_byte_leaves_a_beginning() {
    let scratch = Scratch::new();
    write_some(scratch.options());
    let bytes = fs::read(&scratch.segments()[0]).expect("a segment");
    let mut seen = 0;
    for cut in HEADER_BYTES..=bytes.len() {
        let (topics, end) = read(&bytes[..cut]);
        assert_ne!(end, End::Damaged, "cut at {cut}");
        let mut publications = 0;
        for topic in &topics {
            let numbers = numbers(topic);
            assert!(numbers.first().is_none_or(|first| *first == 1), "cut at {cut}: {numbers:?}");
            assert_eq!(topic.next_seq, numbers.len() as u64 + 1, "cut at {cut}");
            if &*topic.name != "gone" {
                publications += numbers.len();
            }
        }
        assert!(publications >= seen, "cut at {cut}: less than before");
        seen = publications;
    }
    assert_eq!(seen, 25);
}

#[test]
fn a_flipped_bit_never_changes_a_payload_nor_hides_a_gap() {
    let scratch = Scratch::new();
    write_some(scratch.options());
    let right = fs::read(&scratch.segments()[0]).expect("a segment");
    let mut random = Pcg64Mcg::seed_from_u64(7);
    for byte in HEADER_BYTES..right.len() {
        let mut bytes = right.clone();
        bytes[byte] ^= 1 << random.random_range(0..8);
        let (topics, end) = read(&bytes);
        assert_ne!(end, End::Whole, "byte {byte}");
        for topic in &topics {
            numbers(topic);
        }
    }
}

#[test]
fn a_torn_end_is_cut_off_once_and_damage_is_told_of_each_time() {
    let scratch = Scratch::new();
    write_some(scratch.options());
    let path = &scratch.segments()[0];
    let right = fs::read(path).expect("a segment");
    fs::write(path, &right[..right.len() - 5]).expect("a file");
    for torn in [true, false] {
        let (_, restored) = open(scratch.options(), EVERYTHING);
        assert_eq!(restored.torn_bytes > 0, torn);
        assert_eq!(numbers(topic(&restored, "a")).len(), 12);
    }
    let mut bytes = right.clone();
    bytes[right.len() / 2] ^= 1;
    fs::write(path, &bytes).expect("a file");
    for _ in 0..2 {
        let (_, restored) = open(scratch.options(), EVERYTHING);
        assert_eq!(restored.damaged.len(), 1);
        assert!(restored.damaged[0].at > 0 && restored.damaged[0].bytes > 0);
        assert!(numbers(topic(&restored, "a")).len() < 12);
    }
}

#[test]
fn damage_in_an_old_segment_ends_the_range_of_whom_it_hits() {
    let scratch = Scratch::new();
    for (epoch, from) in [(1, 1), (2, 11), (3, 21)] {
        run(scratch.options(), EVERYTHING, &Rc::default(), true, |intake, _| async move {
            for seq in from..from + 10 {
                intake.take(&publish("hit", epoch, seq, &words("hit", seq)));
            }
            if epoch != 2 {
                let seq = epoch / 2 + 1;
                intake.take(&publish("spared", epoch, seq, &words("spared", seq)));
            }
        });
    }
    let path = &scratch.segments()[1];
    let mut bytes = fs::read(path).expect("a segment");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("a file");
    let (_, restored) = open(scratch.options(), EVERYTHING);
    assert_eq!(restored.damaged.len(), 1);
    let hit = topic(&restored, "hit");
    assert_eq!(numbers(hit), (21..=30).collect::<Vec<_>>());
    assert_eq!(numbers(topic(&restored, "spared")), [1, 2]);
    assert_eq!(hit.epochs.iter().map(|range| range.epoch).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_segment_that_is_not_one_is_damage_and_an_empty_one_is_nothing() {
    let scratch = Scratch::new();
    write_some(scratch.options());
    fs::write(scratch.0.join("0000000000000008.segment"), [7; 5_000]).expect("a file");
    fs::write(scratch.0.join("0000000000000009.segment"), []).expect("a file");
    let (journal, restored) = open(scratch.options(), EVERYTHING);
    assert_eq!(restored.damaged.iter().map(|of| of.segment).collect::<Vec<_>>(), [8]);
    assert_eq!(numbers(topic(&restored, "a")).len(), 13);
    assert!(scratch.segments().last().expect("one").ends_with("0000000000000010.segment"));
    drop(journal);
    let mut other = super::super::segment::header(11);
    other[8] = 9;
    let crc = crc32c::crc32c(&other[..20]).to_le_bytes();
    other[20..].copy_from_slice(&crc);
    fs::write(scratch.0.join("0000000000000011.segment"), other).expect("a file");
    let error = Journal::open(scratch.options(), Box::new(|_| EVERYTHING)).expect_err("refused");
    assert!(matches!(error, OpenError::Version { version: 9, .. }), "{error}");
}

#[test]
fn one_server_per_directory_which_is_its_owners() {
    let scratch = Scratch::new();
    let (journal, _) = open(scratch.options(), EVERYTHING);
    let mode = fs::metadata(&scratch.0).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let error = Journal::open(scratch.options(), Box::new(|_| EVERYTHING)).expect_err("in use");
    assert!(matches!(error, OpenError::Locked { .. }) && error.is_wrong_use(), "{error}");
    drop(journal);
    open(scratch.options(), EVERYTHING);
    let path = scratch.0.join("lock");
    let error =
        Journal::open(Options { directory: path, ..scratch.options() }, Box::new(|_| EVERYTHING));
    assert!(matches!(error.expect_err("a file"), OpenError::System { .. }));
}

#[test]
fn through_io_uring_it_is_the_same() {
    let scratch = Scratch::new();
    let large = "x".repeat(3 << 20);
    for round in 0..2 {
        let (journal, restored) =
            open(Options { segment_bytes_max: 1 << 20, ..scratch.options() }, EVERYTHING);
        assert_eq!(restored.topics.len(), round * 2);
        if round == 1 {
            assert_eq!(numbers(topic(&restored, "a")).len(), 5_000);
            let last = topic(&restored, "large").last.as_ref().expect("a last value");
            assert_eq!(last.payload, large.as_bytes());
        }
        let directory = scratch.0.clone();
        let large = large.clone();
        tokio_uring::start(async move {
            let (intake, writer) = journal.start(UringDisk::new(&directory));
            let writer = tokio_uring::spawn(writer);
            if round == 0 {
                intake.take(&publish("large", 5, 1, large.as_bytes()));
                for seq in 1..=5_000 {
                    intake.take(&publish("a", 1, seq, &words("a", seq)));
                }
            }
            assert!(finish(&intake, writer).await);
            if round == 0 {
                assert_eq!(intake.durable_seq("a"), Some((1, 5_000)));
            }
        });
    }
}
