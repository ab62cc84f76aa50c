//! Every way to go does the same: with what a new kernel has, with what an old one has, and with
//! any mixture of both.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};

use super::*;

const SIZES: Sizes = Sizes { entries: 8, slots: 4, buffers: 2, buffer_bytes: 4096 };

/// All combinations of what this kernel has.
fn combinations() -> Vec<Means> {
    let all = Means::probe().expect("a ring");
    let bit = |number: u32, at: u32| number >> at & 1 == 1;
    let means = |number| Means {
        deferred: bit(number, 0) && all.deferred,
        direct: bit(number, 1) && all.direct,
        multishot: bit(number, 2) && all.multishot,
        timed_wait: bit(number, 3) && all.timed_wait,
    };
    (0..16).map(means).collect()
}

/// The next completion.
fn next(ring: &mut Ring, completions: &mut Vec<Completion>) -> Completion {
    for _ in 0..100 {
        if !completions.is_empty() {
            return completions.remove(0);
        }
        ring.wait(100_000_000).expect("it waits");
        ring.reap(completions).expect("it goes on");
    }
    panic!("nothing came");
}

/// So many bytes of one socket, received in whatever pieces; others' are noted as well.
fn receive_until(
    ring: &mut Ring,
    completions: &mut Vec<Completion>,
    received: &mut [Vec<u8>],
    is_enough: impl Fn(&[Vec<u8>]) -> bool,
) {
    while !is_enough(received) {
        match next(ring, completions) {
            Completion::Received { socket, chunk, more } => {
                received[socket.slot as usize].extend_from_slice(ring.bytes(&chunk));
                ring.give_back(chunk);
                if !more {
                    ring.receive(socket).expect("it goes on");
                }
            }
            // There are fewer buffers than sockets.
            Completion::ReceiveEnded { socket, result } if result == -libc::ENOBUFS => {
                ring.receive(socket).expect("it goes on");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn sockets_are_received_from_sent_to_closed_and_used_again() {
    for means in combinations() {
        let mut ring = Ring::new(&SIZES, means).expect("a ring");
        let mut completions = Vec::new();
        let mut peers = Vec::new();
        let socket = |slot, generation| SocketId { slot, generation };
        for slot in 0..SIZES.slots {
            let (ours, theirs) = UnixStream::pair().expect("sockets");
            ring.install(slot, ours.into()).expect("a free slot");
            ring.receive(socket(slot, 1)).expect("room");
            peers.push(theirs);
        }
        let mut received = vec![Vec::new(); 4];
        for round in 0..5 {
            for (slot, peer) in peers.iter_mut().enumerate() {
                peer.write_all(&[slot as u8; 3]).expect("room");
            }
            let all =
                |received: &[Vec<u8>]| received.iter().all(|got| got.len() == 3 * (round + 1));
            receive_until(&mut ring, &mut completions, &mut received, all);
        }
        for (slot, got) in received.iter().enumerate() {
            assert_eq!(*got, vec![slot as u8; 15], "{means:?}");
        }
        // More than a socket holds: the send ends when all of it has been taken.
        let long: Vec<u8> = (0..3_000_000u32).map(|number| (number / 7) as u8).collect();
        ring.send(socket(2, 1), long.clone()).expect("room");
        let mut peer = peers[2].try_clone().expect("a descriptor");
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; 3_000_000];
            peer.read_exact(&mut got).map(|()| got)
        });
        let sent = next(&mut ring, &mut completions);
        let is_whole = matches!(&sent, Completion::Sent { socket: SocketId { slot: 2, .. }, result: 3_000_000, buffer }
            if *buffer == long);
        assert!(is_whole, "{means:?}");
        assert!(reader.join().expect("no panic").expect("all") == long, "{means:?}");
        check_ends(&mut ring, &mut completions, peers, means);
    }
}

/// The peer's end, a cancelled receive, and the slots' next lives.
fn check_ends(
    ring: &mut Ring,
    completions: &mut Vec<Completion>,
    mut peers: Vec<UnixStream>,
    means: Means,
) {
    let socket = |slot, generation| SocketId { slot, generation };
    drop(peers.remove(1));
    let ended = next(ring, completions);
    assert!(
        matches!(ended, Completion::ReceiveEnded { socket: SocketId { slot: 1, .. }, result: 0 }),
        "{means:?}: {ended:?}"
    );
    ring.receive_cancel(socket(0, 1)).expect("room");
    let ended = next(ring, completions);
    let cancelled = -libc::ECANCELED;
    assert!(
        matches!(ended, Completion::ReceiveEnded { socket: SocketId { slot: 0, .. }, result } if result == cancelled),
        "{means:?}: {ended:?}"
    );
    let mut kept = Vec::new();
    for slot in 0..2 {
        ring.close(socket(slot, 1)).expect("room");
        let closed = next(ring, completions);
        assert!(matches!(closed, Completion::Closed { socket: found } if found == socket(slot, 1)));
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        ring.install(slot, ours.into()).expect("a free slot");
        ring.receive(socket(slot, 2)).expect("room");
        theirs.write_all(b"new").expect("room");
        let Completion::Received { socket: found, chunk, .. } = next(ring, completions) else {
            panic!("{means:?}");
        };
        assert_eq!((found, ring.bytes(&chunk)), (socket(slot, 2), &b"new"[..]));
        ring.give_back(chunk);
        kept.push(theirs);
    }
}

#[test]
fn a_receive_takes_no_more_than_it_should() {
    for means in combinations() {
        let mut ring = Ring::new(&SIZES, means).expect("a ring");
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        ring.install(3, ours.into()).expect("a free slot");
        let socket = SocketId { slot: 3, generation: 9 };
        theirs.write_all(&[7; 100]).expect("room");
        let mut completions = Vec::new();
        for expected in [40, 40, 20] {
            ring.receive_once(socket, 40).expect("room");
            let got = next(&mut ring, &mut completions);
            let Completion::Received { chunk, more: false, .. } = got else { panic!("{got:?}") };
            assert_eq!(ring.bytes(&chunk), &vec![7; expected][..], "{means:?}");
            ring.give_back(chunk);
        }
    }
}

#[test]
fn a_wait_ends_with_a_call_or_with_the_time() {
    for means in combinations() {
        let mut ring = Ring::new(&SIZES, means).expect("a ring");
        let event = eventfd(0, EventfdFlags::NONBLOCK).expect("a descriptor");
        ring.watch(event.as_fd()).expect("room");
        let mut completions = Vec::new();
        for _ in 0..3 {
            // More waits that end with the time than the queue has entries.
            for _ in 0..5 {
                ring.wait(1_000_000).expect("it waits");
                ring.reap(&mut completions).expect("it goes on");
                assert!(completions.is_empty(), "{means:?}: {completions:?}");
            }
            rustix::io::write(&event, &1u64.to_ne_bytes()).expect("room");
            let woken = next(&mut ring, &mut completions);
            assert!(matches!(woken, Completion::Woken), "{means:?}: {woken:?}");
            rustix::io::read(&event, &mut [0u8; 8]).expect("it was written to");
        }
    }
}
