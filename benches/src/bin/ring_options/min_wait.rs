//! Waits that let completions gather: many publishers at a steady rate.
//!
//! Knows: when each message was to be written, which stands in it. Must not know: what it is for.
//!
//! The publishers' thread writes each message at its time, round the connections; the ring's thread takes
//! it. Latency counts from the time at which it was to be written.

use std::{error::Error, hint::spin_loop, io::Write as _, net::TcpStream, thread, time::Duration};

use uringcast_benches::{
    clock::{monotonic_ns, thread_cpu_ns},
    suite::Summary,
};
use uringcast_ring::{
    Completion, Io as _, MinWait, Ring, RingOptions, Slot, pin::pin_current_thread,
};

use crate::{
    receive::Way,
    sockets::{Sockets, disarm, token},
    turns::{Report, Sample, Turns},
};

pub(crate) fn run(
    report: &mut Report,
    sockets: &Sockets,
    cpu: usize,
    client_cpu: usize,
) -> Result<(), Box<dyn Error>> {
    let count = sockets.count().min(PUBLISHERS);
    for per_second in [10_000, 30_000, 100_000] {
        let name = format!("min-wait: {count} publishers, {per_second} messages/s, per message");
        if !report.wants(&name) {
            continue;
        }
        if cpu == client_cpu {
            return Err("--client-cpu: the publishers need a CPU of their own".into());
        }
        let columns = &["cpu ns", "p50 µs", "p99 µs", "messages a wait"];
        let mut turns = Turns::new(name, columns);
        for (label, min_wait) in cases() {
            let mut ring = sockets.ring(count, RingOptions::default())?;
            ring.set_min_wait(min_wait);
            turns = turns
                .case(label, move || sample(&mut ring, sockets, count, per_second, client_cpu));
        }
        report.run(turns)?;
    }
    Ok(())
}

fn cases() -> Vec<(String, Option<MinWait>)> {
    let mut cases = vec![("the first ends it".to_owned(), None)];
    for (completions, at_most_us) in [(16, 50), (64, 200), (256, 1_000)] {
        let label = format!("{completions} or {at_most_us} µs");
        cases.push((label, Some(MinWait { completions, at_most_us })));
    }
    cases
}

fn sample(
    ring: &mut Ring,
    sockets: &Sockets,
    count: usize,
    per_second: u64,
    client_cpu: usize,
) -> Sample {
    for index in 0..count {
        ring.receive_multishot(Slot(index as u32), token(index));
    }
    let messages = (per_second as f64 * SECONDS) as u64;
    let clients = &sockets.clients()[..count];
    let figures = thread::scope(|scope| {
        let publishers =
            scope.spawn(move || publish(clients, messages, 1_000_000_000 / per_second, client_cpu));
        let figures = receive(ring, messages);
        publishers
            .join()
            .map_err(|_| "the publishers' thread panicked")?
            .map_err(|error| error.to_string())?;
        figures
    })?;
    disarm(ring, count, Way::Multishot.operation())?;
    Ok(figures)
}

fn publish(
    clients: &[TcpStream],
    messages: u64,
    interval_ns: u64,
    cpu: usize,
) -> std::io::Result<()> {
    pin_current_thread(cpu)?;
    let begin_ns = monotonic_ns() + 1_000_000;
    for (n, mut client) in (0..messages).zip(clients.iter().cycle()) {
        let due_ns = begin_ns + n * interval_ns;
        while monotonic_ns() < due_ns {
            spin_loop();
        }
        let mut message = [b'x'; MESSAGE_BYTES];
        message[..8].copy_from_slice(&due_ns.to_le_bytes());
        client.write_all(&message)?;
    }
    Ok(())
}

/// Processor time per message, median and 99th percentile of the latencies, messages for each wait.
fn receive(ring: &mut Ring, messages: u64) -> Sample {
    let mut latencies_us = Vec::with_capacity(messages as usize);
    let (mut out, mut waits) = (Vec::new(), 0_u64);
    let start_ns = thread_cpu_ns();
    while (latencies_us.len() as u64) < messages {
        ring.wait(Some(Duration::from_secs(1)), &mut out)?;
        waits += 1;
        let now_ns = monotonic_ns();
        for completion in out.drain(..) {
            let Completion::Received { token, data, armed } = completion else {
                return Err(format!("{completion:?}").into());
            };
            // A message is written whole, and nothing is left over between two.
            for message in data.chunks_exact(MESSAGE_BYTES) {
                let due_ns = message.first_chunk().map_or(0, |due| u64::from_le_bytes(*due));
                latencies_us.push(now_ns.saturating_sub(due_ns) as f64 / 1e3);
            }
            if !armed {
                ring.receive_multishot(Slot(token.index), token);
            }
        }
    }
    let cpu_ns = (thread_cpu_ns() - start_ns) as f64 / messages as f64;
    let p50_us = Summary::of(&latencies_us).median;
    latencies_us.sort_by(f64::total_cmp);
    let p99_us = latencies_us.get(latencies_us.len() * 99 / 100).copied().unwrap_or_default();
    Ok(vec![cpu_ns, p50_us, p99_us, messages as f64 / waits as f64])
}

const PUBLISHERS: usize = 1_000;
const MESSAGE_BYTES: usize = 136;
/// Of a sample.
const SECONDS: f64 = 0.25;
