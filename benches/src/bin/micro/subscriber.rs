//! What the load generator does with a received message: its frame, its stamp, its place, its time.
//!
//! Knows: the load generator's receive path as benches see it. Must not know: the kernel.

use std::hint::black_box;

use uringcast_benches::suite::{Group, Suite};
use uringcast_loadgen::bench::{Subscriber, messages};

pub(crate) fn run(suite: &Suite) {
    for payload_bytes in [57, 64, 128, 512] {
        let name = format!("loadgen: received messages of {payload_bytes} B, 64 KiB at a time");
        if !suite.wants(&name) {
            continue;
        }
        // Its buffers are that long.
        let count = 65_536 / (payload_bytes as u64 + 4);
        let bytes = messages(0, count, payload_bytes);
        let mut subscriber = Subscriber::new(payload_bytes, 1_000_000);
        let take = || {
            subscriber.restart();
            subscriber.feed(black_box(&bytes)).expect("legal frames")
        };
        let group = Group::new(name).bytes(bytes.len() as u64).items(count).case("taken", take);
        suite.run(group);
        assert!(subscriber.is_clean(), "what was measured was right");
    }
}
