//! uringcast: market data in once, out to hundreds of thousands of WebSocket connections.
//!
//! The rooms, and who may name whom, are in `ARCHITECTURE.md`.

#![forbid(unsafe_code)]

pub mod census;
pub mod cgroup;
pub mod clock;
pub mod config;
pub mod conn;
pub mod control;
pub mod counters;
pub mod deflate;
pub mod doctor;
pub mod flags;
mod gathering;
pub mod helper;
pub mod home;
pub mod ids;
pub mod journal;
pub mod late;
pub mod logging;
pub mod mail;
pub mod payload;
pub mod plan;
pub mod publication;
pub mod reactor;
pub mod revived;
pub mod rules;
pub mod serve;
pub mod settings;
pub mod shard;
pub mod shared;
pub mod timers;
pub mod topics;
