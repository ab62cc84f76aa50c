//! A conversation through a real ring.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use uringcast_ring::{
    Completion, Io, ReceiveEnd, Ring, RingOptions, Send, Token,
    listen::{ListenOptions, listen},
};

#[test]
fn accept_poll_receive_send_close() {
    let mut ring = Ring::new(RingOptions::default()).unwrap();
    let listener = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    let address = listener.local_addr().unwrap();
    ring.add_listener(listener).unwrap();
    let mut out = Vec::new();
    let mut client = TcpStream::connect(address).unwrap();
    ring.wait(Some(Duration::from_secs(2)), &mut out).unwrap();
    let Some(Completion::Accepted { slot, peer, .. }) = out.pop() else { panic!("{out:?}") };
    assert_eq!(peer, client.local_addr().unwrap());
    assert!(out.is_empty());
    let token = Token { index: 7, generation: 9 };
    ring.poll_readable(slot, token);
    client.write_all(b"hello").unwrap();
    ring.wait(Some(Duration::from_secs(2)), &mut out).unwrap();
    assert!(matches!(out.pop(), Some(Completion::Readable { token: t }) if t == token));
    ring.receive(slot, token);
    ring.receive(slot, Token { index: 8, generation: 9 });
    ring.wait(Some(Duration::from_secs(2)), &mut out).unwrap();
    assert!(matches!(&out[0], Completion::Received { data, .. } if **data == *b"hello"), "{out:?}");
    assert!(matches!(&out[1], Completion::ReceiveEnded { end: ReceiveEnd::Again, .. }), "{out:?}");
    out.clear();
    let mut troubles = Vec::new();
    ring.send(&[Send { slot, bytes: b"world" }], &mut troubles).unwrap();
    assert!(troubles.is_empty());
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"world");
    println!("{}", ring.describe());
    assert!(ring.describe().skip_success);
    assert!(ring.describe().registered_ring);
}
