//! For which topics, bodies and windows there are deflated lanes anywhere in the process.
//!
//! Knows: how many lanes' entries want each, counted by name. Must not know: lanes, topics' state,
//! or who compresses.
//!
//! The home of a topic asks once per publication; where nobody uses deflate that is one load.
//! Exact names are counted by their hash, in `BUCKETS` buckets, so that a topic with plain
//! subscribers only is not compressed (but for one in a bucket with another, by chance) because some
//! other topic's are not plain. A pattern counts for every topic.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::publication::{
    Body, Format,
    deflated::{BODIES, WINDOWS, Wanted},
};

/// The counts. Written when a lane's interest changes, by any thread; read by all.
#[derive(Debug)]
pub struct Census {
    /// All that is counted below.
    entries: AtomicU32,
    patterns: Counts,
    names: Box<[Counts]>,
}

/// One cache line: by body and window.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counts([[AtomicU32; WINDOWS]; BODIES]);

impl Census {
    /// A deflated lane has an entry more; `name` is the hash of an exact name, `None` stands for a
    /// pattern. Plain formats are not counted.
    pub fn add(&self, name: Option<u64>, format: Format) {
        if let Some(count) = self.counts(name).of(format) {
            count.fetch_add(1, Relaxed);
            self.entries.fetch_add(1, Relaxed);
        }
    }

    /// A deflated lane has an entry less.
    pub fn remove(&self, name: Option<u64>, format: Format) {
        if let Some(count) = self.counts(name).of(format) {
            count.fetch_sub(1, Relaxed);
            self.entries.fetch_sub(1, Relaxed);
        }
    }

    /// What may be wanted of a topic whose name has this hash.
    #[inline]
    pub fn wanted(&self, topic_hash: u64) -> Wanted {
        if self.entries.load(Relaxed) == 0 {
            return Wanted::default();
        }
        let mut wanted = Wanted::default();
        self.patterns.wanted(&mut wanted);
        self.counts(Some(topic_hash)).wanted(&mut wanted);
        wanted
    }

    /// Entries of deflated lanes.
    pub fn entries(&self) -> u32 {
        self.entries.load(Relaxed)
    }

    fn counts(&self, name: Option<u64>) -> &Counts {
        name.map_or(&self.patterns, |hash| &self.names[hash as usize % BUCKETS])
    }
}

impl Counts {
    fn of(&self, Format { body, window_bits }: Format) -> Option<&AtomicU32> {
        let window = window_bits.checked_sub(8)?;
        self.0.get(body as usize)?.get(usize::from(window))
    }

    fn wanted(&self, wanted: &mut Wanted) {
        for body in [Body::Json, Body::Raw] {
            for (slot, count) in self.0[body as usize].iter().enumerate() {
                if count.load(Relaxed) > 0 {
                    wanted.add(Format { body, window_bits: 8 + slot as u8 });
                }
            }
        }
    }
}

impl Default for Census {
    fn default() -> Self {
        Self {
            entries: AtomicU32::new(0),
            patterns: Counts::default(),
            names: (0..BUCKETS).map(|_| Counts::default()).collect(),
        }
    }
}

/// 64 KiB in all.
const BUCKETS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn format(body: Body, window_bits: u8) -> Format {
        Format { body, window_bits }
    }

    fn wanted(formats: &[Format]) -> Wanted {
        let mut wanted = Wanted::default();
        formats.iter().for_each(|&format| wanted.add(format));
        wanted
    }

    #[test]
    fn a_name_is_wanted_of_that_name_and_a_pattern_of_all() {
        let census = Census::default();
        let (json, raw) = (format(Body::Json, 15), format(Body::Raw, 9));
        census.add(Some(7), json);
        census.add(Some(7), json);
        assert_eq!(census.wanted(7), wanted(&[json]));
        assert!(census.wanted(8).is_empty());
        census.add(None, raw);
        assert_eq!(census.wanted(7), wanted(&[json, raw]));
        assert_eq!(census.wanted(8), wanted(&[raw]));
        census.remove(Some(7), json);
        assert_eq!(census.wanted(7), wanted(&[json, raw]));
        census.remove(Some(7), json);
        assert_eq!(census.wanted(7), wanted(&[raw]));
        census.remove(None, raw);
        assert!(census.wanted(7).is_empty());
        assert_eq!(census.entries(), 0);
    }

    #[test]
    fn plain_formats_and_windows_that_there_are_not_do_not_count() {
        let census = Census::default();
        for window_bits in [0, 7, 16, 255] {
            census.add(Some(1), format(Body::Raw, window_bits));
            assert_eq!(census.entries(), 0);
            census.remove(Some(1), format(Body::Raw, window_bits));
            assert_eq!(census.entries(), 0);
        }
    }
}
