//! The mesh: how messages pass between the threads of one process, a thread per core.
//!
//! Every node has a ring of its own to every node ([`ring`]), so that there is one writer and one
//! reader to each and no lock anywhere, and a doorbell ([`doorbell`]) that says whether the reader
//! sleeps and has to be woken. [`grid()`] makes them all at once and gives each thread its [`Node`].
//!
//! Knows: memory shared between cores. Must not know: what a message means, and how a sleeping
//! thread is woken (the ring's `MSG_RING`, an eventfd): it says only *that* it has to be.

mod atomics;
pub mod doorbell;
pub mod grid;
#[allow(unsafe_code, reason = "slots are written by one core and read by another")]
pub mod ring;

#[cfg(all(test, loom))]
mod interleavings;

pub use crate::{
    doorbell::Doorbell,
    grid::{MESH_BYTES_MAX, NODES_MAX, Node, Wake, capacity_for, grid},
    ring::{Consumer, Producer, channel},
};
