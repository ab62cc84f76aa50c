//! The ring against a real kernel, on loopback.

mod accept;
mod churn;
mod receive;
mod send;
mod support;
mod wake;
