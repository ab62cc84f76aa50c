//! The ring against a real kernel, on loopback.

mod accept;
mod receive;
mod send;
mod support;
mod wake;
