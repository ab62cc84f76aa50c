//! Order books rebuilt by every subscriber, and compared with the publisher's.
//!
//! Knows: what a book is, how it begins and goes on. Must not know: rings, threads, reports.

mod book;
mod figures;
mod follower;
mod market;
mod prologue;
mod publisher;
mod shelf;
pub(crate) mod words;

pub(crate) use self::figures::{Figures, Sort};
pub(crate) use self::follower::{BooksPlan, Follower};
pub(crate) use self::market::Market;
pub(crate) use self::prologue::publish_first;
pub(crate) use self::publisher::PublishersBooks;
