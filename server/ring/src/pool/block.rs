//! A block's owners: one who writes, or many who read, on any thread.
//!
//! Knows: reference counts, the way home, what happens when the pool went first. Must not know: size
//! classes, where memory comes from.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    fmt,
    ops::{Deref, DerefMut},
    process,
    ptr::{self, NonNull},
    sync::atomic::{AtomicIsize, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence},
};

use super::region::Region;

/// A buffer with one owner, who may write it. Dropping it gives it back.
pub struct Lease(Handle);

/// A buffer nobody writes any more; a clone is one more reference. The last one dropped, on any
/// thread, gives it back.
#[derive(Clone)]
pub struct Frame(Handle);

impl Lease {
    /// From now on nobody writes it.
    pub fn freeze(self) -> Frame {
        Frame(self.0)
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the handle keeps the bytes, which were initialised when mapped; only this lease's
        // own `&mut` writes them.
        unsafe { self.0.bytes.as_ref() }
    }
}

impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and a lease is the only handle of its block.
        unsafe { self.0.bytes.as_mut() }
    }
}

impl Deref for Frame {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the handle keeps the bytes, and nobody writes a frozen block.
        unsafe { self.0.bytes.as_ref() }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.len())
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}

/// One reference to a block.
struct Handle {
    bytes: NonNull<[u8]>,
    header: NonNull<Header>,
}

// SAFETY: the bytes are plain memory, the header is all atomics; `Lease` and `Frame` decide who may
// write.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Clone for Handle {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: a handle keeps its header.
        let header = unsafe { self.header.as_ref() };
        // As in `Arc`: the clone's owner got it from one who has the block, so nothing to order.
        if header.references.fetch_add(1, Ordering::Relaxed) > REFERENCES_MAX {
            // Leaked two thousand million frames: a bug that would end in freed memory being sent.
            process::abort();
        }
        Self { bytes: self.bytes, header: self.header }
    }
}

impl Drop for Handle {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: a handle keeps its header.
        let header = unsafe { self.header.as_ref() };
        // As in `Arc`: every use by this owner happens before the block's next life …
        if header.references.fetch_sub(1, Ordering::Release) == 1 {
            // … and the last one takes that over from the others.
            fence(Ordering::Acquire);
            // SAFETY: that was the last reference.
            unsafe { send_home(self.header, self.bytes) };
        }
    }
}

/// What is known of a block, apart from its bytes. Valid when all zero.
pub(super) struct Header {
    references: AtomicU32,
    /// The owner's page, or [`LARGE`].
    page: AtomicU32,
    /// While free or on the way home: the next one there.
    next: AtomicPtr<Self>,
    /// While out: the home.
    shared: AtomicPtr<Shared>,
}

impl Header {
    pub(super) fn page(&self) -> u32 {
        self.page.load(Ordering::Relaxed)
    }

    pub(super) fn free_next(&self) -> Option<NonNull<Self>> {
        NonNull::new(self.next.load(Ordering::Relaxed))
    }

    pub(super) fn set_free_next(&self, next: Option<NonNull<Self>>) {
        self.next.store(next.map_or(ptr::null_mut(), NonNull::as_ptr), Ordering::Relaxed);
    }
}

/// A block on its way out.
pub(super) struct Block {
    pub(super) bytes: NonNull<[u8]>,
    pub(super) header: NonNull<Header>,
    pub(super) page: u32,
}

/// The home of a pool's blocks. It lives until the pool and all its blocks are gone.
struct Shared {
    /// Blocks that came home, newest first. Others only push, the owner only takes them all, so
    /// there is no ABA. [`ORPHANED`] once the pool is gone.
    returned: AtomicPtr<Header>,
    large_bytes: AtomicUsize,
    /// Once the pool is gone: blocks that are out. Who brings it to zero frees everything. Below
    /// zero while the pool is still counting.
    orphans: AtomicIsize,
    /// Written by the pool's drop only, to be dropped with this.
    regions: Vec<Region>,
}

/// The owner's side.
pub(super) struct Owner {
    shared: NonNull<Shared>,
    /// Blocks that are out or on the way home.
    out: isize,
}

// SAFETY: what it points to is for any thread, and only the owner takes.
unsafe impl Send for Owner {}

impl Owner {
    pub(super) fn new() -> Self {
        let shared = Box::new(Shared {
            returned: AtomicPtr::new(ptr::null_mut()),
            large_bytes: AtomicUsize::new(0),
            orphans: AtomicIsize::new(0),
            regions: Vec::new(),
        });
        Self { shared: NonNull::from(Box::leak(shared)), out: 0 }
    }

    pub(super) fn large_bytes(&self) -> usize {
        self.shared().large_bytes.load(Ordering::Relaxed)
    }

    /// Lends a free block.
    pub(super) fn lease(&mut self, Block { bytes, header, page }: Block) -> Lease {
        // SAFETY: a free block's header is the owner's, and its region lives.
        let header_ref = unsafe { header.as_ref() };
        header_ref.page.store(page, Ordering::Relaxed);
        header_ref.shared.store(self.shared.as_ptr(), Ordering::Relaxed);
        header_ref.references.store(1, Ordering::Relaxed);
        self.out += 1;
        Lease(Handle { bytes, header })
    }

    /// Allocates and lends exactly `bytes`; `None` when the system has no memory.
    pub(super) fn lease_large(&mut self, bytes: usize) -> Option<Lease> {
        let layout = large_layout(bytes)?;
        // SAFETY: large blocks are not of size zero.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let header = NonNull::from(Box::leak(Box::new(Header {
            references: AtomicU32::new(1),
            page: AtomicU32::new(LARGE),
            next: AtomicPtr::new(ptr::null_mut()),
            shared: AtomicPtr::new(self.shared.as_ptr()),
        })));
        self.shared().large_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.out += 1;
        Some(Lease(Handle { bytes: NonNull::slice_from_raw_parts(memory, bytes), header }))
    }

    /// Hands each block that came home to `give`, which must not unwind.
    pub(super) fn collect(&mut self, mut give: impl FnMut(NonNull<Header>)) {
        if self.shared().returned.load(Ordering::Relaxed).is_null() {
            return;
        }
        let first = self.shared().returned.swap(ptr::null_mut(), Ordering::Acquire);
        self.out -= walk(first, &mut give);
    }

    /// The pool is gone: whoever drops the last block frees the regions, perhaps at once.
    pub(super) fn orphan(&mut self, regions: Vec<Region>) {
        // SAFETY: others touch only the atomics of the home.
        let place = unsafe { &raw mut (*self.shared.as_ptr()).regions };
        // SAFETY: as above; the place holds an empty vector until now.
        unsafe { place.write(regions) };
        // Release: who frees the home sees the regions.
        let first = self.shared().returned.swap(ORPHANED, Ordering::AcqRel);
        self.out -= walk(first, &mut |_| {});
        let out = self.out;
        if self.shared().orphans.fetch_add(out, Ordering::AcqRel) + out == 0 {
            // SAFETY: the pool is gone, and so are all blocks.
            drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
        }
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the home outlives the owner, and shared references see only its atomics.
        unsafe { self.shared.as_ref() }
    }
}

/// Hands over each block of a list, frees the large ones' headers, counts them all.
fn walk(first: *mut Header, give: &mut impl FnMut(NonNull<Header>)) -> isize {
    let mut count = 0;
    let mut at = NonNull::new(first);
    while let Some(header) = at {
        count += 1;
        // SAFETY: a block that came home is the caller's alone.
        let header_ref = unsafe { header.as_ref() };
        at = header_ref.free_next();
        if header_ref.page() == LARGE {
            // SAFETY: boxed in `lease_large`, and its last reference is gone.
            drop(unsafe { Box::from_raw(header.as_ptr()) });
        } else {
            give(header);
        }
    }
    count
}

/// # Safety
/// The caller held the block's last reference.
#[inline(never)]
unsafe fn send_home(header: NonNull<Header>, bytes: NonNull<[u8]>) {
    // SAFETY: the header lives until it is home.
    let header_ref = unsafe { header.as_ref() };
    let home = header_ref.shared.load(Ordering::Relaxed);
    // SAFETY: the home lives at least until this block is counted there. Only the atomics of it are
    // looked at.
    let shared = unsafe { &*home };
    let large = header_ref.page() == LARGE;
    if large && let Some(layout) = large_layout(bytes.len()) {
        shared.large_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        // SAFETY: allocated with this layout in `lease_large`; the last reference is gone.
        unsafe { dealloc(bytes.as_ptr().cast(), layout) };
    }
    let mut first = shared.returned.load(Ordering::Acquire);
    while first != ORPHANED {
        header_ref.next.store(first, Ordering::Relaxed);
        // Release: the owner sees all that was done with the block. After this the home may go away.
        match shared.returned.compare_exchange_weak(
            first,
            header.as_ptr(),
            Ordering::Release,
            Ordering::Acquire,
        ) {
            Ok(_) => return,
            Err(now) => first = now,
        }
    }
    if large {
        // SAFETY: boxed in `lease_large`, and its last reference is gone.
        drop(unsafe { Box::from_raw(header.as_ptr()) });
    }
    if shared.orphans.fetch_sub(1, Ordering::AcqRel) == 1 {
        // SAFETY: the pool is gone, and this was the last block.
        drop(unsafe { Box::from_raw(home) });
    }
}

fn large_layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, 64).ok()
}

/// In place of a page: the block is an allocation of its own.
const LARGE: u32 = u32::MAX;
/// In place of the first returned block: nobody takes them any more. No header is at an odd address.
const ORPHANED: *mut Header = ptr::without_provenance_mut(1);
/// As in `Arc`.
const REFERENCES_MAX: u32 = i32::MAX as u32;
