//! Once it runs, a ring and a pool allocate nothing.

#![allow(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use uringcast_ring::{
    Completion, Io, Ring, RingOptions, Send, Slot, Token,
    listen::{ListenOptions, listen},
    pool::PoolOptions,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator, and a number besides.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // The thread may be on its way out; then nobody counts.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: by this method's own contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: by this method's own contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_steady_state_allocates_nothing() {
    let mut ring = Ring::new(RingOptions { sq_entries: 16, ..Default::default() }).unwrap();
    let mut pool = ring.pool(PoolOptions::default());
    let socket = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    let address = socket.local_addr().unwrap();
    ring.add_listener(socket).unwrap();
    let mut out = Vec::new();
    let mut clients: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    while out.len() < clients.len() {
        ring.wait(Some(Duration::from_secs(5)), &mut out).unwrap();
    }
    let slots: Vec<Slot> = out
        .drain(..)
        .map(|told| match told {
            Completion::Accepted { slot, .. } => slot,
            other => panic!("{other:?}"),
        })
        .collect();
    for (&slot, index) in slots.iter().zip(0..) {
        ring.poll_readable(slot, Token { index, generation: 0 });
    }
    let mut troubles = Vec::with_capacity(clients.len());
    let mut round = || {
        let mut lease = pool.take(2000).unwrap();
        lease[..5].copy_from_slice(b"frame");
        let frame = lease.freeze();
        let sends = [0; 40].map(|_| frame.clone());
        let mut batch = [Send { slot: slots[0], bytes: &[] }; 40];
        for ((send, &slot), frame) in batch.iter_mut().zip(&slots).zip(&sends) {
            *send = Send { slot, bytes: frame };
        }
        ring.send(&batch, &mut troubles).unwrap();
        assert!(troubles.is_empty());
        for client in &mut clients {
            client.read_exact(&mut [0; 2048]).unwrap();
            client.write_all(b"pong").unwrap();
        }
        let mut received = 0;
        while received < clients.len() {
            ring.wait(Some(Duration::from_secs(5)), &mut out).unwrap();
            for told in out.drain(..) {
                match told {
                    Completion::Readable { token, .. } => {
                        let slot = slots[token.index as usize];
                        ring.receive(slot, token);
                        ring.poll_readable(slot, token);
                    }
                    Completion::Received { data, .. } => {
                        assert_eq!(&*data, b"pong");
                        received += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    };
    (0..10).for_each(|_| round());
    let before = ALLOCATIONS.get();
    assert!(before > 0, "it counts");
    (0..200).for_each(|_| round());
    assert_eq!(ALLOCATIONS.get(), before);
}
