//! Accepting: addresses, a full table, the end.

use std::{
    io::{ErrorKind, Read},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};
use uringcast_ring::{
    AcceptFailure, Errno, Io, ListenerId, Ring, RingError, RingOptions, Slot,
    listen::{ListenOptions, listen},
    pin::raise_nofile_limit,
};

use crate::support::{Server, Told, options, token};

#[test]
fn each_connection_comes_with_its_own_address() {
    let mut server = Server::new(RingOptions { accepts: 3, ..options() });
    let mut clients = Vec::new();
    for last in 2..30 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from: SocketAddr = (Ipv4Addr::new(127, 0, 0, last), 0).into();
        socket.bind(&from.into()).unwrap();
        socket.connect(&server.address.into()).unwrap();
        clients.push(TcpStream::from(socket));
    }
    let mut peers = Vec::new();
    for told in server.told(clients.len()) {
        let Told::Accepted { listener, peer, .. } = told else { panic!("{told:?}") };
        assert_eq!(listener, server.listener);
        peers.push(peer);
    }
    let mut ours: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
    peers.sort_unstable();
    ours.sort_unstable();
    assert_eq!(peers, ours);
}

#[test]
fn listeners_are_told_apart_and_may_be_of_ipv6() {
    let mut server = Server::new(options());
    let socket = match listen("[::1]:0".parse().unwrap(), &ListenOptions::default()) {
        Ok(socket) => socket,
        Err(error) => {
            // A machine without IPv6 can't tell.
            assert!(matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)));
            return;
        }
    };
    let address = socket.local_addr().unwrap();
    let second = server.ring.add_listener(socket).unwrap();
    assert_eq!(second, ListenerId(1));
    let client = TcpStream::connect(address).unwrap();
    match server.one() {
        Told::Accepted { listener, peer, .. } => {
            assert_eq!((listener, peer), (second, client.local_addr().unwrap()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_table_loses_one_connection_and_keeps_the_next() {
    let mut server = Server::new(RingOptions { slots: 2, accepts: 4, ..options() });
    let (first, _client) = server.connect();
    let (_, _other) = server.connect();
    let mut lost = TcpStream::connect(server.address).unwrap();
    match server.one() {
        Told::AcceptFailed { listener, failure: AcceptFailure::TableFull } => {
            assert_eq!(listener, server.listener);
        }
        other => panic!("{other:?}"),
    }
    // The kernel has closed that one.
    lost.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    match lost.read(&mut [0; 1]) {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    // The accepts that were in flight are no more, so this one waits.
    let waiting = TcpStream::connect(server.address).unwrap();
    server.silent();
    server.ring.close(first, token(0));
    assert!(matches!(server.one(), Told::Closed { token: t } if t == token(0)));
    server.silent();
    server.ring.resume_accepts(server.listener);
    match server.one() {
        Told::Accepted { slot, peer, .. } => {
            assert_eq!((slot, peer), (first, waiting.local_addr().unwrap()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.ring.counters().accepts_failed, 1);
    // Resumed at once after it paused, with cancellations still on their way: no accept is lost.
    let _lost = TcpStream::connect(server.address).unwrap();
    assert!(matches!(server.one(), Told::AcceptFailed { failure: AcceptFailure::TableFull, .. }));
    server.ring.resume_accepts(server.listener);
    server.silent();
    server.ring.close(first, token(0));
    assert!(matches!(server.one(), Told::Closed { .. }));
    let (slot, _client) = server.connect();
    assert_eq!(slot, first);
}

#[test]
fn a_socket_that_does_not_listen_is_told_once() {
    let mut ring = Ring::new(RingOptions { accepts: 1, ..options() }).unwrap();
    let idle = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let id = ring.add_listener(idle).unwrap();
    let mut out = Vec::new();
    ring.wait(Some(Duration::from_secs(1)), &mut out).unwrap();
    match out[..] {
        [Told::AcceptFailed { listener, failure: AcceptFailure::System(errno) }] => {
            assert_eq!((listener, errno), (id, Errno(libc::EINVAL)));
        }
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn stopping_is_told_once_and_frees_the_port() {
    let mut server = Server::new(options());
    let (_slot, _client) = server.connect();
    server.ring.stop_accepting();
    server.ring.stop_accepting();
    match server.one() {
        Told::AcceptFailed { listener, failure: AcceptFailure::Stopped } => {
            assert_eq!(listener, server.listener);
        }
        other => panic!("{other:?}"),
    }
    server.ring.resume_accepts(server.listener);
    server.silent();
    let refused = TcpStream::connect(server.address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn closing_what_is_not_open_is_counted() {
    let mut server = Server::new(options());
    server.ring.close(Slot(3), token(3));
    assert!(matches!(server.one(), Told::Closed { .. }));
    assert_eq!(server.ring.counters().closes_failed, 1);
}

#[test]
fn a_table_beyond_the_limit_names_the_limit() {
    let limit = raise_nofile_limit().unwrap();
    let Some(slots) = u32::try_from(limit).ok().filter(|&limit| limit < 1 << 20) else {
        // A limit as high as the kernel's own maximum can't be passed.
        return;
    };
    let refused = Ring::new(RingOptions { slots: slots + 1, ..options() }).unwrap_err();
    assert!(matches!(refused, RingError::DescriptorLimit { .. }), "{refused}");
    assert!(refused.to_string().contains(&format!("ulimit -n {}", slots + 1)), "{refused}");
}

#[test]
fn what_is_accepted_inherits_the_listeners_options() {
    let options = ListenOptions { keepalive_s: Some(60), ..Default::default() };
    let socket = listen("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let _client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    let (accepted, _) = socket.accept().unwrap();
    let accepted = SockRef::from(&accepted);
    assert!(accepted.tcp_nodelay().unwrap());
    assert!(accepted.keepalive().unwrap());
    let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
    let asked = most.trim().parse().unwrap_or(usize::MAX).min(256 << 10);
    assert_eq!(accepted.send_buffer_size().unwrap(), 2 * asked);
    assert_eq!(accepted.tcp_notsent_lowat().unwrap(), 16 << 10);
    assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
}
