//! Which blocks are free, by page and size class.
//!
//! Knows: pages, classes, free lists; all of it the owner's alone. Must not know: reference counts,
//! other threads.

use std::{ops::Range, ptr::NonNull};

use super::{
    block::{Block, Header},
    region::{BLOCK_BYTES_MIN, PAGES_PER_REGION, REGION_BYTES, Region},
};

/// All pages of a pool.
#[derive(Debug)]
pub(super) struct Pages {
    /// `None`: given back to the system.
    regions: Vec<Option<Region>>,
    /// INVARIANT: page `i` is in region `i / PAGES_PER_REGION`.
    pages: Vec<Page>,
    /// Per class, the first of its pages with a free block.
    partial: [u32; SIZE_CLASSES.len()],
    /// The first page that has no class now.
    empty: u32,
    bytes_in_use: usize,
}

#[derive(Debug)]
struct Page {
    /// Blocks that came back, linked through their headers.
    free: Option<NonNull<Header>>,
    /// Blocks `carved ..` of the page were never out since it got its class.
    carved: u16,
    /// Blocks that are out.
    used: u16,
    class: u8,
    /// Neighbours in the list the page is in: its class's partial pages or the empty ones. A page
    /// whose blocks are all out is in none.
    previous: u32,
    next: u32,
}

impl Pages {
    /// A free block of the class; `None` if there is neither one nor an empty page.
    pub(super) fn take(&mut self, class: usize) -> Option<Block> {
        let mut at = self.partial[class];
        if at == NONE {
            at = self.open(class)?;
        }
        let page = &mut self.pages[at as usize];
        let header = match page.free {
            Some(header) => {
                // SAFETY: a header in a free list belongs to this thread alone and its region lives.
                page.free = unsafe { header.as_ref() }.free_next();
                header
            }
            None => {
                let offset = usize::from(page.carved) * SIZE_CLASSES[class];
                page.carved += 1;
                block_at(&self.regions, at, offset).1
            }
        };
        page.used += 1;
        if page.free.is_none() && usize::from(page.carved) == blocks_per_page(class) {
            self.unlink_partial(at);
        }
        self.bytes_in_use += SIZE_CLASSES[class];
        let bytes = self.bytes_of(header, at);
        Some(Block {
            bytes: NonNull::slice_from_raw_parts(bytes, SIZE_CLASSES[class]),
            header,
            page: at,
        })
    }

    /// Takes back a block.
    pub(super) fn give(&mut self, header: NonNull<Header>) {
        // SAFETY: a header that came home belongs to this thread alone and its region lives.
        let header_ref = unsafe { header.as_ref() };
        let at = header_ref.page();
        let page = &mut self.pages[at as usize];
        let class = usize::from(page.class);
        let was_full = page.free.is_none() && usize::from(page.carved) == blocks_per_page(class);
        header_ref.set_free_next(page.free);
        page.free = Some(header);
        page.used -= 1;
        let unused = page.used == 0;
        self.bytes_in_use -= SIZE_CLASSES[class];
        if was_full {
            self.link_partial(at);
        }
        if unused {
            self.unlink_partial(at);
            self.link_empty(at);
        }
    }

    /// Adds a region's pages to the empty ones.
    pub(super) fn add(&mut self, region: Region) {
        let place = match self.regions.iter().position(Option::is_none) {
            Some(place) => place,
            None => {
                self.regions.push(None);
                self.pages.resize_with(self.regions.len() * PAGES_PER_REGION, Page::default);
                self.regions.len() - 1
            }
        };
        self.regions[place] = Some(region);
        for at in pages_of(place) {
            self.link_empty(at);
        }
    }

    /// Gives regions back to the system that have no block out; not registered ones, whose pages the
    /// kernel would keep.
    pub(super) fn trim(&mut self) {
        for (place, region) in self.regions.iter_mut().enumerate() {
            let idle = pages_of(place).all(|at| self.pages[at as usize].used == 0);
            region.take_if(|region| idle && !region.is_registered());
        }
        self.empty = NONE;
        for at in 0..self.pages.len() {
            // A page without a block out is in no other list.
            if self.pages[at].used == 0 && self.regions[at / PAGES_PER_REGION].is_some() {
                self.link_empty(at as u32);
            }
        }
    }

    pub(super) fn bytes_mapped(&self) -> usize {
        self.regions.iter().flatten().count() * REGION_BYTES
    }

    pub(super) fn bytes_in_use(&self) -> usize {
        self.bytes_in_use
    }

    /// The regions, for whoever is to free them; no block can be taken afterwards.
    pub(super) fn take_regions(&mut self) -> Vec<Region> {
        let Self { regions, .. } = std::mem::take(self);
        regions.into_iter().flatten().collect()
    }

    /// Gives an empty page to the class.
    fn open(&mut self, class: usize) -> Option<u32> {
        let at = self.empty;
        let page = self.pages.get_mut(at as usize)?;
        self.empty = page.next;
        *page =
            Page { free: None, carved: 0, used: 0, class: class as u8, previous: NONE, next: NONE };
        self.link_partial(at);
        Some(at)
    }

    fn link_empty(&mut self, at: u32) {
        let page = &mut self.pages[at as usize];
        page.previous = NONE;
        page.next = self.empty;
        self.empty = at;
    }

    fn link_partial(&mut self, at: u32) {
        let class = usize::from(self.pages[at as usize].class);
        let next = std::mem::replace(&mut self.partial[class], at);
        if let Some(next) = self.pages.get_mut(next as usize) {
            next.previous = at;
        }
        let page = &mut self.pages[at as usize];
        page.previous = NONE;
        page.next = next;
    }

    fn unlink_partial(&mut self, at: u32) {
        let Page { class, previous, next, .. } = self.pages[at as usize];
        if let Some(next) = self.pages.get_mut(next as usize) {
            next.previous = previous;
        }
        match self.pages.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => self.partial[usize::from(class)] = next,
        }
    }

    /// Where a header's bytes begin.
    fn bytes_of(&self, header: NonNull<Header>, page: u32) -> NonNull<u8> {
        let (page_bytes, page_header) = block_at(&self.regions, page, 0);
        let headers = (header.addr().get() - page_header.addr().get()) / size_of::<Header>();
        // SAFETY: a header of the page is at the same place among its headers as its block among its
        // bytes, in units of the smallest block.
        unsafe { page_bytes.add(headers * BLOCK_BYTES_MIN) }
    }
}

// SAFETY: the free blocks it points to are its own, and their headers all atomics.
unsafe impl Send for Pages {}

impl Default for Pages {
    fn default() -> Self {
        Self {
            regions: Vec::new(),
            pages: Vec::new(),
            partial: [NONE; SIZE_CLASSES.len()],
            empty: NONE,
            bytes_in_use: 0,
        }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self { free: None, carved: 0, used: 0, class: 0, previous: NONE, next: NONE }
    }
}

fn pages_of(region: usize) -> Range<u32> {
    (region * PAGES_PER_REGION) as u32..((region + 1) * PAGES_PER_REGION) as u32
}

fn block_at(
    regions: &[Option<Region>],
    page: u32,
    offset: usize,
) -> (NonNull<u8>, NonNull<Header>) {
    let page = page as usize;
    let region = regions[page / PAGES_PER_REGION].as_ref();
    let region = region.expect("a region with a page in a list is mapped");
    region.block(page % PAGES_PER_REGION * PAGE_BYTES + offset)
}

const fn blocks_per_page(class: usize) -> usize {
    PAGE_BYTES / SIZE_CLASSES[class]
}

/// Bytes in a page: one of the largest blocks.
pub(super) const PAGE_BYTES: usize = 64 << 10;
/// Capacities of blocks, in bytes.
pub(super) const SIZE_CLASSES: [usize; 8] =
    [512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
/// No page: past the end of any pool.
const NONE: u32 = u32::MAX;
