//! A socket in memory, ready at once.
//!
//! Knows: the three faces of a stream that the crates ask for. Must not know: WebSocket.
//!
//! Reading copies out of it and writing copies into it, as the kernel would: a crate that avoids a
//! copy of its own gains by it, and none avoids the kernel's.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the peer sends, once or again and again, and what it was sent.
pub(crate) struct Wire {
    input: Arc<[u8]>,
    /// What of `input` is taken: 0 ≤ `taken` ≤ `input.len()`.
    taken: usize,
    again: bool,
    /// Never longer than its capacity: the room of a socket that is emptied whenever it is full.
    output: Vec<u8>,
}

impl Wire {
    /// A peer that never ceases to send `input`.
    pub(crate) fn endless(input: Arc<[u8]>) -> Self {
        Self { input, taken: 0, again: true, output: Vec::with_capacity(SOCKET_BYTES) }
    }

    /// A peer that sends `input` and then waits.
    pub(crate) fn once(input: Arc<[u8]>) -> Self {
        Self { input, taken: 0, again: false, output: Vec::with_capacity(1 << 10) }
    }

    /// Fills the front of `out` with what has come; `None`: nothing has.
    pub(crate) fn take(&mut self, out: &mut [u8]) -> Option<usize> {
        let come = self.come(out.len())?;
        out[..come.len()].copy_from_slice(come);
        let bytes = come.len();
        self.taken += bytes;
        Some(bytes)
    }

    /// Takes some of what is to be sent; how many bytes.
    pub(crate) fn give(&mut self, bytes: &[u8]) -> usize {
        if self.output.len() == self.output.capacity() {
            self.output.clear();
        }
        let room = self.output.capacity() - self.output.len();
        let given = &bytes[..bytes.len().min(room)];
        self.output.extend_from_slice(given);
        given.len()
    }

    /// Takes all of it.
    pub(crate) fn give_all(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let given = self.give(bytes);
            bytes = &bytes[given..];
        }
    }

    /// What was sent and not cleared away.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output
    }

    fn come(&mut self, bytes_max: usize) -> Option<&[u8]> {
        if self.taken == self.input.len() {
            if !self.again {
                return None;
            }
            self.taken = 0;
        }
        let end = self.input.len().min(self.taken + bytes_max);
        Some(&self.input[self.taken..end])
    }
}

/// What the future gives; `None` if it waits for something.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

impl io::Read for Wire {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.take(out).ok_or_else(|| ErrorKind::WouldBlock.into())
    }
}

impl io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.give(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(come) = self.come(out.remaining()) else { return Poll::Pending };
        out.put_slice(come);
        let bytes = come.len();
        self.taken += bytes;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(self.give(bytes)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut sum = 0;
        for slice in slices {
            let given = self.give(slice);
            sum += given;
            if given < slice.len() {
                break;
            }
        }
        Poll::Ready(Ok(sum))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A socket's send buffer.
const SOCKET_BYTES: usize = 256 << 10;
