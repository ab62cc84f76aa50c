//! The ring against a real kernel, on loopback.

mod accept;
mod churn;
mod receive;
mod send;
mod support;
mod wake;

/// All that the kernel has.
const TIER: uringcast_ring::TierChoice = uringcast_ring::TierChoice::Auto;
