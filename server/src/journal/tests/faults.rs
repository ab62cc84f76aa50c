//! Disks that are full, slow, broken or forgetful.

use std::{io::ErrorKind, rc::Rc, time::Duration};

use tokio::time::sleep;

use super::{
    super::{Fsync, Intake, Options},
    rig::{
        EVERYTHING, Faults, Scratch, begin, numbers, open, publish, run, snapshot, topic, until,
        words,
    },
};
use crate::mail::JournalEntry;

fn publish_range(intake: &Intake, name: &str, range: std::ops::RangeInclusive<u64>) {
    for seq in range {
        intake.take(&publish(name, 1, seq, &words(name, seq)));
    }
}

#[test]
fn a_full_disk_loses_what_the_queue_does_not_hold_and_says_so() {
    let scratch = Scratch::new();
    let options = Options { queue_bytes_max: 4_000, ..scratch.options() };
    let faults = Rc::new(Faults::default());
    let full = Rc::clone(&faults);
    let (journal, _) = open(options.clone(), EVERYTHING);
    drop(journal);
    run(options, EVERYTHING, &faults, true, |intake, _| async move {
        publish_range(&intake, "goes_on", 1..=5);
        publish_range(&intake, "ends", 1..=5);
        intake.take(&begin("deleted", 1, 1));
        until("durable", || intake.durable_seq("ends") == Some((1, 5))).await;
        full.write.set(Some(ErrorKind::StorageFull));
        // More than the queue takes.
        publish_range(&intake, "goes_on", 6..=200);
        publish_range(&intake, "ends", 6..=8);
        intake.take(&publish("late", 1, 1, b"never in"));
        intake.take(&JournalEntry::Forget { topic: "deleted".into() });
        intake.take(&snapshot("ends", 1, 8, b"never in"));
        let figures = intake.figures();
        until("an error", || figures.errors.value() >= 1).await;
        assert!(figures.dropped.value() > 100 && figures.alarm.value() == 1);
        assert!(figures.queue_bytes.value() <= 4_400);
        assert_eq!(intake.durable_seq("ends"), Some((1, 5)));
        full.write.set(None);
        until("all is well", || figures.alarm.value() + figures.queue_bytes.value() == 0).await;
        publish_range(&intake, "goes_on", 201..=203);
    });
    let (_, restored) = open(scratch.options(), EVERYTHING);
    assert_eq!(numbers(topic(&restored, "goes_on")), [201, 202, 203]);
    let ends = topic(&restored, "ends");
    assert_eq!((numbers(ends), ends.next_seq), (vec![], 9), "6 to 8 were given and are lost");
    assert_eq!(ends.last.as_ref().map(|last| last.seq), Some(5));
    assert_eq!(ends.epochs[0].last_seq, 5);
    assert_eq!(topic(&restored, "late").next_seq, 2);
    assert!(restored.topics.iter().all(|topic| &*topic.name != "deleted"));
}

#[test]
fn what_the_queue_holds_outlives_a_short_trouble() {
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        let scratch = Scratch::new();
        let faults = Rc::new(Faults::default());
        let bad = Rc::clone(&faults);
        run(scratch.options(), EVERYTHING, &faults, true, |intake, _| async move {
            publish_range(&intake, "a", 1..=50);
            until("durable", || intake.durable_seq("a") == Some((1, 50))).await;
            bad.write.set(Some(kind));
            bad.open.set(true);
            publish_range(&intake, "a", 51..=100);
            let figures = intake.figures();
            until("writing fails", || figures.errors.value() == 1).await;
            bad.write.set(None);
            until("opening fails", || figures.errors.value() == 2).await;
            bad.open.set(false);
            until("durable", || intake.durable_seq("a") == Some((1, 100))).await;
            publish_range(&intake, "a", 101..=110);
            assert_eq!((figures.dropped.value(), figures.alarm.value()), (0, 0));
        });
        let (_, restored) = open(scratch.options(), EVERYTHING);
        assert_eq!(numbers(topic(&restored, "a")), (1..=110).collect::<Vec<_>>());
    }
}

#[test]
fn after_a_failed_fsync_all_is_written_again() {
    let scratch = Scratch::new();
    let faults = Rc::new(Faults::default());
    let bad = Rc::clone(&faults);
    run(scratch.options(), EVERYTHING, &faults, true, |intake, _| async move {
        publish_range(&intake, "a", 1..=50);
        until("durable", || intake.durable_seq("a") == Some((1, 50))).await;
        bad.syncs.set(1);
        publish_range(&intake, "a", 51..=60);
        until("a sync fails", || bad.syncs.get() == 0).await;
        assert_eq!(intake.durable_seq("a"), Some((1, 50)));
        until("durable", || intake.durable_seq("a") == Some((1, 60))).await;
    });
    let (_, restored) = open(scratch.options(), EVERYTHING);
    assert_eq!(numbers(topic(&restored, "a")), (1..=60).collect::<Vec<_>>());
}

#[test]
fn short_writes_and_all_policies_write_everything() {
    for fsync in [Fsync::Always, Fsync::Every(Duration::from_millis(1)), Fsync::Off] {
        let scratch = Scratch::new();
        let faults = Rc::new(Faults::default());
        faults.write_bytes_max.set(Some(7));
        let options = Options { fsync, segment_bytes_max: 2_000, ..scratch.options() };
        run(options, EVERYTHING, &faults, true, |intake, _| async move {
            for tenth in 0..10 {
                publish_range(&intake, "a", tenth * 10 + 1..=tenth * 10 + 10);
                sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(scratch.segments().len() > 2);
        let (_, restored) = open(scratch.options(), EVERYTHING);
        assert_eq!(numbers(topic(&restored, "a")), (1..=100).collect::<Vec<_>>());
    }
}

#[test]
fn a_slow_disk_keeps_nobody_waiting() {
    let scratch = Scratch::new();
    let faults = Rc::new(Faults::default());
    faults.delay.set(Duration::from_millis(300));
    let options = Options { queue_bytes_max: 64 << 10, ..scratch.options() };
    run(options, EVERYTHING, &faults, true, |intake, _| async move {
        let begun = tokio::time::Instant::now();
        for seq in 1..=5_000 {
            intake.take(&publish("a", 1, seq, &words("a", seq)));
            if seq % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        // A write per hundred of them would take fifteen.
        assert!(begun.elapsed() < Duration::from_secs(10));
        let figures = intake.figures();
        assert!(figures.dropped.value() > 0);
        until("the queue is short", || figures.queue_bytes.value() < 10_000).await;
        intake.take(&publish("a", 1, 5_001, &words("a", 5_001)));
    });
    let (_, restored) = open(scratch.options(), EVERYTHING);
    assert_eq!(numbers(topic(&restored, "a")), [5_001]);
}

#[test]
fn a_shard_that_could_not_pass_one_on_ends_the_range() {
    let scratch = Scratch::new();
    run(scratch.options(), EVERYTHING, &Rc::default(), true, |intake, _| async move {
        publish_range(&intake, "a", 1..=5);
        intake.take(&JournalEntry::Dropped { topic: "a".into(), epoch: 1, seq: 6 });
        intake.take(&JournalEntry::Dropped { topic: "a".into(), epoch: 1, seq: 7 });
        publish_range(&intake, "b", 1..=5);
        // In silence: the numbers tell.
        publish_range(&intake, "b", 8..=9);
    });
    let (_, restored) = open(scratch.options(), EVERYTHING);
    let a = topic(&restored, "a");
    assert_eq!((numbers(a), a.next_seq, a.epochs[0].last_seq), (vec![], 8, 5));
    assert_eq!(numbers(topic(&restored, "b")), [8, 9]);
}
