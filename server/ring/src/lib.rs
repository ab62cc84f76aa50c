//! io_uring for a push server: direct descriptors, shared receive buffers, scoped batches of sends.
//!
//! Knows: entries, completions, buffers, kernel versions, errno. Must not know: anything of ours; no
//! connection, no WebSocket, no topic.
//!
//! [`Io`] is the seam: what a shard may ask and what it hears back. [`Ring`] is the real one.

#![allow(
    unsafe_code,
    reason = "io_uring reads and writes memory behind the compiler's back; that it is sound is \
              shown here, once, for all who use this crate"
)]

mod accept;
mod buffers;
mod by_hand;
mod capabilities;
pub mod error;
#[cfg(feature = "experiments")]
pub mod experiments;
pub mod io;
pub mod listen;
mod mapping;
pub mod pin;
pub mod pool;
mod queue;
mod ring;
mod selftest;
mod send;
mod setup;
mod sockets;
mod sys;
mod tag;
mod wake;
pub mod zero_copy;

pub use buffers::Buffer;
pub use capabilities::{Capabilities, Feature, Tier, TierChoice};
pub use error::{Errno, RingError};
pub use io::*;
pub use queue::RingCounters;
pub use ring::{Ring, RingDescription};
pub use setup::RingOptions;
pub use wake::WakeHandle;
