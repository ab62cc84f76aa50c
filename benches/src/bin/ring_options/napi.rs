//! Busy polling of the network card.
//!
//! Knows: that loopback has none to poll. Must not know: what a card would win.

use std::{error::Error, time::Duration};

use uringcast_benches::clock::thread_cpu_ns;
use uringcast_ring::{
    Io as _, RingOptions,
    experiments::{Experiments, napi_id},
};

use crate::{
    receive::{Receiver, Way},
    sockets::{Sockets, disarm},
    turns::{Report, Turns},
};

pub(crate) fn run(report: &mut Report, sockets: &Sockets) -> Result<(), Box<dyn Error>> {
    let name = "napi: a message of 136 B each from 64, and a wait of 1 ms for nothing, per round";
    if !report.wants(name) {
        return Ok(());
    }
    let connections = sockets.count().min(64);
    let mut turns = Turns::new(name, &["ns"]);
    for (label, busy_poll_us) in [("no busy poll", None), ("NAPI, 200 µs", Some(200))] {
        let napi_busy_poll = busy_poll_us.map(Duration::from_micros);
        let experiments = Experiments { napi_busy_poll, ..Default::default() };
        let ring = sockets.ring(connections, RingOptions { experiments, ..Default::default() })?;
        let mut receiver = Receiver { ring, way: Way::Multishot, out: Vec::new() };
        turns = turns.case(label, move || {
            receiver.arm(connections)?;
            let mut spent_ns = 0;
            for _ in 0..PASSES {
                for client in 0..connections {
                    sockets.write(client, &[b'x'; 136])?;
                }
                let start_ns = thread_cpu_ns();
                receiver.receive(connections * 136)?;
                // Where there is something to poll, this is where it would be.
                receiver.ring.wait(Some(Duration::from_millis(1)), &mut receiver.out)?;
                spent_ns += thread_cpu_ns() - start_ns;
            }
            disarm(&mut receiver.ring, connections, Way::Multishot.operation())?;
            Ok(vec![spent_ns as f64 / f64::from(PASSES)])
        });
    }
    report.run(turns)?;
    let id = napi_id(sockets.server(0))?;
    report.say("napi: what the sockets' packets came by", &[("NAPI id (0: none)", id.into())]);
    Ok(())
}

const PASSES: u32 = 50;
