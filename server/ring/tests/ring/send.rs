//! Batches of sends against real sockets.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use uringcast_ring::{Errno, Io, RingOptions, Send, SendOutcome, SendTrouble, Slot};

use crate::support::{Server, Told, options, reset, token};

/// With a completion per failure, and with one per send.
fn both(test: impl Fn(Server)) {
    for skip_success in [true, false] {
        let server = Server::new(RingOptions { skip_success, ..options() });
        let skips = skip_success && server.has("silent_sends");
        assert_eq!(server.ring.describe().skip_success, skips);
        test(server);
    }
}

fn send(server: &mut Server, slot: Slot, bytes: &[u8]) -> Option<SendOutcome> {
    let mut troubles = vec![SendTrouble { index: 99, outcome: SendOutcome::Full }];
    server.ring.send(&[Send { slot, bytes }], &mut troubles).unwrap();
    assert!(troubles.len() <= 1);
    troubles.pop().map(|trouble| {
        assert_eq!(trouble.index, 0);
        trouble.outcome
    })
}

/// Reads what is there, and what comes within a moment.
fn drain(client: &mut TcpStream) -> Vec<u8> {
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut read = Vec::new();
    match client.read_to_end(&mut read) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
    read
}

#[test]
fn a_short_send_says_how_much_and_the_next_that_it_is_full() {
    both(|mut server| {
        let (slot, mut client) = server.connect();
        let bytes: Vec<u8> = (0..16 << 20).map(|i: u32| (i / 3) as u8).collect();
        let taken = server.fill(slot, &bytes);
        assert!(taken > 0);
        assert_eq!(send(&mut server, slot, &bytes), Some(SendOutcome::Full));
        server.ring.poll_writable(slot, token(1));
        server.silent();
        let read = drain(&mut client);
        assert_eq!(read.len(), taken);
        assert!(read == bytes[..taken], "the bytes taken, in order");
        assert!(
            matches!(server.one(), Told::Writable { token: t, cancelled: false } if t == token(1))
        );
        assert_eq!(send(&mut server, slot, b"again"), None);
        assert_eq!(drain(&mut client), b"again");
    });
}

#[test]
fn a_peer_that_reset_is_dead() {
    both(|mut server| {
        let (slot, client) = server.connect();
        server.ring.poll_readable(slot, token(1));
        server.silent();
        reset(client);
        let told = server.one();
        assert!(matches!(told, Told::Readable { .. }), "{told:?}");
        for _ in 0..2 {
            let outcome = send(&mut server, slot, b"anyone?");
            let Some(SendOutcome::Dead(errno)) = outcome else { panic!("{outcome:?}") };
            assert!([libc::EPIPE, libc::ECONNRESET].contains(&errno.0), "{errno:?}");
        }
    });
}

#[test]
fn a_slot_that_is_not_open_is_dead() {
    both(|mut server| {
        let outcome = send(&mut server, Slot(5), b"nobody");
        assert_eq!(outcome, Some(SendOutcome::Dead(Errno(libc::EBADF))));
    });
}

#[test]
fn a_batch_of_nothing_is_nothing() {
    both(|mut server| {
        server.ring.send(&[], &mut Vec::new()).unwrap();
        server.silent();
    });
}

#[test]
fn more_sends_than_the_queue_holds_after_more_polls_than_it_holds() {
    for skip_success in [true, false] {
        let options =
            RingOptions { sq_entries: 8, cq_entries: 8, accepts: 8, skip_success, ..options() };
        let mut server = Server::new(options);
        let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
        // Two of them full, two of them gone.
        let lots = vec![1; 16 << 20];
        for full in [13, 29] {
            let slot = clients[full].0;
            server.fill(slot, &lots);
        }
        for (i, (slot, client)) in clients.iter_mut().enumerate() {
            // More than the queue holds: pushing submits what is in the way.
            server.ring.poll_readable(*slot, token(i as u32));
            if i == 40 || i == 41 {
                let gone = TcpStream::connect(client.peer_addr().unwrap()).unwrap();
                reset(std::mem::replace(client, gone));
            }
        }
        let texts: Vec<_> = (0..50).map(|i| format!("message for {i}")).collect();
        let sends: Vec<_> = clients
            .iter()
            .zip(&texts)
            .map(|(&(slot, _), text)| Send { slot, bytes: text.as_bytes() })
            .collect();
        let mut troubles = Vec::new();
        server.ring.send(&sends, &mut troubles).unwrap();
        let indices: Vec<_> = troubles.iter().map(|trouble| trouble.index).collect();
        assert_eq!(indices, [13, 29, 40, 41]);
        assert_eq!(troubles[0].outcome, SendOutcome::Full);
        assert_eq!(troubles[1].outcome, SendOutcome::Full);
        assert!(matches!(troubles[2].outcome, SendOutcome::Dead(_)));
        assert!(matches!(troubles[3].outcome, SendOutcome::Dead(_)));
        for (i, (_, client)) in clients.iter_mut().enumerate() {
            if ![13, 29, 40, 41].contains(&i) {
                let mut read = vec![0; texts[i].len()];
                client.read_exact(&mut read).unwrap();
                assert_eq!(read, texts[i].as_bytes());
                client.write_all(b"!").unwrap();
            }
        }
        // Each poll that was pushed is armed: 46 speak, 2 are reset; and 2 new connections came.
        let mut readable = [0; 50];
        let mut accepted = 0;
        while readable.iter().filter(|&&n| n > 0).count() < 48 || accepted < 2 {
            for told in server.told(1) {
                match told {
                    Told::Readable { token, .. } => readable[token.index as usize] += 1,
                    Told::Accepted { .. } => accepted += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!((readable[13], readable[29]), (0, 0));
    }
}

#[test]
fn completions_beyond_the_queue_are_all_told() {
    let options =
        RingOptions { sq_entries: 2, cq_entries: 2, accepts: 2, skip_success: false, ..options() };
    let mut server = Server::new(options);
    let mut clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
    for (i, (slot, _)) in clients.iter().enumerate() {
        server.ring.poll_readable(*slot, token(i as u32));
    }
    server.silent();
    for (_, client) in &mut clients {
        client.write_all(b"x").unwrap();
    }
    // The sends run while sixty polls have fired, into a queue for two completions.
    let sends: Vec<_> = clients.iter().map(|&(slot, _)| Send { slot, bytes: b"y" }).collect();
    let mut troubles = Vec::new();
    server.ring.send(&sends, &mut troubles).unwrap();
    assert!(troubles.is_empty(), "{troubles:?}");
    let told = server.told(60);
    let mut indices: Vec<_> = told
        .iter()
        .map(|told| match told {
            Told::Readable { token, .. } => token.index,
            other => panic!("{other:?}"),
        })
        .collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..60).collect::<Vec<_>>());
    assert!(server.ring.counters().overflows > 0, "{:?}", server.ring.counters());
    server.silent();
    for (_, client) in &mut clients {
        let mut read = [0; 1];
        client.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"y");
    }
}
