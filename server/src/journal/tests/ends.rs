//! Whether it is known that nothing is missing: after which ends it is, and since when.

use std::{fs, io, rc::Rc};

use super::{
    super::Options,
    rig::{EVERYTHING, Faults, Scratch, begin, open, publish, run, words},
};
use crate::{clock, mail::JournalEntry};

/// A life with one publication. Since when nothing is missing, as it was told at its beginning.
fn live(options: Options, faults: &Rc<Faults>, clean_end: bool, seq: u64) -> Option<u64> {
    run(options, EVERYTHING, faults, clean_end, |intake, restored| async move {
        intake.take(&begin("a", seq, seq));
        intake.take(&publish("a", seq, seq, &words("a", seq)));
        restored.complete_from_us
    })
}

#[test]
fn orderly_ends_hold_together_and_a_kill_ends_it() {
    let scratch = Scratch::new();
    let before_us = clock::now().utc_us;
    assert_eq!(live(scratch.options(), &Rc::default(), true, 1), None, "the first");
    let told = live(scratch.options(), &Rc::default(), true, 2).expect("an orderly end");
    assert!((before_us..clock::now().utc_us).contains(&told));
    let again = live(scratch.options(), &Rc::default(), false, 3);
    assert_eq!(again, Some(told), "since the first, not since the last");
    assert_eq!(live(scratch.options(), &Rc::default(), true, 4), None, "after a kill");
    let anew = live(scratch.options(), &Rc::default(), true, 5).expect("an orderly end");
    assert!(anew > told);
}

#[test]
fn what_was_dropped_is_missing_though_the_end_was_orderly() {
    let scratch = Scratch::new();
    let lives: [fn(&super::super::Intake); 2] = [
        |intake| {
            intake.take(&JournalEntry::Dropped { topic: "a".into(), epoch: 1, seq: 1 });
        },
        super::super::Intake::missed,
    ];
    for life in lives {
        run(scratch.options(), EVERYTHING, &Rc::default(), true, |intake, _| async move {
            life(&intake);
        });
        assert_eq!(open(scratch.options(), EVERYTHING).1.complete_from_us, None);
    }
}

#[test]
fn what_was_not_written_is_missing() {
    let scratch = Scratch::new();
    let faults = Rc::<Faults>::default();
    faults.write.set(Some(io::ErrorKind::StorageFull));
    assert_eq!(live(scratch.options(), &faults, true, 1), None);
    assert_eq!(open(scratch.options(), EVERYTHING).1.complete_from_us, None);
}

#[test]
fn what_was_damaged_since_is_missing() {
    let scratch = Scratch::new();
    live(scratch.options(), &Rc::default(), true, 1);
    let segment = &scratch.segments()[0];
    let bytes = fs::read(segment).expect("a segment");
    fs::write(segment, &bytes[..bytes.len() - 1]).expect("a segment");
    assert_eq!(open(scratch.options(), EVERYTHING).1.complete_from_us, None);
}
