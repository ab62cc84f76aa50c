//! Errors of the ring.

/// An errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

/// What the ring cannot go on after.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// A system call failed.
    #[error("{0}")]
    System(#[from] std::io::Error),
}
