//! The clients' end of the simulated sockets.
//!
//! Knows: what a client may do with its socket, and what then comes to the server's. Must not know:
//! io_uring, shards, what the bytes say.

use super::*;

impl Net {
    pub(crate) fn connect(&mut self, shard: usize, listener: usize, room: usize) -> usize {
        let socket = self.sockets.len();
        let to_server_max = self.dice.scale(512, 64 << 10);
        self.sockets.push(Socket {
            shard,
            listener,
            slot: None,
            to_client: VecDeque::new(),
            to_client_max: room,
            to_server: VecDeque::new(),
            to_server_max,
            fin: false,
            gone: false,
            reset: false,
            closed: false,
            torn: false,
            taken_bytes: 0,
        });
        let kernel = &mut self.kernels[shard];
        if kernel.stopped {
            self.sockets[socket].torn = true;
        } else {
            kernel.backlog[listener].push_back(socket);
            kernel.pending.push(Item::Accept(listener));
        }
        socket
    }

    /// Sends; how much was taken.
    pub(crate) fn write(&mut self, socket: usize, bytes: &[u8]) -> usize {
        let s = &mut self.sockets[socket];
        assert!(!s.fin && !s.reset, "the model client writes after its end");
        if s.closed || s.torn {
            return bytes.len();
        }
        let taken = bytes.len().min(s.to_server_max - s.to_server.len());
        s.to_server.extend(&bytes[..taken]);
        if taken > 0 {
            self.input_came(socket);
        }
        taken
    }

    /// Reads at most so many bytes, and says what comes after them, if that is all.
    pub(crate) fn read(&mut self, socket: usize, most: usize) -> (Vec<u8>, End) {
        let s = &mut self.sockets[socket];
        if s.torn {
            return (Vec::new(), End::Reset);
        }
        let count = most.min(s.to_client.len());
        let bytes: Vec<u8> = s.to_client.drain(..count).collect();
        let end = if s.closed && s.to_client.is_empty() { End::Eof } else { End::Open };
        if count > 0 {
            self.room_came(socket);
        }
        (bytes, end)
    }

    /// A socket and what the kernel has of it, for messages.
    pub(crate) fn describe(&self, socket: usize) -> String {
        let s = &self.sockets[socket];
        let entry = s.slot.map(|slot| &self.kernels[s.shard].table[slot]);
        let (input, output) = (s.to_server.len(), s.to_client.len());
        format!("input {input} B, output {output} B, fin {}, {entry:?}", s.fin)
    }

    pub(crate) fn shut(&mut self, socket: usize) {
        self.sockets[socket].fin = true;
        self.input_came(socket);
    }

    pub(crate) fn close_client(&mut self, socket: usize) {
        let s = &mut self.sockets[socket];
        s.gone = true;
        if !s.to_client.is_empty() {
            s.reset = true;
            s.to_server.clear();
        }
        s.to_client.clear();
        s.fin = true;
        self.input_came(socket);
        self.room_came(socket);
    }

    pub(crate) fn reset(&mut self, socket: usize) {
        let s = &mut self.sockets[socket];
        s.reset = true;
        s.to_server.clear();
        s.to_client.clear();
        self.input_came(socket);
        self.room_came(socket);
    }
}
