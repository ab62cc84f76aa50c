//! A bounded ring with one writer and one reader, each on its own core.
//!
//! Knows: two counters and the slots between them. Must not know: what a message is, and whether
//! the reader sleeps (see [`crate::doorbell`]).
//!
//! The counters run freely and wrap at `usize::MAX`; `tail − head` is the number of messages
//! waiting and `counter & mask` the slot. Each end keeps a copy of the other's counter and looks at
//! the real one only when the copy says full (or empty), so that in a busy ring the cache line of a
//! counter crosses between the cores once for many messages.

use std::{fmt, mem::MaybeUninit};

use crate::atomics::{Arc, AtomicUsize, Ordering, UnsafeCell};

/// Makes a ring of `capacity` messages. Its memory is `capacity` times the size of `T` and
/// [`RING_BYTES`], allocated once; what is left in it when both ends are gone is dropped.
///
/// # Panics
/// If `capacity` is not a power of two.
pub fn channel<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    channel_from(capacity, 0)
}

/// The writing end of a ring.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// INVARIANT: equal to `shared.tail`, which nobody else writes.
    tail: usize,
    /// INVARIANT: a value `shared.head` had; so `tail − head` is at most the capacity.
    head: usize,
}

/// The reading end of a ring.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// INVARIANT: equal to `shared.head`, which nobody else writes.
    head: usize,
    /// INVARIANT: a value `shared.tail` had; all slots from `head` to it are initialised.
    tail: usize,
}

impl<T> Producer<T> {
    /// Appends a message.
    ///
    /// # Errors
    /// Gives the message back when the ring is full.
    #[inline]
    pub fn push(&mut self, message: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.head) == self.shared.slots.len() {
            // Acquire: the reader has moved the old message out before it raised its counter.
            self.head = self.shared.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head) == self.shared.slots.len() {
                return Err(message);
            }
        }
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY: the slot is outside head..tail, so the reader does not touch it until the
            // store below, and this is the only writer.
            unsafe { slot.cast::<T>().write(message) }
        });
        self.tail = self.tail.wrapping_add(1);
        // Release: the message is in the slot before the reader can see the counter.
        self.shared.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// How many messages the ring holds when full.
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest message.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail {
            // Acquire: the writer has filled the slots before it raised its counter.
            self.tail = self.shared.tail.0.load(Ordering::Acquire);
            if self.head == self.tail {
                return None;
            }
        }
        let message = self.shared.slot(self.head).with(|slot| {
            // SAFETY: the slot is inside head..tail, so it is initialised and the writer does not
            // touch it until the store below; that store also takes the slot's copy out of use.
            unsafe { slot.cast::<T>().read() }
        });
        self.head = self.head.wrapping_add(1);
        // Release: the message is out of the slot before the writer can use it again.
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(message)
    }

    /// Nothing is waiting. Looks at the writer's counter itself, not at the copy.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head == self.shared.tail.0.load(Ordering::Acquire)
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("head", &self.head).finish_non_exhaustive()
    }
}

/// What a ring takes beside its slots, bytes: the counters on lines of their own, the head of the
/// allocations, and both ends.
pub const RING_BYTES: usize = 640;

/// A ring whose counters start anywhere, so that tests see them wrap.
fn channel_from<T>(capacity: usize, start: usize) -> (Producer<T>, Consumer<T>) {
    // Kept in release: the slots' index is only sound for a power of two.
    assert!(capacity.is_power_of_two(), "a ring's capacity is a power of two, not {capacity}");
    let shared = Arc::new(Shared {
        head: Line(AtomicUsize::new(start)),
        tail: Line(AtomicUsize::new(start)),
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    let producer = Producer { shared: Arc::clone(&shared), tail: start, head: start };
    (producer, Consumer { shared, head: start, tail: start })
}

struct Shared<T> {
    /// How many messages were taken out; written by the reader only.
    head: Line<AtomicUsize>,
    /// How many messages were put in; written by the writer only.
    tail: Line<AtomicUsize>,
    /// INVARIANT: a power of two of them; exactly those from `head` to `tail` are initialised.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: the slots are the only part that is not `Sync` by itself. A slot is reached through
// `Producer` (there is one, and pushing needs `&mut`) while it is outside head..tail, and through
// `Consumer` (likewise) while it is inside; the counters hand it over with Release and Acquire.
// Messages move from thread to thread, hence `T: Send`; no `&T` is ever shared.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, counter: usize) -> &UnsafeCell<MaybeUninit<T>> {
        // In bounds by the mask, which the compiler sees.
        &self.slots[counter & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.0.load(Ordering::Acquire);
        let mut head = self.head.0.load(Ordering::Acquire);
        while head != tail {
            self.slot(head).with_mut(|slot| {
                // SAFETY: both ends are gone, and slots from head to tail are initialised.
                unsafe { slot.cast::<T>().drop_in_place() }
            });
            head = head.wrapping_add(1);
        }
    }
}

/// 128 bytes: x86 fetches cache lines in pairs, and some arm64 cores have lines that long.
#[repr(align(128))]
struct Line<T>(T);

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn first_in_first_out_and_full_gives_back() {
        let (mut producer, mut consumer) = channel(4);
        assert_eq!(producer.capacity(), 4);
        assert!(consumer.is_empty());
        assert_eq!(consumer.pop(), None);
        for n in 0..4 {
            assert_eq!(producer.push(n), Ok(()));
        }
        assert_eq!(producer.push(4), Err(4));
        assert!(!consumer.is_empty());
        assert_eq!(consumer.pop(), Some(0));
        assert_eq!(producer.push(4), Ok(()));
        assert_eq!(producer.push(5), Err(5));
        for n in 1..5 {
            assert_eq!(consumer.pop(), Some(n));
        }
        assert_eq!(consumer.pop(), None);
    }

    #[test]
    fn the_counters_wrap() {
        let (mut producer, mut consumer) = channel_from(2, usize::MAX - 2);
        for n in 0..10 {
            assert_eq!(producer.push(2 * n), Ok(()));
            assert_eq!(producer.push(2 * n + 1), Ok(()));
            assert_eq!(producer.push(99), Err(99));
            assert_eq!(consumer.pop(), Some(2 * n));
            assert_eq!(consumer.pop(), Some(2 * n + 1));
            assert_eq!(consumer.pop(), None);
        }
    }

    #[test]
    #[should_panic(expected = "power of two")]
    fn capacity_is_a_power_of_two() {
        channel::<u8>(3);
    }

    #[test]
    fn what_is_left_is_dropped_once() {
        let counted = Arc::new(());
        let (mut producer, mut consumer) = channel_from(4, usize::MAX - 1);
        for _ in 0..4 {
            assert!(producer.push(Arc::clone(&counted)).is_ok());
        }
        drop(consumer.pop());
        assert_eq!(Arc::strong_count(&counted), 4);
        drop(consumer);
        assert_eq!(Arc::strong_count(&counted), 4);
        // The reader is gone; its place is still free, and what goes there is dropped too.
        assert!(producer.push(Arc::clone(&counted)).is_ok());
        assert!(producer.push(Arc::clone(&counted)).is_err());
        drop(producer);
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn the_fixed_part_is_within_its_bound() {
        let ends_bytes = size_of::<Producer<u64>>() + size_of::<Consumer<u64>>();
        // The reference counts come before the shared part and are padded to its alignment.
        let shared_bytes = size_of::<Shared<u64>>() + align_of::<Shared<u64>>();
        // What an allocator keeps of its own about the shared part and the slots.
        let allocator_bytes = 2 * 16;
        assert!(ends_bytes + shared_bytes + allocator_bytes <= RING_BYTES);
    }

    #[test]
    fn a_million_messages_between_two_threads() {
        const MESSAGES: u64 = if cfg!(miri) { 1_000 } else { 1_000_000 };
        let (mut producer, mut consumer) = channel(64);
        let writer = thread::spawn(move || {
            for n in 0..MESSAGES {
                // Boxed, so that a message seen twice or torn is a crash or a sanitiser's report.
                let mut message = Box::new(n);
                while let Err(back) = producer.push(message) {
                    message = back;
                    thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < MESSAGES {
            match consumer.pop() {
                Some(message) => {
                    assert_eq!(*message, next);
                    next += 1;
                }
                None => thread::yield_now(),
            }
        }
        writer.join().expect("the writer does not panic");
        assert!(consumer.pop().is_none());
    }
}
