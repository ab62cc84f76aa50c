//! Both ends of many loopback connections.
//!
//! Knows: how they are made, filled and emptied. Must not know: which ring has them, or what for.
//!
//! Every ring of a group is given the same sockets, so that none has better placed ones than another.

use std::{
    cell::RefCell,
    error::Error,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use uringcast_ring::{
    Io as _, Ring, RingOptions, Slot, Token,
    listen::{ListenOptions, listen},
};

/// Connections; the server's end of number n is to be slot n.
#[derive(Debug)]
pub(crate) struct Sockets {
    servers: Vec<TcpStream>,
    clients: Vec<TcpStream>,
    scratch: RefCell<Vec<u8>>,
}

impl Sockets {
    /// With the options that the server's connections have.
    pub(crate) fn open(count: u32) -> Result<Self, Box<dyn Error>> {
        let listener = listen("127.0.0.1:0".parse()?, &ListenOptions::default())?;
        let address = listener.local_addr()?;
        let (mut servers, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let client = TcpStream::connect(address)?;
            client.set_nonblocking(true)?;
            client.set_nodelay(true)?;
            clients.push(client);
            servers.push(listener.accept()?.0);
        }
        Ok(Self { servers, clients, scratch: RefCell::new(vec![0; 256 << 10]) })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.servers.len()
    }

    /// A ring with the first `count` server ends in its slots.
    pub(crate) fn ring(&self, count: usize, options: RingOptions) -> Result<Ring, Box<dyn Error>> {
        let mut ring = Ring::new(RingOptions { slots: count.max(1) as u32, ..options })?;
        for (socket, slot) in self.servers.iter().take(count).zip(0..) {
            ring.adopt(socket, Slot(slot))?;
        }
        Ok(ring)
    }

    /// The client's ends.
    pub(crate) fn clients(&self) -> &[TcpStream] {
        &self.clients
    }

    /// One server end.
    pub(crate) fn server(&self, index: usize) -> &TcpStream {
        &self.servers[index]
    }

    /// A client writes, all of it at once.
    pub(crate) fn write(&self, client: usize, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        Ok((&self.clients[client]).write_all(bytes)?)
    }

    /// Throws away what the first `count` clients have been sent, which must be so many bytes each.
    pub(crate) fn drain(&self, count: usize, bytes_each: usize) -> Result<(), Box<dyn Error>> {
        let mut scratch = self.scratch.borrow_mut();
        for mut client in &self.clients[..count] {
            let mut bytes = 0;
            while bytes < bytes_each {
                match client.read(&mut scratch[..]) {
                    Ok(0) => return Err("a connection was closed".into()),
                    Ok(more) => bytes += more,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if bytes > bytes_each {
                return Err(format!("{bytes} bytes came instead of {bytes_each}").into());
            }
        }
        Ok(())
    }
}

/// Names a connection by its index.
pub(crate) fn token(index: usize) -> Token {
    Token { index: index as u32, generation: 1 }
}

/// Takes operations off the ring's first `count` slots that have one armed, so that another ring may have
/// the sockets for itself.
pub(crate) fn disarm(
    ring: &mut Ring,
    count: usize,
    operation: uringcast_ring::Operation,
) -> Result<(), Box<dyn Error>> {
    for index in 0..count {
        ring.cancel(operation, token(index));
    }
    let (mut out, mut ended) = (Vec::new(), 0);
    while ended < count {
        ring.wait(None, &mut out)?;
        ended += out.drain(..).filter(ends).count();
    }
    Ok(())
}

fn ends<B>(completion: &uringcast_ring::Completion<B>) -> bool {
    use uringcast_ring::Completion::{PollEnded, ReceiveEnded, Received};
    matches!(completion, PollEnded { .. } | ReceiveEnded { .. } | Received { armed: false, .. })
}
