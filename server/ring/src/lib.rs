//! io_uring for a push server.

pub mod error;
pub mod io;
pub mod pool;

pub use io::*;
