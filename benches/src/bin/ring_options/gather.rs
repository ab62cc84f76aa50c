//! A backlog of several segments to everybody: a send for each, one send of all, one copy before.
//!
//! Knows: segments. Must not know: how a log comes to have several.

use std::{error::Error, io::IoSlice};

use uringcast_benches::clock::thread_cpu_ns;
use uringcast_ring::{
    Io as _, Ring, RingOptions, Send, Slot,
    experiments::{Gather, Gathered},
};

use crate::{
    sockets::Sockets,
    turns::{Report, Sample, Turns},
};

pub(crate) fn run(report: &mut Report, sockets: &Sockets) -> Result<(), Box<dyn Error>> {
    let count = sockets.count().min(CONNECTIONS);
    for (segments, bytes) in [(2, 132), (2, 2_048), (4, 512), (4, 4_096), (8, 132)] {
        let name = format!("gather: {segments} segments of {bytes} B to {count}, per connection");
        if !report.wants(&name) {
            continue;
        }
        let shape = Shape { sockets, count, segments, bytes };
        let ring = || sockets.ring(count, RingOptions::default());
        let (mut each, mut copy) = (ring()?, ring()?);
        let (mut message, mut vectorized) = (ring()?, ring()?);
        report.run(
            Turns::new(name, &["ns"])
                .case("a SEND per segment", move || shape.a_send_each(&mut each))
                .case("SENDMSG", move || shape.gathered(&mut message, Gather::Message))
                .case("SEND_VECTORIZED", move || {
                    shape.gathered(&mut vectorized, Gather::Vectorized)
                })
                .case("a copy per connection, a SEND", move || shape.copied(&mut copy)),
        )?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Shape<'s> {
    sockets: &'s Sockets,
    count: usize,
    segments: usize,
    bytes: usize,
}

impl Shape<'_> {
    /// Segments lie apart, as chunks do.
    fn segments(&self) -> Vec<Vec<u8>> {
        vec![vec![b'x'; self.bytes]; self.segments]
    }

    fn slots(&self) -> Vec<Slot> {
        (0..self.count as u32).map(Slot).collect()
    }

    /// The sends are over when a batch returns, so the next segment of the same connections may follow.
    fn a_send_each(&self, ring: &mut Ring) -> Sample {
        let (segments, slots) = (self.segments(), self.slots());
        let mut troubles = Vec::new();
        self.timed(|| {
            for slots in slots.chunks(BATCH) {
                for segment in &segments {
                    let send = |&slot| Send { slot, bytes: segment };
                    let sends: Vec<_> = slots.iter().map(send).collect();
                    ring.send(&sends, &mut troubles)?;
                    all_taken(troubles.len())?;
                }
            }
            Ok(())
        })
    }

    fn gathered(&self, ring: &mut Ring, how: Gather) -> Sample {
        let (segments, slots) = (self.segments(), self.slots());
        self.timed(|| {
            for slots in slots.chunks(BATCH) {
                // A list for each, as their cursors differ.
                let pieces: Vec<IoSlice<'_>> = slots
                    .iter()
                    .flat_map(|_| segments.iter().map(|segment| IoSlice::new(segment)))
                    .collect();
                let lists = pieces.chunks(self.segments);
                let gathered = |(&slot, pieces)| Gathered { slot, pieces };
                let sends: Vec<_> = slots.iter().zip(lists).map(gathered).collect();
                all_taken(ring.send_gathered(&sends, how)?)?;
            }
            Ok(())
        })
    }

    fn copied(&self, ring: &mut Ring) -> Sample {
        let (segments, slots) = (self.segments(), self.slots());
        let mut troubles = Vec::new();
        let mut copies = Vec::with_capacity(BATCH * self.segments * self.bytes);
        self.timed(|| {
            for slots in slots.chunks(BATCH) {
                copies.clear();
                for _ in slots {
                    segments.iter().for_each(|segment| copies.extend_from_slice(segment));
                }
                let copies = copies.chunks(self.segments * self.bytes);
                let send = |(&slot, bytes)| Send { slot, bytes };
                let sends: Vec<_> = slots.iter().zip(copies).map(send).collect();
                ring.send(&sends, &mut troubles)?;
                all_taken(troubles.len())?;
            }
            Ok(())
        })
    }

    fn timed(&self, pass: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Sample {
        let start_ns = thread_cpu_ns();
        pass()?;
        let spent_ns = thread_cpu_ns() - start_ns;
        self.sockets.drain(self.count, self.segments * self.bytes)?;
        Ok(vec![spent_ns as f64 / self.count as f64])
    }
}

fn all_taken(troubles: usize) -> Result<(), Box<dyn Error>> {
    match troubles {
        0 => Ok(()),
        _ => Err(format!("{troubles} sockets that are read took too little").into()),
    }
}

const BATCH: usize = 256;
const CONNECTIONS: usize = 1_000;
