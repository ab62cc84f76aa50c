//! Many starts, many segments: what goes, and what stays.

use std::{rc::Rc, time::Duration};

use tokio::time::sleep;

use super::{
    super::{Intake, Keep, Options},
    rig::{EVERYTHING, Scratch, begin, numbers, open, publish, run, snapshot, topic, until, words},
};
use crate::mail::JournalEntry;

const FEW: Keep = Keep { messages: 20, bytes: 1 << 20, age: None };

fn small(scratch: &Scratch) -> Options {
    Options { segment_bytes_max: 4_000, bytes_max: 40_000, ..scratch.options() }
}

/// Lets the cleaning keep up, as it does where segments are not as small as these; not for ever, since
/// it also waits for more to come.
async fn keep_pace(intake: &Intake) {
    let figures = intake.figures();
    for _ in 0..20 {
        sleep(Duration::from_millis(1)).await;
        if figures.queue_bytes.value() == 0 && figures.segments_bytes.value() < 30_000 {
            return;
        }
    }
}

#[test]
fn what_is_needed_is_copied_forward_and_the_rest_goes() {
    let scratch = Scratch::new();
    run(small(&scratch), FEW, &Rc::default(), true, |intake, _| async move {
        for seq in 1..=30 {
            intake.take(&publish("idle", 1, seq, &words("idle", seq)));
        }
        intake.take(&snapshot("idle", 1, 28, b"book"));
        intake.take(&begin("silent", 4, 7));
        intake.take(&publish("deleted", 1, 1, &words("deleted", 1)));
        intake.take(&JournalEntry::Forget { topic: "deleted".into() });
        for seq in 1..=3_000 {
            intake.take(&publish("busy", 1, seq, &words("busy", seq)));
            if seq % 20 == 0 {
                keep_pace(&intake).await;
            }
        }
        let figures = intake.figures();
        assert!(figures.copied.value() > 20 && figures.dropped.value() == 0);
        assert!(figures.segments_bytes.value() < 40_000);
        assert!(figures.segments.value() < 12);
    });
    assert!(scratch.segments().len() < 12);
    let (_, restored) = open(small(&scratch), FEW);
    assert_eq!(restored.topics.len(), 3);
    assert_eq!(numbers(topic(&restored, "busy")), (2_981..=3_000).collect::<Vec<_>>());
    let idle = topic(&restored, "idle");
    assert_eq!(numbers(idle), (11..=30).collect::<Vec<_>>());
    assert_eq!(idle.snapshot.as_ref().map(|book| book.seq), Some(28));
    assert_eq!(topic(&restored, "silent").next_seq, 7);
}

#[test]
fn beyond_the_bound_old_history_goes_and_last_values_stay() {
    let scratch = Scratch::new();
    run(small(&scratch), EVERYTHING, &Rc::default(), true, |intake, _| async move {
        intake.take(&publish("idle", 1, 1, &words("idle", 1)));
        for seq in 1..=3_000 {
            intake.take(&publish("busy", 1, seq, &words("busy", seq)));
            if seq % 20 == 0 {
                keep_pace(&intake).await;
            }
        }
        let figures = intake.figures();
        until("within the bound", || figures.segments_bytes.value() <= 40_000).await;
    });
    let (_, restored) = open(small(&scratch), EVERYTHING);
    let kept = numbers(topic(&restored, "busy"));
    assert!((100..1_000).contains(&kept.len()) && kept.last() == Some(&3_000), "{}", kept.len());
    assert_eq!(numbers(topic(&restored, "idle")), [1]);
}

#[test]
fn more_last_values_than_the_bound_do_not_copy_for_ever() {
    let scratch = Scratch::new();
    let options = Options { bytes_max: 20_000, ..small(&scratch) };
    run(options, FEW, &Rc::default(), true, |intake, _| async move {
        for number in 0..150 {
            let name = format!("t{number}");
            intake.take(&publish(&name, 1, 1, &[b'x'; 400]));
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(300)).await;
        let copied = intake.figures().copied.value();
        assert!(intake.figures().segments_bytes.value() < 60_000);
        sleep(Duration::from_millis(300)).await;
        assert_eq!(intake.figures().copied.value(), copied, "it comes to rest");
    });
    let (_, restored) = open(small(&scratch), FEW);
    assert_eq!(topic(&restored, "t149").last.as_ref().map(|last| last.seq), Some(1));
}

#[test]
fn any_number_of_starts_keeps_last_values_and_the_latest_epochs() {
    let scratch = Scratch::new();
    for start in 1..=150_u64 {
        run(scratch.options(), FEW, &Rc::default(), true, |intake, restored| async move {
            let next = restored.topics.iter().find(|topic| &*topic.name == "still");
            intake.take(&begin("still", start, next.map_or(1, |topic| topic.next_seq)));
            if start == 1 {
                intake.take(&publish("still", 1, 1, &words("still", 1)));
            }
            intake.take(&publish("moves", start, start, &words("moves", start)));
        });
    }
    let (_, restored) = open(scratch.options(), FEW);
    let still = topic(&restored, "still");
    assert_eq!((still.next_seq, still.epochs.len()), (2, 65));
    assert_eq!(numbers(still), [1]);
    assert_eq!(still.epochs.last().map(|range| range.epoch), Some(150));
    let moves = topic(&restored, "moves");
    assert_eq!(numbers(moves), (131..=150).collect::<Vec<_>>());
    assert_eq!(moves.epochs[0].epoch, 86);
}

#[test]
fn age_is_a_bound_as_well() {
    let scratch = Scratch::new();
    let young = Keep { age: Some(Duration::from_millis(200)), ..EVERYTHING };
    run(scratch.options(), young, &Rc::default(), true, |intake, _| async move {
        intake.take(&publish("a", 1, 1, &words("a", 1)));
        intake.take(&publish("a", 1, 2, &words("a", 2)));
        sleep(Duration::from_millis(300)).await;
    });
    let (_, restored) = open(scratch.options(), young);
    assert_eq!(numbers(topic(&restored, "a")), [2], "the last value has no age");
}
