//! The seam between a shard and its I/O.
//!
//! Knows: what a shard may ask of a ring and what it hears back. Must not know: connections,
//! WebSocket, topics, or which kernel tier answers. The real ring and the simulator of the tests
//! both stand behind [`Io`], and the same shard code runs on either.

use std::{net::SocketAddr, ops::Deref, time::Duration};

use crate::error::{Errno, RingError};

/// A connection's place in the ring's table of registered files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub u32);

/// Which of the ring's listeners a connection came in by, in the order they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// Names the caller's object in a completion. A late completion of an earlier object with the same
/// index carries the earlier generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The caller's index, all 32 bits of it.
    pub index: u32,
    /// The caller's generation; the ring carries the low 24 bits.
    pub generation: u32,
}

/// The operations that stay in the kernel until something happens, and can be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Io::poll_readable`]
    PollReadable,
    /// [`Io::poll_writable`]
    PollWritable,
    /// [`Io::receive`], [`Io::receive_multishot`] and [`Io::receive_when_readable`]
    Receive,
}

/// One `SEND` of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Send<'m> {
    /// Where to.
    pub slot: Slot,
    /// What; at least one byte, at most 2^31 − 1.
    pub bytes: &'m [u8],
}

/// A `SEND` of a batch that did not take all its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendTrouble {
    /// Index into the batch.
    pub index: u32,
    /// What happened instead.
    pub outcome: SendOutcome,
}

/// Why a `SEND` was not full success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The socket's buffer took only so many bytes (at least one).
    Short(u32),
    /// The socket's buffer is full; nothing was taken.
    Full,
    /// The connection is gone (`EPIPE`, `ECONNRESET`, …).
    Dead(Errno),
}

/// What the ring reports. Every armed operation ends in exactly one completion after which it is
/// no longer armed; which ones those are is said at each variant.
#[derive(Debug)]
pub enum Completion<B> {
    /// A connection was accepted into `slot`. The ring has already re-armed the accept.
    Accepted {
        /// By which listener.
        listener: ListenerId,
        /// The connection's place in the table.
        slot: Slot,
        /// The peer's address.
        peer: SocketAddr,
    },
    /// An accept failed. After [`AcceptFailure::TableFull`] and [`AcceptFailure::System`] the ring
    /// arms no accept of this listener until [`Io::resume_accepts`].
    AcceptFailed {
        /// On which listener.
        listener: ListenerId,
        /// Why.
        failure: AcceptFailure,
    },
    /// A poll saw input, a hang-up or an error, and is armed no longer.
    Readable {
        /// Whose.
        token: Token,
        /// A hang-up or an error was seen (too): input that came before it is received first, and
        /// no other event tells of it.
        hung_up: bool,
    },
    /// A poll for input was cancelled, or failed.
    PollEnded {
        /// Whose.
        token: Token,
    },
    /// Bytes arrived. `armed`: a multishot receive that goes on.
    Received {
        /// Whose.
        token: Token,
        /// The bytes, at least one, in a shared buffer that goes back to the kernel when dropped.
        data: B,
        /// The receive is still armed (multishot).
        armed: bool,
    },
    /// A receive ended without bytes.
    ReceiveEnded {
        /// Whose.
        token: Token,
        /// Why.
        end: ReceiveEnd,
    },
    /// A one-shot poll for room to write ended: there is room, or an error to be found by sending.
    /// Also its end when cancelled (`cancelled`).
    Writable {
        /// Whose.
        token: Token,
        /// It was cancelled, nothing is known of the socket.
        cancelled: bool,
    },
    /// The slot is closed and may be given to another connection.
    Closed {
        /// Whose.
        token: Token,
    },
    /// Another thread rang.
    Woken,
}

/// Why an accept failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptFailure {
    /// The peer was gone already, or the network refused; the ring goes on by itself.
    Peer(Errno),
    /// `ENFILE`: no free place in the table; that connection has been closed.
    TableFull,
    /// Anything else that says the process or system is out of something.
    System(Errno),
    /// Cancelled by [`Io::stop_accepting`]; told once per listener, when none of its accepts is in
    /// flight any more.
    Stopped,
}

/// Why a receive ended without bytes. It is not armed any more in any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// Nothing to read now.
    Again,
    /// Cancelled.
    Cancelled,
    /// The peer sent FIN.
    Eof,
    /// `ENOBUFS`: the shared buffers are all out; try again after some were dropped.
    NoBuffers,
    /// The connection is gone.
    Dead(Errno),
}

/// How a wait ends that is not for the first completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinWait {
    /// So many end it, …
    pub completions: u32,
    /// … or any after so long, µs.
    pub at_most_us: u32,
}

/// What a shard may ask of its ring.
pub trait Io {
    /// A filled receive buffer; dropping it gives it back.
    type Buffer: Deref<Target = [u8]>;

    /// Submits what was asked, waits at most `timeout` (`None`: until something happens, zero: not
    /// at all) and appends what completed to `out`. It may return early with nothing (a signal).
    ///
    /// # Errors
    /// Only what the ring cannot go on after.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        out: &mut Vec<Completion<Self::Buffer>>,
    ) -> Result<(), RingError>;

    /// From now on a wait that may sleep is ended by so many completions, or by any after so long; `None`:
    /// by the first. Whether it is done: before Linux 6.12 always the first ends it.
    fn set_min_wait(&mut self, _min_wait: Option<MinWait>) -> bool {
        false
    }

    /// Sends each item, in order, before it returns; reports in `troubles` (cleared first) those
    /// that were not taken whole, in rising order of index. At most one item per slot.
    ///
    /// # Errors
    /// Only what the ring cannot go on after.
    fn send(
        &mut self,
        sends: &[Send<'_>],
        troubles: &mut Vec<SendTrouble>,
    ) -> Result<(), RingError>;

    /// How long the last [`Io::send`] took, ns; 0 where sends take no time.
    fn last_send_ns(&self) -> u64 {
        0
    }

    /// Arms a poll for input, which ends with its first event. One that stayed armed would have to be
    /// cancelled when its connection ends, and cancelling looks through a part of all that is in
    /// flight (the kernel's table has 256 lists at most).
    fn poll_readable(&mut self, slot: Slot, token: Token);
    /// Arms a one-shot poll for room to write.
    fn poll_writable(&mut self, slot: Slot, token: Token);
    /// One receive into a shared buffer, which does not wait: [`ReceiveEnd::Again`] when empty.
    fn receive(&mut self, slot: Slot, token: Token);
    /// A receive that stays armed; where the kernel has none, it ends with each (`armed: false`).
    fn receive_multishot(&mut self, slot: Slot, token: Token);
    /// One receive into a shared buffer, as soon as there is something: spares who is about to speak the
    /// poll, and takes more of the kernel's memory while it waits (873 B; a poll takes 261).
    fn receive_when_readable(&mut self, slot: Slot, token: Token);
    /// Cancels an armed operation; its own last completion still comes.
    fn cancel(&mut self, operation: Operation, token: Token);
    /// Closes the slot. Nothing of it may be armed.
    fn close(&mut self, slot: Slot, token: Token);

    /// Arms accepts again after [`Completion::AcceptFailed`].
    fn resume_accepts(&mut self, listener: ListenerId);
    /// Cancels all accepts, for good.
    fn stop_accepting(&mut self);

    /// Wakes a sleeping peer (an index into the peers given to the ring).
    fn wake(&mut self, peer: usize);

    /// The bytes one shared receive buffer holds; a receive of this length may have left more.
    fn receive_buffer_bytes(&self) -> usize;
}
