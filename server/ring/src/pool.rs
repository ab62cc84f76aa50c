//! Pooled buffers.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// A pool of one thread.
#[derive(Debug, Default)]
pub struct Pool {}

/// A buffer with one owner, who may write it.
#[derive(Debug)]
pub struct Lease(Box<[u8]>);

/// A buffer nobody writes any more.
#[derive(Clone, Debug)]
pub struct Frame(Arc<[u8]>);

/// The pool is at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("buffer pool exhausted")]
pub struct PoolFull;

impl Pool {
    /// A buffer of at least `bytes`.
    ///
    /// # Errors
    /// The pool is at its bound.
    pub fn take(&mut self, bytes: usize) -> Result<Lease, PoolFull> {
        Ok(Lease(vec![0; bytes.next_power_of_two().max(512)].into()))
    }
}

impl Lease {
    /// From now on nobody writes it.
    pub fn freeze(self) -> Frame {
        Frame(self.0.into())
    }
}

impl Deref for Lease {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
impl Deref for Frame {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
