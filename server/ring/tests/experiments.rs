//! What is only measured does what it says, on the kernel that it is measured on; what that kernel has not
//! is left out.
//!
//! Knows: bytes and their order. Must not know: what they cost.

use std::{
    io::{IoSlice, Read, Write},
    net::TcpStream,
    time::Duration,
};

use uringcast_ring::{
    Completion, Io, Ring, RingOptions, Slot, Token,
    experiments::{Experiments, Gather, Gathered, napi_id},
    listen::{ListenOptions, listen},
};

/// A ring with one connection in slot 0, and the connection's two ends.
fn connected(experiments: Experiments) -> (Ring, TcpStream, TcpStream) {
    let listener = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (server, _) = listener.accept().unwrap();
    let options = RingOptions {
        slots: 1,
        receive_buffers: 64,
        receive_buffer_bytes: 64,
        experiments,
        ..Default::default()
    };
    let mut ring = Ring::new(options).expect("the machine that tests has it");
    ring.adopt(&server, Slot(0)).unwrap();
    (ring, server, client)
}

#[test]
fn pieces_arrive_in_order_and_a_short_send_is_counted() {
    for how in [Gather::Message, Gather::Vectorized] {
        let (mut ring, _server, mut client) = connected(Experiments::default());
        let pieces = [IoSlice::new(b"one, "), IoSlice::new(b"two, "), IoSlice::new(b"three")];
        let send = [Gathered { slot: Slot(0), pieces: &pieces }];
        let troubles = ring.send_gathered(&send, how).unwrap();
        if how == Gather::Vectorized && troubles == 1 {
            // EINVAL: older than 6.17.
            return;
        }
        assert_eq!(troubles, 0);
        let mut got = [0; 15];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"one, two, three");
        let much = vec![0; 8 << 20];
        let pieces = [IoSlice::new(b"."), IoSlice::new(&much)];
        let send = [Gathered { slot: Slot(0), pieces: &pieces }];
        assert_eq!(ring.send_gathered(&send, how).unwrap(), 1, "{how:?}");
    }
}

#[test]
fn bundles_are_told_buffer_by_buffer() {
    let (mut ring, _server, mut client) =
        connected(Experiments { bundles: true, ..Default::default() });
    let token = Token { index: 7, generation: 1 };
    ring.receive_multishot(Slot(0), token);
    // Rounds enough for the ring of buffers to wrap, and each with a rest.
    for round in 0..50_u8 {
        let sent: Vec<u8> = (0..500).map(|n| (n % 251) as u8 ^ round).collect();
        client.write_all(&sent).unwrap();
        let (mut got, mut out) = (Vec::new(), Vec::new());
        while got.len() < sent.len() {
            ring.wait(Some(Duration::from_secs(5)), &mut out).unwrap();
            assert!(!out.is_empty(), "{} of {} bytes", got.len(), sent.len());
            for told in out.drain(..) {
                match told {
                    Completion::Received { token: whose, data, armed: true } if whose == token => {
                        got.extend_from_slice(&data);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(got, sent);
    }
}

#[test]
fn a_ring_without_the_array_of_indices_takes_entries() {
    let (mut ring, server, mut client) =
        connected(Experiments { no_sqarray: true, ..Default::default() });
    let token = Token { index: 0, generation: 1 };
    ring.receive_multishot(Slot(0), token);
    client.write_all(b"x").unwrap();
    let mut out = Vec::new();
    ring.wait(Some(Duration::from_secs(5)), &mut out).unwrap();
    assert!(matches!(&out[..], [Completion::Received { data, .. }] if **data == *b"x"), "{out:?}");
    ring.nops(100).unwrap();
    assert_eq!(napi_id(&server).unwrap(), 0, "loopback is no card");
}
