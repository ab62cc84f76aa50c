//! The pool, from one thread and from many.

use std::{
    sync::{Arc, Barrier, mpsc},
    thread,
};

use uringcast_ring::pool::{Frame, Lease, Pool, PoolFull, PoolOptions};
#[cfg(not(miri))]
use uringcast_ring::{Ring, RingOptions};

const REGION: usize = 2 << 20;
const PAGE: usize = 64 << 10;

fn bounded(bytes_max: usize) -> Pool {
    Pool::new(PoolOptions { bytes_max, ..Default::default() })
}

#[test]
fn capacities_are_whole_and_aligned() {
    let mut pool = Pool::unregistered();
    assert_eq!(pool.bytes(), 0);
    let sizes = [
        (0, 512),
        (1, 512),
        (512, 512),
        (513, 1024),
        (5000, 8192),
        (PAGE - 1, PAGE),
        (PAGE, PAGE),
        (PAGE + 1, PAGE + 1),
        (3_000_001, 3_000_001),
    ];
    let leases: Vec<Lease> = sizes.iter().map(|&(asked, _)| pool.take(asked).unwrap()).collect();
    for (lease, (asked, got)) in leases.iter().zip(sizes) {
        assert_eq!(lease.len(), got, "for {asked}");
        assert_eq!(lease.as_ptr() as usize % 64, 0, "for {asked}");
        assert!(lease.iter().all(|&byte| byte == 0));
    }
    let sum: usize = sizes.iter().map(|(_, got)| got).sum();
    assert_eq!(pool.bytes_in_use(), sum);
    assert_eq!(pool.bytes(), REGION + PAGE + 1 + 3_000_001);
    drop(leases);
    pool.collect();
    assert_eq!(pool.bytes_in_use(), 0);
    assert_eq!(pool.bytes(), REGION);
}

#[test]
fn blocks_do_not_overlap() {
    let mut pool = bounded(2 * REGION);
    let sizes = [512, 65536, 1024, 512, 16384, 2048, 4096, 32768, 8192];
    let mut leases: Vec<Lease> = Vec::new();
    // Till nothing is left of some class, or of a larger one.
    for size in sizes.into_iter().cycle() {
        let Ok(mut lease) = pool.take(size) else { break };
        let mark = leases.len() as u32;
        for word in lease.chunks_exact_mut(4) {
            word.copy_from_slice(&mark.to_ne_bytes());
        }
        leases.push(lease);
    }
    let sum: usize = leases.iter().map(|lease| lease.len()).sum();
    assert_eq!(sum, pool.bytes_in_use());
    assert!(sum > REGION, "{sum}");
    for (lease, mark) in leases.iter().zip(0_u32..) {
        assert!(lease.chunks_exact(4).all(|word| word == mark.to_ne_bytes()), "block {mark}");
    }
}

#[test]
fn the_bound_is_kept_and_everything_comes_back() {
    let mut pool = bounded(2 * REGION);
    for round in 0..3 {
        // Each round with another size, so every page serves each in turn.
        let size = [512, 65536, 2048][round];
        let leases: Vec<_> = std::iter::from_fn(|| pool.take(size).ok()).collect();
        assert_eq!(leases.len(), 2 * REGION / size);
        assert_eq!(pool.take(1).unwrap_err(), PoolFull);
        assert_eq!(pool.take(PAGE + 1).unwrap_err(), PoolFull);
        assert_eq!(pool.bytes(), 2 * REGION);
        // Every other first, so that pages have holes.
        let (odd, even): (Vec<_>, Vec<_>) =
            leases.into_iter().enumerate().partition(|(i, _)| i % 2 == 1);
        drop(odd);
        let again: Vec<_> = std::iter::from_fn(|| pool.take(size).ok()).collect();
        assert_eq!(again.len(), REGION / size);
        drop((even, again));
    }
    pool.collect();
    assert_eq!(pool.bytes_in_use(), 0);
}

#[test]
fn a_larger_block_serves_when_no_other_is_left() {
    let mut pool = bounded(REGION);
    let mut large: Vec<_> = std::iter::from_fn(|| pool.take(32768).ok()).collect();
    assert_eq!(pool.take(512).unwrap_err(), PoolFull);
    // One of the two blocks of a page: the page can't change its class.
    large.pop();
    assert_eq!(pool.take(512).unwrap().len(), 32768);
    drop(large);
    assert_eq!(pool.take(512).unwrap().len(), 512);
}

#[test]
fn what_is_idle_goes_back_to_the_system() {
    let mut pool = bounded(3 * REGION);
    let mut leases: Vec<_> = std::iter::from_fn(|| pool.take(PAGE).ok()).collect();
    assert_eq!(pool.bytes(), 3 * REGION);
    // The middle one, and all but one block of the last.
    leases.drain(32..95);
    // No room but what is idle.
    let large = pool.take(REGION).unwrap();
    assert_eq!(pool.bytes(), 3 * REGION);
    assert_eq!(pool.bytes_in_use(), 33 * PAGE + REGION);
    assert_eq!(pool.take(REGION).unwrap_err(), PoolFull);
    drop(large);
    // Its place serves again.
    leases.extend(std::iter::from_fn(|| pool.take(PAGE).ok()));
    assert_eq!((leases.len(), pool.bytes()), (96, 3 * REGION));
    leases.clear();
    pool.trim();
    assert_eq!((pool.bytes(), pool.bytes_in_use()), (0, 0));
    assert_eq!(pool.take(700).unwrap().len(), 1024);
}

#[test]
fn a_frame_is_shared_until_the_last_is_gone() {
    let mut pool = bounded(2 * REGION);
    for size in [600, 100_000] {
        let mut lease = pool.take(size).unwrap();
        lease[..5].copy_from_slice(b"frame");
        let capacity = lease.len();
        let frame = lease.freeze();
        let frames = vec![frame.clone(); 10];
        drop(frame);
        pool.collect();
        assert_eq!(pool.bytes_in_use(), capacity);
        assert!(frames.iter().all(|frame| &frame[..5] == b"frame" && frame.len() == capacity));
        drop(frames);
        pool.collect();
        assert_eq!(pool.bytes_in_use(), 0);
    }
}

#[test]
fn other_threads_give_back() {
    let mut pool = bounded(2 * REGION);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel::<Frame>()).unzip();
    let threads: Vec<_> = receivers
        .into_iter()
        .map(|frames| {
            thread::spawn(move || {
                let mut sum = 0_u64;
                for frame in frames {
                    let (mark, rest) = frame.split_at(4);
                    assert!(rest[..28].chunks_exact(4).all(|word| word == mark));
                    sum += u64::from(u32::from_ne_bytes(mark.try_into().unwrap()));
                }
                sum
            })
        })
        .collect();
    let rounds = if cfg!(miri) { 200 } else { 100_000_u32 };
    for mark in 0..rounds {
        let size = [300, 700, 5000, 70_000][mark as usize % 4];
        let mut lease = loop {
            match pool.take(size) {
                Ok(lease) => break lease,
                // The readers are behind.
                Err(PoolFull) => thread::yield_now(),
            }
        };
        for word in lease[..32].chunks_exact_mut(4) {
            word.copy_from_slice(&mark.to_ne_bytes());
        }
        let frame = lease.freeze();
        for sender in &senders {
            sender.send(frame.clone()).unwrap();
        }
    }
    drop(senders);
    let expected = (0..u64::from(rounds)).sum::<u64>();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), expected);
    }
    pool.collect();
    assert_eq!(pool.bytes_in_use(), 0);
    assert!(pool.bytes() <= 2 * REGION);
}

#[test]
fn blocks_outlive_their_pool() {
    for size in [512, 100_000] {
        let mut pool = Pool::unregistered();
        let mut lease = pool.take(size).unwrap();
        lease[0] = 7;
        let frame = pool.take(size).unwrap().freeze();
        let returned = pool.take(size).unwrap();
        drop(returned);
        let elsewhere = thread::spawn({
            let frame = frame.clone();
            move || drop(frame)
        });
        drop(pool);
        assert_eq!(lease[0], 7);
        lease[1] = 8;
        assert_eq!(&lease.freeze()[..2], [7, 8]);
        assert_eq!(frame[0], 0);
        elsewhere.join().unwrap();
    }
    // And a pool that was never used.
    drop(Pool::default());
}

#[test]
fn a_pool_and_its_blocks_may_go_at_once() {
    let start = Arc::new(Barrier::new(3));
    let (senders, threads): (Vec<_>, Vec<_>) = (0..2)
        .map(|_| {
            let (sender, frames) = mpsc::channel::<Vec<Frame>>();
            let start = Arc::clone(&start);
            let thread = thread::spawn(move || {
                for frames in frames {
                    start.wait();
                    drop(frames);
                }
            });
            (sender, thread)
        })
        .unzip();
    for round in 0..if cfg!(miri) { 20 } else { 3000 } {
        let mut pool = Pool::new(PoolOptions { bytes_max: REGION * 2, registered_bytes_max: 0 });
        let sizes = [512, 600, 70_000].iter().cycle().skip(round);
        let frames: Vec<_> = sizes.take(4).map(|&size| pool.take(size).unwrap().freeze()).collect();
        for sender in &senders {
            sender.send(frames.clone()).unwrap();
        }
        drop(frames);
        start.wait();
        pool.collect();
        drop(pool);
    }
    drop(senders);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_pool_moves_to_its_thread() {
    let mut pool = Pool::unregistered();
    let lease = pool.take(100).unwrap();
    let (pool, lease) = thread::spawn(move || {
        drop(lease);
        let lease = pool.take(100).unwrap();
        (pool, lease)
    })
    .join()
    .unwrap();
    drop(pool);
    assert_eq!(lease.len(), 512);
}

#[test]
#[cfg(not(miri))]
fn regions_are_registered_up_to_their_bound() {
    let mut ring = Ring::new(RingOptions { slots: 16, ..Default::default() }).unwrap();
    let options = PoolOptions { bytes_max: 4 * REGION, registered_bytes_max: 2 * REGION };
    let mut pool = ring.pool(options.clone());
    let leases: Vec<_> = std::iter::from_fn(|| pool.take(PAGE).ok()).collect();
    assert_eq!(leases.len(), 4 * REGION / PAGE);
    // What RLIMIT_MEMLOCK refuses is counted and serves all the same.
    let refused = pool.registrations_failed() as usize;
    assert!(refused > 0 || pool.registered_bytes() == 2 * REGION);
    assert!(pool.registered_bytes() <= 2 * REGION);
    let mut second = ring.pool(options);
    assert!(second.take(1).is_ok());
    assert_eq!((second.registered_bytes(), second.registrations_failed()), (0, 0));
    // Without its ring a pool goes on, unregistered.
    let mut late = Ring::new(RingOptions { slots: 16, ..Default::default() })
        .unwrap()
        .pool(PoolOptions { bytes_max: REGION, registered_bytes_max: REGION });
    assert!(late.take(1).is_ok());
    assert_eq!((late.registered_bytes(), late.registrations_failed()), (0, 1));
}
