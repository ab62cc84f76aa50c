//! Waking, waiting, and the end of a ring.

use std::{
    io::{Read, Write},
    os::fd::OwnedFd,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, eventfd};
use uringcast_ring::{Io, MinWait, Ring, RingOptions, WakeHandle};

use crate::support::{Server, Told, has, options, token};

#[allow(clippy::disallowed_methods, reason = "what is measured here is the wait itself")]
fn now() -> Instant {
    Instant::now()
}

fn small() -> RingOptions {
    RingOptions { sq_entries: 8, cq_entries: 64, slots: 16, receive_buffers: 4, ..options() }
}

#[test]
fn a_wait_ends_by_its_timeout() {
    let mut ring = Ring::new(small()).unwrap();
    let mut out = Vec::new();
    let start = now();
    ring.wait(Some(Duration::from_millis(50)), &mut out).unwrap();
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(50) && waited < Duration::from_secs(5), "{waited:?}");
    let start = now();
    for _ in 0..100 {
        ring.wait(Some(Duration::ZERO), &mut out).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(out.is_empty());
}

#[test]
fn a_gathering_wait_ends_with_several_or_by_its_time() {
    let mut server = Server::new(options());
    let (slots, clients): (Vec<_>, Vec<_>) = (0..3).map(|_| server.connect()).unzip();
    for (index, &slot) in slots.iter().enumerate() {
        server.ring.receive_multishot(slot, token(index as u32));
    }
    // Without the feature the first ends each.
    let gathers = server.has("min_wait");
    server.ring.set_min_wait(Some(MinWait { completions: 3, at_most_us: 2_000_000 }));
    let (mut out, mut waits, start) = (Vec::new(), 0, now());
    thread::scope(|scope| {
        scope.spawn(|| {
            for mut client in &clients {
                client.write_all(b"x").unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });
        while out.len() < 3 && waits < 10 {
            server.ring.wait(Some(Duration::from_secs(5)), &mut out).unwrap();
            waits += 1;
        }
    });
    assert_eq!(out.len(), 3, "{out:?}");
    assert!(start.elapsed() < Duration::from_millis(1500), "the third ends it");
    assert!(!gathers || waits == 1, "{waits} waits");
    // Where the kernel has none that stay armed.
    if let Some(Told::Received { token, armed: false, .. }) = out.first() {
        server.ring.receive_multishot(slots[0], *token);
    }
    out.clear();
    server.ring.set_min_wait(Some(MinWait { completions: 3, at_most_us: 20_000 }));
    (&clients[0]).write_all(b"x").unwrap();
    let start = now();
    server.ring.wait(Some(Duration::from_secs(5)), &mut out).unwrap();
    assert_eq!(out.len(), 1, "{out:?}");
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(4), "one is enough after a while: {waited:?}");
    assert!(!gathers || waited >= Duration::from_millis(15), "{waited:?}");
    server.ring.set_min_wait(None);
    server.silent();
}

/// Without a timeout the kernel ends a gathering wait that nothing came to.
#[test]
fn a_gathering_wait_without_a_timeout_sleeps_on() {
    let mut ring = Ring::new(small()).unwrap();
    ring.set_min_wait(Some(MinWait { completions: 8, at_most_us: 1_000 }));
    let bell = ring.wake_handle();
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        bell.ring_bell();
    });
    let (mut out, mut waits) = (Vec::new(), 0);
    while out.is_empty() && waits < 1000 {
        ring.wait(None, &mut out).unwrap();
        waits += 1;
    }
    other.join().unwrap();
    assert!(waits <= 2, "{waits} waits");
    assert!(matches!(out[..], [Told::Woken]), "{out:?}");
}

#[test]
fn a_thread_without_a_ring_wakes_a_ring() {
    let mut ring = Ring::new(small()).unwrap();
    let bell = ring.wake_handle();
    let mut out = Vec::new();
    for _ in 0..3 {
        let bell = bell.clone();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            bell.ring_bell();
        });
        // For ever, if nobody rang.
        while out.is_empty() {
            ring.wait(None, &mut out).unwrap();
        }
        assert!(matches!(out[..], [Told::Woken]), "{out:?}");
        out.clear();
        other.join().unwrap();
        // It was heard, and does not go on ringing.
        ring.wait(Some(Duration::from_millis(20)), &mut out).unwrap();
        assert!(out.is_empty(), "{out:?}");
    }
    // Rung before anybody listens.
    bell.ring_bell();
    bell.ring_bell();
    ring.wait(None, &mut out).unwrap();
    assert!(matches!(out[..], [Told::Woken]), "{out:?}");
}

#[test]
fn rings_wake_each_other() {
    let (to_us, from_other) = mpsc::channel();
    let (to_other, from_us) = mpsc::channel();
    let other = thread::spawn(move || {
        let mut ring = Ring::new(small()).unwrap();
        to_us.send(ring.wake_handle()).unwrap();
        ring.set_peers(vec![from_us.recv().unwrap()]);
        let mut out = Vec::new();
        for _ in 0..100 {
            while out.is_empty() {
                ring.wait(None, &mut out).unwrap();
            }
            assert!(out.drain(..).all(|told| matches!(told, Told::Woken)));
            ring.wake(0);
        }
        ring.wait(Some(Duration::ZERO), &mut out).unwrap();
        ring.counters().wakes_by_bell
    });
    let mut ring = Ring::new(small()).unwrap();
    to_other.send(ring.wake_handle()).unwrap();
    ring.set_peers(vec![from_other.recv().unwrap()]);
    let mut out = Vec::new();
    for _ in 0..100 {
        ring.wake(0);
        while out.is_empty() {
            ring.wait(Some(Duration::from_secs(5)), &mut out).unwrap();
        }
        assert!(matches!(out[..], [Told::Woken]), "{out:?}");
        out.clear();
    }
    assert_eq!(other.join().unwrap(), 0);
    assert_eq!(ring.counters().wakes_by_bell, 0);
}

#[test]
fn a_peer_with_an_eventfd_only_is_woken() {
    let bell = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let theirs = bell.try_clone().unwrap();
    let mut ring = Ring::new(small()).unwrap();
    ring.set_peers(vec![WakeHandle::eventfd_only(bell)]);
    let heard = |bell: &OwnedFd| {
        let mut count = [0; 8];
        assert_eq!(rustix::io::read(bell, &mut count).unwrap(), 8);
        u64::from_ne_bytes(count)
    };
    ring.wake(0);
    ring.wake(0);
    assert_eq!(heard(&theirs), 2);
}

#[test]
fn waking_a_ring_that_is_gone_does_no_harm() {
    let gone = Ring::new(small()).unwrap().wake_handle();
    let mut ring = Ring::new(small()).unwrap();
    ring.set_peers(vec![gone.clone()]);
    let mut out = Vec::new();
    for _ in 0..200 {
        ring.wake(0);
        ring.wait(Some(Duration::ZERO), &mut out).unwrap();
        gone.ring_bell();
    }
    assert!(out.is_empty());
}

#[test]
fn a_dropped_ring_closes_everything_and_its_buffers_stay() {
    let mut server = Server::new(small());
    let (slot, mut client) = server.connect();
    let (other_slot, mut other) = server.connect();
    let handle = server.ring.wake_handle();
    let pool = server.ring.pool(uringcast_ring::pool::PoolOptions::default());
    server.ring.receive_multishot(slot, token(1));
    server.ring.poll_readable(other_slot, token(2));
    server.ring.receive_multishot(other_slot, token(2));
    client.write_all(b"kept").unwrap();
    let kept = server
        .told(1)
        .into_iter()
        .find_map(|told| match told {
            Told::Received { data, .. } => Some(data),
            _ => None,
        })
        .unwrap();
    let address = server.address;
    drop(server);
    // Whoever holds a handle holds the kernel's ring, but nothing in it.
    assert_eq!(&*kept, b"kept");
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(other.read(&mut [0; 1]).unwrap(), 0);
    assert!(std::net::TcpStream::connect(address).is_err());
    assert_eq!(&*kept, b"kept");
    drop((kept, handle, pool));
}

#[test]
fn a_thread_may_make_many_rings_one_after_the_other() {
    for _ in 0..40 {
        let ring = Ring::new(small()).unwrap();
        assert_eq!(ring.describe().registered_ring, has(&ring, "registered_ring"));
    }
    // The kernel has 16 places; more at once work as well.
    let rings: Vec<_> = (0..17).map(|_| Ring::new(small()).unwrap()).collect();
    assert!(!rings[16].describe().registered_ring);
    assert!(rings[16].describe().to_string().contains("not registered"));
}
