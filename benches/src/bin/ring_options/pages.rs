//! Huge pages under the pool: a chunk for each connection, as when each has an interest of its own.
//!
//! Knows: pools. Must not know: lanes.
//!
//! Where all read one chunk there is one page to look up, and nothing to win. Under the receive buffers
//! see `receive`.

use std::error::Error;

use uringcast_ring::{
    RingOptions, Send, Slot,
    pool::{Frame, Pool, PoolOptions},
};

use crate::{
    batch::{FRAME_BYTES, timed},
    sockets::Sockets,
    turns::{Report, Turns},
};

pub(crate) fn run(report: &mut Report, sockets: &Sockets) -> Result<(), Box<dyn Error>> {
    let count = sockets.count();
    for chunk_bytes in [512, 16 << 10] {
        let name = format!(
            "pages: {FRAME_BYTES} B each from a chunk of {chunk_bytes} B to {count}, per send"
        );
        if !report.wants(&name) {
            continue;
        }
        let mut turns = Turns::new(name, &["ns"]);
        for (label, huge_pages) in [("pages of 4 KiB", false), ("MADV_HUGEPAGE", true)] {
            let mut pool = Pool::new(PoolOptions { registered_bytes_max: 0, ..Default::default() });
            pool.huge_pages = huge_pages;
            let chunks: Vec<Frame> = (0..count)
                .map(|_| {
                    let mut chunk = pool.take(chunk_bytes)?;
                    chunk.fill(b'x');
                    Ok::<_, Box<dyn Error>>(chunk.freeze())
                })
                .collect::<Result<_, _>>()?;
            let mut ring = sockets.ring(count, RingOptions::default())?;
            turns = turns.case(label, move || {
                let _ = &pool;
                let send = |(chunk, slot)| Send { slot: Slot(slot), bytes: head(chunk) };
                let sends: Vec<_> = chunks.iter().zip(0..).map(send).collect();
                Ok(vec![timed(sockets, count, &sends, BATCH, &mut ring)?])
            });
        }
        report.run(turns)?;
    }
    Ok(())
}

fn head(chunk: &Frame) -> &[u8] {
    &chunk[..FRAME_BYTES]
}

const BATCH: usize = 256;
