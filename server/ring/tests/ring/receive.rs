//! Polls, receives and their ends.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
};

use uringcast_ring::{Buffer, Io, Operation, ReceiveEnd, RingOptions, Send, Slot, Token};

use crate::support::{Server, Told, options, reset, token};

fn few_buffers() -> RingOptions {
    RingOptions { receive_buffers: 2, receive_buffer_bytes: 64, ..options() }
}

/// Whether the poll has seen input.
fn is_readable(told: &Told<Buffer>, expected: Token) -> bool {
    matches!(told, Told::Readable { token, .. } if *token == expected)
}

fn speak(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).unwrap();
}

#[test]
fn what_is_there_then_nothing_then_the_end() {
    let mut server = Server::new(options());
    let (slot, mut client) = server.connect();
    server.ring.receive(slot, token(1));
    assert!(matches!(server.one(), Told::ReceiveEnded { end: ReceiveEnd::Again, .. }));
    server.ring.poll_readable(slot, token(1));
    speak(&mut client, b"hello");
    assert!(is_readable(&server.one(), token(1)));
    server.ring.receive(slot, token(1));
    match server.one() {
        Told::Received { token: t, data, armed: false } => {
            assert_eq!((t, &*data), (token(1), &b"hello"[..]));
        }
        other => panic!("{other:?}"),
    }
    // Half closed: we hear the end, and can still answer.
    server.ring.poll_readable(slot, token(1));
    client.shutdown(Shutdown::Write).unwrap();
    assert!(is_readable(&server.one(), token(1)));
    server.ring.receive(slot, token(1));
    assert!(matches!(server.one(), Told::ReceiveEnded { end: ReceiveEnd::Eof, .. }));
    let mut troubles = Vec::new();
    server.ring.send(&[Send { slot, bytes: b"bye" }], &mut troubles).unwrap();
    assert!(troubles.is_empty());
    let mut read = [0; 3];
    client.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"bye");
}

#[test]
fn a_reset_is_dead_to_both_kinds_of_receive() {
    let mut server = Server::new(options());
    let (slot, client) = server.connect();
    let (other_slot, other) = server.connect();
    server.ring.receive_multishot(other_slot, token(2));
    server.silent();
    reset(client);
    reset(other);
    let dead = |told: &Told<Buffer>| match told {
        Told::ReceiveEnded { end: ReceiveEnd::Dead(errno), .. } => errno.0 == libc::ECONNRESET,
        _ => false,
    };
    let told = server.one();
    assert!(dead(&told), "{told:?}");
    server.ring.receive(slot, token(1));
    let told = server.one();
    assert!(dead(&told), "{told:?}");
}

#[test]
fn without_buffers_a_receive_ends_and_recovers() {
    let mut server = Server::new(few_buffers());
    let (slot, mut client) = server.connect();
    speak(&mut client, &[b'a'; 150]);
    assert_eq!(server.ring.receive_buffer_bytes(), 64);
    server.ring.receive(slot, token(1));
    let first = server.one();
    server.ring.receive(slot, token(1));
    let second = server.one();
    assert!(matches!(&first, Told::Received { data, .. } if data.len() == 64));
    server.ring.receive(slot, token(1));
    assert!(matches!(server.one(), Told::ReceiveEnded { end: ReceiveEnd::NoBuffers, .. }));
    server.ring.receive_multishot(slot, token(1));
    assert!(matches!(server.one(), Told::ReceiveEnded { end: ReceiveEnd::NoBuffers, .. }));
    assert_eq!(server.ring.counters().no_buffers, 2);
    drop(first);
    server.ring.receive(slot, token(1));
    assert!(matches!(server.one(), Told::Received { data, .. } if data.len() == 22));
    drop(second);
}

#[test]
fn a_buffer_comes_back_whatever_became_of_its_receive() {
    let mut server = Server::new(few_buffers());
    let (slot, mut client) = server.connect();
    for round in 0..200_u32 {
        speak(&mut client, &round.to_be_bytes());
        loop {
            server.ring.receive(slot, token(round));
            match server.one() {
                Told::Received { data, .. } => {
                    assert_eq!(*data, round.to_be_bytes());
                    break;
                }
                Told::ReceiveEnded { end: ReceiveEnd::Again, .. } => {}
                other => panic!("{other:?}"),
            }
        }
        server.ring.receive(slot, token(round));
        assert!(matches!(server.one(), Told::ReceiveEnded { end: ReceiveEnd::Again, .. }));
    }
    client.shutdown(Shutdown::Write).unwrap();
    for _ in 0..10 {
        server.ring.receive(slot, token(1));
        assert!(matches!(server.one(), Told::ReceiveEnded { end: ReceiveEnd::Eof, .. }));
    }
}

#[test]
fn a_multishot_receive_stays_armed_until_it_says_otherwise() {
    let mut server = Server::new(few_buffers());
    let (slot, mut client) = server.connect();
    server.ring.receive_multishot(slot, token(1));
    if !server.has("multishot_receive") {
        return stays_armed_by_hand(&mut server, slot, &mut client);
    }
    for _ in 0..5 {
        server.silent();
        speak(&mut client, b"more");
        assert!(
            matches!(server.one(), Told::Received { data, armed: true, .. } if *data == *b"more")
        );
    }
    // More than all buffers hold at once: two parts, then none left.
    speak(&mut client, &[b'b'; 300]);
    let told = server.told(3);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(matches!(&told[0], Told::Received { data, armed: true, .. } if data.len() == 64));
    assert!(matches!(&told[1], Told::Received { data, armed: true, .. } if data.len() == 64));
    assert!(matches!(&told[2], Told::ReceiveEnded { end: ReceiveEnd::NoBuffers, .. }));
    drop(told);
    server.ring.receive_multishot(slot, token(1));
    let told = server.told(3);
    assert_eq!(told.len(), 3, "{told:?}");
    drop(told);
    server.ring.receive_multishot(slot, token(1));
    assert!(matches!(server.one(), Told::Received { data, armed: true, .. } if data.len() == 44));
    client.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(server.one(), Told::ReceiveEnded { end: ReceiveEnd::Eof, .. }));
    server.silent();
}

/// The kernel has only receives that end, and says so each time.
fn stays_armed_by_hand(server: &mut Server, slot: Slot, client: &mut TcpStream) {
    for _ in 0..5 {
        server.silent();
        speak(client, b"more");
        assert!(
            matches!(server.one(), Told::Received { data, armed: false, .. } if *data == *b"more")
        );
        server.ring.receive_multishot(slot, token(1));
    }
    speak(client, &[b'b'; 300]);
    let mut held = Vec::new();
    for bytes in [64, 64] {
        match server.one() {
            Told::Received { data, armed: false, .. } if data.len() == bytes => held.push(data),
            other => panic!("{other:?}"),
        }
        server.ring.receive_multishot(slot, token(1));
    }
    assert!(matches!(server.one(), Told::ReceiveEnded { end: ReceiveEnd::NoBuffers, .. }));
    held.clear();
    for bytes in [64, 64, 44] {
        server.ring.receive_multishot(slot, token(1));
        assert!(
            matches!(server.one(), Told::Received { data, armed: false, .. } if data.len() == bytes)
        );
    }
    client.shutdown(Shutdown::Write).unwrap();
    server.ring.receive_multishot(slot, token(1));
    assert!(matches!(server.one(), Told::ReceiveEnded { end: ReceiveEnd::Eof, .. }));
    server.silent();
}

#[test]
fn the_first_receive_waits_for_its_bytes_and_ends_with_them() {
    let mut server = Server::new(options());
    let (slot, mut client) = server.connect();
    server.ring.receive_when_readable(slot, token(1));
    server.silent();
    speak(&mut client, b"GET");
    match server.one() {
        Told::Received { token: t, data, armed: false } => {
            assert_eq!((t, &*data), (token(1), &b"GET"[..]));
        }
        other => panic!("{other:?}"),
    }
    speak(&mut client, b"more");
    server.silent();
    // What is there already is told at once, and so is the end.
    server.ring.receive_when_readable(slot, token(1));
    assert!(matches!(server.one(), Told::Received { armed: false, .. }));
    server.ring.receive_when_readable(slot, token(1));
    client.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(server.one(), Told::ReceiveEnded { end: ReceiveEnd::Eof, .. }));
    // And one that waits can be cancelled.
    let (slot, _client) = server.connect();
    server.ring.receive_when_readable(slot, token(2));
    server.silent();
    server.ring.cancel(Operation::Receive, token(2));
    assert!(matches!(server.one(), Told::ReceiveEnded { end: ReceiveEnd::Cancelled, .. }));
}

#[test]
fn cancelling_ends_each_operation_once() {
    let mut server = Server::new(options());
    let (slot, mut client) = server.connect();
    server.fill(slot, &vec![0; 16 << 20]);
    // In the kernel for a while, and cancelled in the same breath.
    for wait in [true, false] {
        server.ring.poll_readable(slot, token(1));
        server.ring.poll_writable(slot, token(2));
        server.ring.receive_multishot(slot, token(3));
        if wait {
            server.silent();
        }
        server.ring.cancel(Operation::PollReadable, token(1));
        server.ring.cancel(Operation::PollWritable, token(2));
        server.ring.cancel(Operation::Receive, token(3));
        let mut ends = [0; 4];
        for told in server.told(3) {
            match told {
                Told::PollEnded { token } => ends[token.index as usize] += 1,
                Told::Writable { token, cancelled: true } => ends[token.index as usize] += 1,
                Told::ReceiveEnded { token, end: ReceiveEnd::Cancelled } => {
                    ends[token.index as usize] += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ends, [0, 1, 1, 1]);
        server.silent();
    }
    // What is over, or never was, cancels in silence.
    server.ring.cancel(Operation::PollReadable, token(1));
    server.ring.cancel(Operation::Receive, token(77));
    server.silent();
    // And what comes now reaches nobody.
    speak(&mut client, b"late");
    server.silent();
}

#[test]
fn a_late_completion_carries_its_own_generation() {
    let mut server = Server::new(RingOptions { slots: 1, accepts: 1, ..options() });
    let (slot, client) = server.connect();
    let old = Token { index: 5, generation: 0x0100_0001 };
    let new = Token { index: 5, generation: 2 };
    server.ring.poll_readable(slot, old);
    server.silent();
    server.ring.close(slot, old);
    if !server.has("direct_descriptors") {
        // Closing shuts the socket down, which the poll sees, and says with the low 24 bits.
        let told = server.told(2);
        let late = Token { index: 5, generation: 1 };
        assert!(told.iter().any(|told| is_readable(told, late)), "{told:?}");
        assert!(told.iter().any(|told| matches!(told, Told::Closed { .. })), "{told:?}");
        let (again, mut second) = server.connect();
        server.ring.poll_readable(again, new);
        server.silent();
        second.write_all(b"x").unwrap();
        return server.readable(again, new);
    }
    // Closing the slot does not end the poll, which holds the socket.
    assert!(matches!(server.one(), Told::Closed { .. }));
    let (again, mut second) = server.connect();
    assert_eq!(again, Slot(0));
    server.ring.poll_readable(again, new);
    server.silent();
    second.write_all(b"x").unwrap();
    assert!(matches!(server.one(), Told::Readable { token, .. } if token == new));
    drop(client);
    // The low 24 bits of it.
    let told = server.one();
    let Told::Readable { token, .. } = told else { panic!("{told:?}") };
    assert_eq!(token, Token { index: 5, generation: 1 });
    server.ring.cancel(Operation::PollReadable, old);
    server.silent();
}
