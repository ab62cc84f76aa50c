//! Whether a reader sleeps, and so whether a writer has to wake it.
//!
//! Knows: one flag. Must not know: what the reader sleeps in, how it is woken, and which rings it
//! reads.
//!
//! The reader says that it is going to sleep and looks at its rings once more; the writer pushes
//! and looks whether the reader sleeps. Between each side's write and its look is a fence, so at
//! least one of them sees the other's: no message waits for a sleeper that nobody wakes. In the
//! common case (the reader is busy) a writer's look is one load of a line that both share.

use crate::atomics::{AtomicBool, Ordering, fence};

/// One for each reader, shared with all that write to it.
#[derive(Debug)]
#[repr(align(128))]
pub struct Doorbell {
    sleeping: AtomicBool,
}

impl Doorbell {
    /// A doorbell of a reader that is awake.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { sleeping: AtomicBool::new(false) }
    }

    /// A doorbell of a reader that is awake.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { sleeping: AtomicBool::new(false) }
    }

    /// The reader, before it sleeps. It must look at all its rings after this, and sleep only if
    /// they are empty; then, or when it has slept, call [`Self::awake`].
    #[inline]
    pub fn prepare_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence in `should_ring`.
        fence(Ordering::SeqCst);
    }

    /// The reader, when it will not sleep after all or has woken: nobody need ring. A bell rung just
    /// before may still arrive; the reader must bear being woken for nothing.
    #[inline]
    pub fn awake(&self) {
        // No ordering: a writer that misses it rings once for nothing.
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// A writer, after it has pushed: whether it has to wake the reader. True for one writer per
    /// sleep; the others may rely on that one.
    #[inline]
    pub fn should_ring(&self) -> bool {
        // Pairs with the fence in `prepare_sleep`.
        fence(Ordering::SeqCst);
        self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed)
    }
}

impl Default for Doorbell {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_writer_rings_once_per_sleep() {
        let bell = Doorbell::new();
        assert!(!bell.should_ring());
        bell.prepare_sleep();
        assert!(bell.should_ring());
        assert!(!bell.should_ring());
        bell.awake();
        assert!(!bell.should_ring());
        bell.prepare_sleep();
        bell.awake();
        assert!(!bell.should_ring());
    }
}
