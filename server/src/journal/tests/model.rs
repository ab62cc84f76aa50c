//! Thousands of random operations over many starts, against a model that forgets nothing.

use std::{collections::BTreeMap, io::ErrorKind, rc::Rc, time::Duration};

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use tokio::time::sleep;

use super::{
    super::{Fsync, Intake, Keep, Options, Restored},
    rig::{Faults, Scratch, begin, numbers, publish, run, snapshot, words},
};
use crate::mail::JournalEntry;

const KEEP: Keep = Keep { messages: 30, bytes: 1_000, age: None };

/// A topic as its home knows it.
#[derive(Clone, Debug, Default)]
struct Known {
    epoch: u64,
    seq: u64,
    /// Up to here it was on the disk, by the journal's own word.
    durable: u64,
    /// Every epoch of this life of the topic, with its last number.
    epochs: Vec<(u64, u64)>,
    snapshot: Option<u64>,
}

struct World {
    random: Pcg64Mcg,
    topics: BTreeMap<String, Known>,
    epochs_drawn: u64,
}

impl World {
    fn epoch(&mut self) -> u64 {
        self.epochs_drawn += 1;
        self.epochs_drawn
    }

    fn step(&mut self, intake: &Intake) {
        let name = format!("t{}", self.random.random_range(0..8));
        let known = self.topics.contains_key(&name);
        match self.random.random_range(0..100) {
            0..=1 if known => {
                self.topics.remove(&name);
                intake.take(&JournalEntry::Forget { topic: name.as_str().into() });
            }
            2..=6 if known => {
                let topic = self.topics.get_mut(&name).expect("looked at above");
                topic.snapshot = Some(topic.seq);
                intake.take(&snapshot(&name, topic.epoch, topic.seq, &words(&name, topic.seq)));
            }
            _ => {
                if !known {
                    let epoch = self.epoch();
                    let epochs = vec![(epoch, 0)];
                    self.topics.insert(name.clone(), Known { epoch, epochs, ..Known::default() });
                }
                let topic = self.topics.get_mut(&name).expect("made above");
                topic.seq += 1;
                topic.epochs.last_mut().expect("one").1 = topic.seq;
                intake.take(&publish(&name, topic.epoch, topic.seq, &words(&name, topic.seq)));
            }
        }
    }

    /// What is on the disk by the journal's own word.
    fn note_durable(&mut self, intake: &Intake) {
        for (name, topic) in &mut self.topics {
            if let Some((epoch, seq)) = intake.durable_seq(name)
                && epoch == topic.epoch
            {
                topic.durable = topic.durable.max(seq);
            }
        }
    }

    /// Compares, then goes on as homes do: from what is restored.
    fn start(&mut self, intake: &Intake, restored: &Restored, all: bool) {
        assert!(restored.damaged.is_empty(), "{:?}", restored.damaged);
        let mut names = BTreeMap::new();
        for topic in &restored.topics {
            let numbers = numbers(topic);
            names.insert(topic.name.to_string(), (topic.next_seq, numbers));
            let Some(known) = self.topics.get(&*topic.name) else {
                assert!(!all, "{} was deleted", topic.name);
                continue;
            };
            if topic.epochs.iter().all(|range| range.epoch != known.epoch) {
                assert!(!all && known.durable == 0, "{topic:?} is not {known:?}");
                continue;
            }
            assert!(topic.next_seq > known.durable && topic.next_seq <= known.seq + 1, "{known:?}");
            for range in &topic.epochs {
                let of = known.epochs.iter().find(|(epoch, _)| *epoch == range.epoch);
                assert!(of.is_some_and(|(_, last)| range.last_seq <= *last), "{topic:?} {known:?}");
            }
            if let Some(snapshot) = &topic.snapshot {
                assert_eq!(snapshot.payload, words(&topic.name, snapshot.seq));
            }
            if all {
                assert_eq!(topic.next_seq, known.seq + 1, "{}", topic.name);
                assert_eq!(topic.snapshot.as_ref().map(|of| of.seq), known.snapshot);
                let found = &names[&*topic.name].1;
                assert_eq!(
                    *found,
                    wanted(&topic.name, known.seq),
                    "{known:?} {:?} {:?}",
                    topic.epochs,
                    topic.snapshot
                );
            }
        }
        for (name, known) in &self.topics {
            assert!(known.durable == 0 || names.contains_key(name), "{name} is gone: {known:?}");
            assert!(!all || names.contains_key(name), "{name} is gone");
        }
        self.topics.clear();
        for topic in &restored.topics {
            let epoch = self.epoch();
            intake.take(&begin(&topic.name, epoch, topic.next_seq));
            let mut epochs: Vec<_> =
                topic.epochs.iter().map(|range| (range.epoch, range.last_seq)).collect();
            epochs.push((epoch, topic.next_seq - 1));
            let known = Known {
                epoch,
                seq: topic.next_seq - 1,
                durable: 0,
                epochs,
                snapshot: topic.snapshot.as_ref().map(|snapshot| snapshot.seq),
            };
            self.topics.insert(topic.name.to_string(), known);
        }
    }
}

/// The history that the bounds leave of publications 1 to `last`.
fn wanted(name: &str, last: u64) -> Vec<u64> {
    let mut bytes = 0;
    let mut numbers = Vec::new();
    for seq in (1..=last).rev() {
        if !numbers.is_empty() && (numbers.len() as u64 >= KEEP.messages || bytes >= KEEP.bytes) {
            break;
        }
        bytes += words(name, seq).len() as u64;
        if bytes > KEEP.bytes && !numbers.is_empty() {
            break;
        }
        numbers.push(seq);
    }
    numbers.reverse();
    numbers
}

fn play(seed: u64, faulty: bool) {
    let scratch = Scratch::new();
    let random = Pcg64Mcg::seed_from_u64(seed);
    let mut world = World { random, topics: BTreeMap::new(), epochs_drawn: 0 };
    let mut all = true;
    for _ in 0..12 {
        let fsync = match world.random.random_range(0..3) {
            0 => Fsync::Always,
            1 => Fsync::Every(Duration::from_millis(1)),
            _ => Fsync::Off,
        };
        let segment_bytes_max = world.random.random_range(600..6_000);
        let options = Options { fsync, segment_bytes_max, ..scratch.options() };
        let clean = world.random.random_range(0..3) > 0;
        let was_all = all;
        all = clean && !faulty;
        let faults = Rc::new(Faults::default());
        let disk = Rc::clone(&faults);
        let world = &mut world;
        run(options, KEEP, &faults, clean, |intake, restored| async move {
            world.start(&intake, &restored, was_all);
            for _ in 0..world.random.random_range(0..400) {
                world.step(&intake);
                if world.random.random_range(0..15) == 0 {
                    sleep(Duration::from_micros(100)).await;
                }
                if faulty && world.random.random_range(0..100) == 0 {
                    let short = world.random.random_range(1..100);
                    disk.write_bytes_max.set(Some(short));
                    disk.write.set((short < 5).then_some(ErrorKind::StorageFull));
                }
                world.note_durable(&intake);
            }
        });
    }
}

#[test]
fn random_operations_over_many_starts_keep_every_promise() {
    for seed in 0..8 {
        println!("seed {seed}");
        play(seed, false);
    }
}

#[test]
fn and_so_with_a_disk_that_fills_up() {
    for seed in 100..108 {
        println!("seed {seed}");
        play(seed, true);
    }
}
