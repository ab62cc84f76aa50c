//! What the broadcast servers in `bin` share: flags, pinned threads, who is subscribed, and what waits
//! for each. Knows tokio; must not know any of the WebSocket libraries.
//!
//! All of them do the same: who asks for a path that begins with `/pub` publishes, and each of its messages
//! goes to all who asked for another path. Text stays text, binary stays binary. No topics, no bounds:
//! what a slow client has not read waits for it.

pub mod flags;
pub mod hub;
pub mod queue;
pub mod threads;

/// Of all the servers, as of ours.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How a publisher's path begins.
pub const PUBLISH: &str = "/pub";
