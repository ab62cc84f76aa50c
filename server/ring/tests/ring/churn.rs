//! Many connections, random operations: each armed operation ends once, nothing is left over.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
};

use uringcast_ring::{
    AcceptFailure, Buffer, Io, Operation, ReceiveEnd, RingOptions, Send, SendOutcome, Slot, Token,
};

use crate::support::{Server, Told, options, reset};

/// What the ring has of a connection, as the tests' own bookkeeping says.
#[derive(Default)]
struct Connection {
    slot: u32,
    client: Option<TcpStream>,
    armed: HashMap<Operation, bool>,
    closing: bool,
}

#[derive(Default)]
struct World {
    connections: HashMap<u32, Connection>,
    born: u32,
    buffers: Vec<Buffer>,
}

impl World {
    fn token(index: u32) -> Token {
        Token { index, generation: index * 7 }
    }

    fn end(&mut self, operation: Operation, token: Token) {
        let connection = self.connections.get_mut(&token.index).expect("of one that lives");
        assert_eq!(token.generation, token.index * 7);
        let armed = connection.armed.remove(&operation);
        assert!(armed.is_some(), "{operation:?} of {} ended twice", token.index);
    }

    fn is_armed(&self, operation: Operation, token: Token) {
        let connection = &self.connections[&token.index];
        assert!(connection.armed.contains_key(&operation), "{operation:?} of {}", token.index);
    }

    fn hear(&mut self, told: Told<Buffer>) {
        match told {
            Told::Readable { token, .. } | Told::PollEnded { token } => {
                self.end(Operation::PollReadable, token);
            }
            Told::Writable { token, .. } => self.end(Operation::PollWritable, token),
            Told::Received { token, data, armed } => {
                assert!(!data.is_empty() && data.iter().all(|&byte| byte == token.index as u8));
                if armed {
                    self.is_armed(Operation::Receive, token);
                } else {
                    self.end(Operation::Receive, token);
                }
                self.buffers.push(data);
            }
            Told::ReceiveEnded { token, end } => {
                if let ReceiveEnd::Dead(errno) = end {
                    assert_eq!(errno.0, libc::ECONNRESET);
                }
                self.end(Operation::Receive, token);
            }
            Told::Closed { token } => {
                let gone = self.connections.remove(&token.index).expect("of one that lives");
                assert!(gone.closing && gone.armed.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }

    fn connect(&mut self, server: &mut Server) {
        let client = TcpStream::connect(server.address).unwrap();
        client.set_nonblocking(true).unwrap();
        loop {
            let mut slots = Vec::new();
            for told in server.told(1) {
                match told {
                    Told::Accepted { slot: Slot(slot), peer, .. } => {
                        assert_eq!(peer, client.local_addr().unwrap());
                        slots.push(slot);
                    }
                    Told::AcceptFailed { failure: AcceptFailure::Peer(_), .. } => {}
                    told => self.hear(told),
                }
            }
            if let Some(slot) = slots.pop() {
                let mine = self.connections.values().all(|connection| connection.slot != slot);
                assert!(mine && slots.is_empty(), "slot {slot} is given twice");
                let new = Connection { slot, client: Some(client), ..Default::default() };
                self.connections.insert(self.born, new);
                self.born += 1;
                return;
            }
        }
    }

    fn act(&mut self, server: &mut Server, index: u32, dice: u32) {
        let token = Self::token(index);
        let connection = self.connections.get_mut(&index).expect("chosen of these");
        let slot = Slot(connection.slot);
        if connection.closing {
            return;
        }
        let armed = |operation| connection.armed.contains_key(&operation);
        match dice {
            0..=2 if !armed(Operation::PollReadable) => {
                server.ring.poll_readable(slot, token);
                connection.armed.insert(Operation::PollReadable, true);
            }
            3..=4 if !armed(Operation::PollWritable) => {
                server.ring.poll_writable(slot, token);
                connection.armed.insert(Operation::PollWritable, true);
            }
            5..=6 if !armed(Operation::Receive) => {
                server.ring.receive(slot, token);
                connection.armed.insert(Operation::Receive, false);
            }
            7..=8 if !armed(Operation::Receive) => {
                server.ring.receive_multishot(slot, token);
                connection.armed.insert(Operation::Receive, true);
            }
            9 => server.ring.cancel(Operation::PollReadable, token),
            10 => server.ring.cancel(Operation::PollWritable, token),
            11 => server.ring.cancel(Operation::Receive, token),
            12..=17 => {
                if let Some(client) = &mut connection.client {
                    // Full or reset is as good as sent.
                    let _ = client.write(&[index as u8; 100]);
                    let _ = client.read(&mut [0; 1 << 16]);
                }
            }
            18 => drop(connection.client.take()),
            19 => {
                if let Some(client) = connection.client.take() {
                    reset(client);
                }
            }
            20 => {
                let bytes = vec![index as u8; 100_000];
                let mut troubles = Vec::new();
                server.ring.send(&[Send { slot, bytes: &bytes }], &mut troubles).unwrap();
                for trouble in troubles {
                    if let SendOutcome::Dead(errno) = trouble.outcome {
                        assert!([libc::EPIPE, libc::ECONNRESET].contains(&errno.0), "{errno:?}");
                    }
                }
            }
            21 => self.close(server, index),
            _ => self.buffers.truncate(self.buffers.len() / 2),
        }
    }

    /// Cancels what is armed, waits for the ends, closes.
    fn close(&mut self, server: &mut Server, index: u32) {
        let token = Self::token(index);
        let connection = self.connections.get_mut(&index).expect("chosen of these");
        for &operation in connection.armed.keys() {
            server.ring.cancel(operation, token);
        }
        while !self.connections[&index].armed.is_empty() {
            for told in server.told(1) {
                self.hear(told);
            }
        }
        let connection = self.connections.get_mut(&index).expect("still there");
        connection.closing = true;
        server.ring.close(Slot(connection.slot), token);
    }
}

#[test]
fn whatever_is_asked_each_operation_ends_once() {
    for (seed, cq_entries) in [(1, 16), (2, 4096), (3, 16)] {
        println!("seed {seed}, a queue of {cq_entries}");
        let options = RingOptions {
            sq_entries: 8,
            cq_entries,
            slots: 40,
            accepts: 3,
            receive_buffers: 8,
            receive_buffer_bytes: 64,
            ..options()
        };
        let (mut server, mut world) = (Server::new(options), World::default());
        let mut state: u32 = seed;
        // Numerical Recipes' generator; its high bits are good.
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((u64::from(state) * below as u64) >> 32) as u32
        };
        for _ in 0..8000 {
            // Closed ones count until they are told: a full table has its own test.
            if world.connections.len() < 30 && random(4) == 0 {
                world.connect(&mut server);
            }
            let mut indices: Vec<_> = world.connections.keys().copied().collect();
            indices.sort_unstable();
            if let Some(&index) = indices.get(random(indices.len().max(1)) as usize) {
                world.act(&mut server, index, random(24));
            }
            if random(3) == 0 {
                let mut out = Vec::new();
                server.ring.wait(Some(std::time::Duration::ZERO), &mut out).unwrap();
                out.into_iter().for_each(|told| world.hear(told));
            }
        }
        assert!(world.born > 100, "{}", world.born);
        let left: Vec<_> = world.connections.keys().copied().collect();
        for index in left {
            if world.connections.get(&index).is_some_and(|connection| !connection.closing) {
                world.close(&mut server, index);
            }
        }
        while !world.connections.is_empty() {
            for told in server.told(1) {
                world.hear(told);
            }
        }
        server.silent();
    }
}
