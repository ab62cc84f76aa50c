//! What measuring takes: the clock, rounds of competing cases, a table of the result; and the floors,
//! the least that a fan-out on one ring can cost.
//!
//! * [`suite`] measures cases in turns ([`clock`]) and prints a [`table`]; `micro` is made of it.
//!   [`requests`] are upgrades to be read.
//! * [`null_server`] is a whole shard on the [`null_ring`], which sends nowhere; [`fairness`] counts on
//!   it what lanes wait for each other, [`growth`] measures what more connections and topics cost.
//! * [`floor`] is what both floors share: accepting, the handshake, the publisher's frames. [`plain`]
//!   sends one frame at a time, [`lane`] everything that a subscriber has not got yet. [`accept`] takes
//!   connections, and nothing else.
//!
//! Nothing here fails because something was slow, and nothing may depend on this crate.

#![forbid(unsafe_code)]

pub mod accept;
pub mod clock;
pub mod fairness;
pub mod floor;
pub mod growth;
pub mod lane;
pub mod null_ring;
pub mod null_server;
pub mod plain;
pub mod requests;
pub mod suite;
pub mod table;
