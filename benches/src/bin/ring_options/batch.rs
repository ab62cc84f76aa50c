//! Sends per enter, and the size of the submission queue: one frame to everybody.
//!
//! Knows: batches. Must not know: who is subscribed.

use std::error::Error;

use uringcast_benches::clock::thread_cpu_ns;
use uringcast_ring::{Io as _, Ring, RingOptions, Send, Slot};

use crate::{
    sockets::Sockets,
    turns::{Report, Sample, Turns},
};

pub(crate) fn run(report: &mut Report, sockets: &Sockets) -> Result<(), Box<dyn Error>> {
    for count in [2_000, 5_000] {
        let name = format!("batch: sends per enter, {FRAME_BYTES} B to {count}, per send");
        if !report.wants(&name) || count > sockets.count() {
            continue;
        }
        let mut turns = Turns::new(name, &["ns"]);
        for (batch, sq_entries) in CASES {
            let mut ring = sockets.ring(count, RingOptions { sq_entries, ..Default::default() })?;
            turns = turns.case(format!("{batch} per enter, queue of {sq_entries}"), move || {
                fan_out(&mut ring, sockets, count, batch)
            });
        }
        report.run(turns)?;
    }
    Ok(())
}

/// One frame to each of the first `count` connections.
pub(crate) fn fan_out(ring: &mut Ring, sockets: &Sockets, count: usize, batch: usize) -> Sample {
    let frame = [b'x'; FRAME_BYTES];
    let sends: Vec<_> =
        (0..count).map(|index| Send { slot: Slot(index as u32), bytes: &frame }).collect();
    let ns = timed(sockets, count, &sends, batch, ring)?;
    Ok(vec![ns])
}

/// The processor time of one of these sends, which go to the first `count` connections, one each.
pub(crate) fn timed(
    sockets: &Sockets,
    count: usize,
    sends: &[Send<'_>],
    batch: usize,
    ring: &mut Ring,
) -> Result<f64, Box<dyn Error>> {
    let mut troubles = Vec::new();
    let start_ns = thread_cpu_ns();
    for sends in sends.chunks(batch) {
        ring.send(sends, &mut troubles)?;
        if !troubles.is_empty() {
            return Err(format!("a socket that is read took too little: {troubles:?}").into());
        }
    }
    let spent_ns = thread_cpu_ns() - start_ns;
    sockets.drain(count, sends[0].bytes.len())?;
    Ok(spent_ns as f64 / sends.len() as f64)
}

/// The server's first: 256 sends are a turn, and the queue holds four of them.
const CASES: [(usize, u32); 8] = [
    (256, 1024),
    (64, 64),
    (128, 128),
    (256, 256),
    (512, 512),
    (1024, 1024),
    (64, 1024),
    (2048, 2048),
];
/// A payload of 128 B and its header.
pub(crate) const FRAME_BYTES: usize = 132;
