//! The same with no more than Linux 5.10 had.

mod accept;
mod churn;
mod receive;
mod send;
mod support;
mod wake;

/// No more than Linux 5.10 had.
const TIER: uringcast_ring::TierChoice = uringcast_ring::TierChoice::Base;
