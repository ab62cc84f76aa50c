//! Topic names and patterns.

use alloc::boxed::Box;

/// A valid pattern (or exact name).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);
