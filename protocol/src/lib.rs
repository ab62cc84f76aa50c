//! WebSocket (RFC 6455) and the uringcast message protocol, as bytes and rules.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod command;
pub mod topic_name;
