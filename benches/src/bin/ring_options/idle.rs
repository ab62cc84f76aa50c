//! The kernel's memory for a connection that waits for input.
//!
//! Knows: the kernel's own accounts, `/proc/slabinfo`. Must not know: what waits.

use std::{error::Error, fs};

use uringcast_ring::RingOptions;

use crate::{
    receive::{Receiver, Way},
    sockets::{Sockets, disarm},
    turns::Report,
};

pub(crate) fn run(report: &mut Report, sockets: &Sockets) -> Result<(), Box<dyn Error>> {
    let count = sockets.count();
    let name = format!("idle: kernel memory of {count} connections that wait, B per connection");
    if !report.wants(&name) {
        return Ok(());
    }
    let mut figures = Vec::new();
    for (label, way) in [("poll", Way::PollThenReceive), ("multishot receive", Way::Multishot)] {
        let ring = sockets.ring(count, RingOptions::default())?;
        let mut receiver = Receiver { ring, way, out: Vec::new() };
        let before = match slab_bytes() {
            Ok(bytes) => bytes,
            // Readable for root only.
            Err(error) => {
                eprintln!("idle: /proc/slabinfo: {error}");
                return Ok(());
            }
        };
        receiver.arm(count)?;
        let grown = slab_bytes()? - before;
        figures.push((label, grown / count as f64));
        disarm(&mut receiver.ring, count, way.operation())?;
    }
    report.say(&name, &figures);
    Ok(())
}

/// Bytes of objects in use, of all kinds.
fn slab_bytes() -> Result<f64, Box<dyn Error>> {
    let mut sum = 0.0;
    // Two lines of heads; then name, objects in use, all objects, bytes of one, …
    for line in fs::read_to_string("/proc/slabinfo")?.lines().skip(2) {
        let mut fields = line.split_whitespace().skip(1);
        let used: f64 = fields.next().ok_or("no count")?.parse()?;
        let bytes: f64 = fields.nth(1).ok_or("no size")?.parse()?;
        sum += used * bytes;
    }
    Ok(sum)
}
