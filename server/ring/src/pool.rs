//! Pooled memory for frames and logs.
//!
//! Knows: size classes, pages, bounds, how a block comes home from another thread. Must not know:
//! what the bytes mean, or who waits for them.
//!
//! A pool belongs to one thread. It maps regions of 2 MiB and cuts them into pages of 64 KiB; a page
//! holds blocks of one size class and, once all of them are back, may serve another. A block is taken
//! as a [`Lease`] (one owner, writable), frozen into a [`Frame`] (shared, read-only, any thread) and
//! comes home over a lock-free list when the last of its owners drops it. A taken block costs its
//! owner no lock, no system call and no allocation once the regions are mapped.
//!
//! A block's reference count and links live outside its bytes, in a table of its region: capacities
//! are whole powers of two, and a reader's cache lines hold nothing that others write.

mod block;
mod pages;
mod region;

use std::{fmt, os::fd::OwnedFd};

use rustix::process::{Resource, geteuid, getrlimit};

pub use self::block::{Frame, Lease};
use self::{
    pages::{Pages, SIZE_CLASSES},
    region::Region,
};

/// Bounds of a [`Pool`].
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Bytes mapped and allocated at most; less than 2 MiB hold no block of up to 64 KiB. Default 1 GiB.
    pub bytes_max: usize,
    /// Of these, bytes registered with the ring at most: registered memory is resident and charged
    /// to the user's `RLIMIT_MEMLOCK`, as are the rings of all of the user's processes. Default
    /// 64 MiB, or an eighth of the limit for who is bound by it.
    pub registered_bytes_max: usize,
}

/// A pool of one thread.
pub struct Pool {
    options: PoolOptions,
    pages: Pages,
    shared: block::Owner,
    /// The ring to register regions with.
    registrar: Option<OwnedFd>,
    registered_bytes: usize,
    registrations_failed: u32,
    /// Ask for huge pages under regions that are mapped from now on.
    #[cfg(feature = "experiments")]
    pub huge_pages: bool,
}

/// The pool is at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("buffer pool exhausted")]
pub struct PoolFull;

impl Pool {
    /// A pool whose memory is not registered with any ring.
    pub fn new(options: PoolOptions) -> Self {
        Self {
            options,
            pages: Pages::default(),
            shared: block::Owner::new(),
            registrar: None,
            registered_bytes: 0,
            registrations_failed: 0,
            #[cfg(feature = "experiments")]
            huge_pages: false,
        }
    }

    /// [`Pool::new`] with the default bounds.
    pub fn unregistered() -> Self {
        Self::new(PoolOptions::default())
    }

    /// A pool that registers its regions with a ring, whose table of buffers is empty and sparse and
    /// has `REGIONS_REGISTERED_MAX` places.
    pub(crate) fn registered(options: PoolOptions, registrar: OwnedFd) -> Self {
        let mut pool = Self::new(options);
        pool.registrar = Some(registrar);
        pool
    }

    /// A block of at least `bytes`, of the smallest size class that holds them and has one (512 B to
    /// 64 KiB in powers of two, aligned to 64 B; above that an allocation of exactly `bytes`). Its
    /// content is what its last owner left.
    ///
    /// # Errors
    /// The pool is at its bound.
    pub fn take(&mut self, bytes: usize) -> Result<Lease, PoolFull> {
        let Some(class) = SIZE_CLASSES.iter().position(|&size| bytes <= size) else {
            return self.take_large(bytes);
        };
        if let Some(lease) = self.take_of(class) {
            return Ok(lease);
        }
        self.collect();
        if let Some(lease) = self.take_of(class) {
            return Ok(lease);
        }
        if self.grow()
            && let Some(lease) = self.take_of(class)
        {
            return Ok(lease);
        }
        // At the bound: a larger block than needed is better than none.
        (class + 1..SIZE_CLASSES.len()).find_map(|class| self.take_of(class)).ok_or(PoolFull)
    }

    /// Brings home what others have dropped. [`Pool::take`] does it by itself when it needs to.
    pub fn collect(&mut self) {
        let pages = &mut self.pages;
        self.shared.collect(|header| pages.give(header));
    }

    /// Gives back to the system what is mapped, unregistered and without a block out: after a burst.
    pub fn trim(&mut self) {
        self.collect();
        self.pages.trim();
    }

    /// Bytes mapped and allocated.
    pub fn bytes(&self) -> usize {
        self.pages.bytes_mapped() + self.shared.large_bytes()
    }

    /// Bytes of blocks that are out, as far as known: what was dropped since the last
    /// [`Pool::collect`] still counts.
    pub fn bytes_in_use(&self) -> usize {
        self.pages.bytes_in_use() + self.shared.large_bytes()
    }

    /// Bytes registered with the ring.
    pub fn registered_bytes(&self) -> usize {
        self.registered_bytes
    }

    /// Regions that the kernel refused to register (`RLIMIT_MEMLOCK`), and that serve unregistered.
    pub fn registrations_failed(&self) -> u32 {
        self.registrations_failed
    }

    fn take_of(&mut self, class: usize) -> Option<Lease> {
        let block = self.pages.take(class)?;
        Some(self.shared.lease(block))
    }

    fn take_large(&mut self, bytes: usize) -> Result<Lease, PoolFull> {
        self.collect();
        if bytes > self.room() {
            self.pages.trim();
        }
        if bytes > self.room() {
            return Err(PoolFull);
        }
        self.shared.lease_large(bytes).ok_or(PoolFull)
    }

    /// Bytes to the bound.
    fn room(&self) -> usize {
        self.options.bytes_max.saturating_sub(self.bytes())
    }

    /// Maps one more region. `false` at the bound, or when the system has no memory.
    fn grow(&mut self) -> bool {
        if region::REGION_BYTES > self.room() {
            return false;
        }
        let Some(mut region) = Region::map() else { return false };
        #[cfg(feature = "experiments")]
        if self.huge_pages {
            region.advise_huge_pages();
        }
        self.register(&mut region);
        self.pages.add(region);
        true
    }

    fn register(&mut self, region: &mut Region) {
        let Some(ring) = &self.registrar else { return };
        let index = self.registered_bytes / region::REGION_BYTES;
        if self.registered_bytes + region::REGION_BYTES > self.options.registered_bytes_max
            || index >= REGIONS_REGISTERED_MAX as usize
        {
            return;
        }
        match region.register(ring, index as u32) {
            Ok(()) => self.registered_bytes += region::REGION_BYTES,
            Err(_) => self.registrations_failed += 1,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.orphan(self.pages.take_regions());
    }
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { bytes_max: 1 << 30, registered_bytes_max: registered_bytes_default() }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::unregistered()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("bytes", &self.bytes())
            .field("bytes_in_use", &self.bytes_in_use())
            .field("registered_bytes", &self.registered_bytes)
            .field("registrations_failed", &self.registrations_failed)
            .finish_non_exhaustive()
    }
}

fn registered_bytes_default() -> usize {
    if cfg!(miri) {
        return 0;
    }
    match getrlimit(Resource::Memlock).current {
        // Root is not bound by it (CAP_IPC_LOCK).
        Some(limit) if !geteuid().is_root() => (64 << 20).min(limit as usize / 8),
        _ => 64 << 20,
    }
}

/// Places in a ring's sparse table of buffers: 1 GiB of regions.
pub(crate) const REGIONS_REGISTERED_MAX: u32 = 512;
