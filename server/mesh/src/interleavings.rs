//! The rings and the doorbell under loom, which tries every interleaving of their threads:
//! `RUSTFLAGS="--cfg loom" cargo test -p uringcast-mesh --profile ci --lib`.
//!
//! Knows: what may happen between two cores. Must not know: anything beside the mesh.

use loom::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{Consumer, Doorbell, Wake, channel, grid};

#[test]
fn a_ring_of_two_carries_three_in_order() {
    loom::model(|| {
        let (mut producer, mut consumer) = channel(2);
        let writer = thread::spawn(move || {
            // The third uses the slot of the first again.
            for n in 0..3 {
                let mut message = Box::new(n);
                while let Err(back) = producer.push(message) {
                    message = back;
                    thread::yield_now();
                }
            }
        });
        for n in 0..3 {
            loop {
                if let Some(message) = consumer.pop() {
                    assert_eq!(*message, n);
                    break;
                }
                thread::yield_now();
            }
        }
        writer.join().expect("the writer does not panic");
        assert!(consumer.is_empty());
        assert!(consumer.pop().is_none());
    });
}

#[test]
fn what_is_left_is_dropped_once_whoever_goes_last() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (mut producer, mut consumer) = channel(2);
        let counter = Arc::clone(&drops);
        let writer = thread::spawn(move || {
            for _ in 0..3 {
                // When full the message comes back and is dropped here.
                drop(producer.push(Counted(Arc::clone(&counter))));
            }
        });
        drop(consumer.pop());
        drop(consumer);
        writer.join().expect("the writer does not panic");
        assert_eq!(drops.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let bell = Arc::new(Doorbell::new());
        let rings = Arc::new(AtomicUsize::new(0));
        let (mut producer, consumer) = channel(2);
        let writer = {
            let (bell, rings) = (Arc::clone(&bell), Arc::clone(&rings));
            thread::spawn(move || {
                assert!(producer.push(7).is_ok());
                if bell.should_ring() {
                    rings.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        bell.prepare_sleep();
        let asleep = consumer.is_empty();
        writer.join().expect("the writer does not panic");
        // It sleeps only if it will be woken; the writer has come and gone.
        assert!(!asleep || rings.load(Ordering::Relaxed) == 1);
    });
}

#[test]
fn of_two_writers_at_most_one_rings_and_one_if_it_sleeps() {
    loom::model(|| {
        let bell = Arc::new(Doorbell::new());
        let rings = Arc::new(AtomicUsize::new(0));
        let (writers, mut readers): (Vec<_>, Vec<_>) = (0..2)
            .map(|from| {
                let (mut producer, consumer) = channel(1);
                let (bell, rings) = (Arc::clone(&bell), Arc::clone(&rings));
                let writer = thread::spawn(move || {
                    assert!(producer.push(from).is_ok());
                    if bell.should_ring() {
                        rings.fetch_add(1, Ordering::Relaxed);
                    }
                });
                (writer, consumer)
            })
            .unzip();
        bell.prepare_sleep();
        let asleep = readers.iter().all(Consumer::is_empty);
        for writer in writers {
            writer.join().expect("no writer panics");
        }
        let rung = rings.load(Ordering::Relaxed);
        assert!(rung <= 1);
        assert!(!asleep || rung == 1);
        for (from, reader) in readers.iter_mut().enumerate() {
            assert_eq!(reader.pop(), Some(from));
        }
    });
}

#[test]
fn a_node_that_may_sleep_is_woken() {
    loom::model(|| {
        let mut nodes = grid(2, 1);
        let mut writer = nodes.pop().expect("two nodes");
        let mut reader = nodes.pop().expect("two nodes");
        let writer = thread::spawn(move || writer.send(0, 7));
        let asleep = reader.prepare_sleep();
        let woken = writer.join().expect("the writer does not panic");
        assert!(woken == Ok(Wake::Needed) || (woken == Ok(Wake::NotNeeded) && !asleep));
        assert_eq!(reader.receive(9, |from, message| assert_eq!((from, message), (1, 7))), 1);
    });
}
