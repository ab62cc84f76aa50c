//! The simulated kernels, one per shard, and the sockets between them and the clients.
//!
//! Knows: what io_uring promises and what it may do besides: short sends, full buffers, late and
//! reordered completions, events that fall together, tables and buffers that run out, resets.
//! Must not know: WebSocket, shards, what the bytes say.
//!
//! It also watches the other side of the contract: nothing is armed twice, nothing is sent to or
//! asked of a slot that is being closed, no slot is closed while an operation of it is out.

mod far_end;

use std::{
    cell::Cell,
    collections::{BTreeSet, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    rc::Rc,
};

use uringcast_ring::{
    AcceptFailure, Completion, Errno, ListenerId, Operation, ReceiveEnd, Send, SendOutcome,
    SendTrouble, Slot, Token,
};

use crate::dice::Dice;

/// How the network misbehaves, in 1,000 cases.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// A send takes less than there is room for.
    pub(crate) short: usize,
    /// A poll for room says that there is some, and there is none.
    pub(crate) false_room: usize,
    /// A poll or a receive that stays armed is ended by the kernel.
    pub(crate) ends: usize,
    /// An accept fails.
    pub(crate) accept: usize,
}

/// A receive buffer of a kernel's shared ones.
#[derive(Debug)]
pub(crate) struct SimBuffer {
    bytes: Vec<u8>,
    free: Rc<Cell<usize>>,
}

impl Deref for SimBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for SimBuffer {
    fn drop(&mut self) {
        self.free.set(self.free.get() + 1);
    }
}

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) shard: usize,
    listener: usize,
    /// Its slot, once accepted and until closed.
    slot: Option<usize>,
    /// Sent by the server, not read by the client.
    to_client: VecDeque<u8>,
    to_client_max: usize,
    /// Sent by the client, not received by the server.
    to_server: VecDeque<u8>,
    to_server_max: usize,
    /// The client sends no more.
    fin: bool,
    /// The client has closed its socket: what is still sent to it is answered by a reset.
    gone: bool,
    /// Reset by the client.
    reset: bool,
    /// Closed by the server.
    closed: bool,
    /// Closed by the server with input unread, or never accepted: a reset to the client.
    torn: bool,
    /// Bytes that the server was told were sent.
    pub(crate) taken_bytes: u64,
}

/// What a client finds at the end of what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Open,
    Eof,
    Reset,
}

/// Whether an operation waits for its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It says what there is.
    No,
    /// For one.
    Once,
    /// For one after the other.
    Always,
}

/// An operation that the kernel has.
#[derive(Clone, Copy, Debug)]
struct Op {
    token: Token,
    wait: Wait,
    /// A completion of it is on its way.
    queued: bool,
    /// Its last completion is on its way.
    ending: bool,
}

#[derive(Debug, Default)]
struct Entry {
    socket: usize,
    poll: Option<Op>,
    write: Option<Op>,
    receive: Option<Op>,
    closing: bool,
}

/// A completion on its way.
#[derive(Clone, Copy, Debug)]
enum Item {
    Accept(usize),
    Stopped(usize),
    Readable(usize),
    PollCancelled(usize),
    Receive(usize),
    ReceiveCancelled(usize),
    Writable(usize, bool),
    Closed(usize, Token),
    Woken,
}

impl Item {
    /// Completions of one key come in order.
    fn key(self) -> (u8, usize) {
        match self {
            Self::Accept(listener) | Self::Stopped(listener) => (0, listener),
            Self::Readable(slot) | Self::PollCancelled(slot) => (1, slot),
            Self::Receive(slot) | Self::ReceiveCancelled(slot) => (2, slot),
            Self::Writable(slot, _) => (3, slot),
            Self::Closed(slot, _) => (4, slot),
            Self::Woken => (5, 0),
        }
    }
}

#[derive(Debug)]
struct Kernel {
    table: Vec<Option<Entry>>,
    backlog: [VecDeque<usize>; 2],
    accepting: [bool; 2],
    stopped: bool,
    pending: Vec<Item>,
    buffers_free: Rc<Cell<usize>>,
    buffer_bytes: usize,
}

/// Everything between shards and clients.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) dice: Dice,
    pub(crate) faults: Faults,
    kernels: Vec<Kernel>,
    sockets: Vec<Socket>,
    pub(crate) control_woken: bool,
    /// What was done last, oldest first.
    pub(crate) trace: VecDeque<String>,
}

const TRACE_MAX: usize = 400;
/// Of 1,000: on a kernel without multishot everything ends with its first event.
pub(crate) const ENDS_ALWAYS: usize = 1_000;
/// Room for all that an observer is ever sent: its sends never fall short.
pub(crate) const ENDLESS: usize = 1 << 40;

impl Net {
    pub(crate) fn new(dice: Dice, faults: Faults) -> Self {
        Self {
            dice,
            faults,
            kernels: Vec::new(),
            sockets: Vec::new(),
            control_woken: false,
            trace: VecDeque::new(),
        }
    }

    pub(crate) fn add_kernel(&mut self, slots: usize, buffers: usize, buffer_bytes: usize) {
        self.kernels.push(Kernel {
            table: (0..slots).map(|_| None).collect(),
            backlog: Default::default(),
            accepting: [true; 2],
            stopped: false,
            pending: Vec::new(),
            buffers_free: Rc::new(Cell::new(buffers)),
            buffer_bytes,
        });
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(text());
    }

    // The clients' side.

    /// The slots in use on a shard.
    pub(crate) fn slots_used(&self, shard: usize) -> usize {
        self.kernels[shard].table.iter().flatten().count()
    }

    pub(crate) fn has_pending(&self, shard: usize) -> bool {
        !self.kernels[shard].pending.is_empty()
    }

    fn input_came(&mut self, socket: usize) {
        let s = &self.sockets[socket];
        let Some(slot) = s.slot else { return };
        let shard = s.shard;
        let kernel = &mut self.kernels[shard];
        let Some(entry) = &mut kernel.table[slot] else { return };
        if let Some(poll) = &mut entry.poll
            && !poll.ending
            && !poll.queued
        {
            poll.queued = true;
            kernel.pending.push(Item::Readable(slot));
        }
        if let Some(receive) = &mut entry.receive
            && receive.wait != Wait::No
            && !receive.queued
            && !receive.ending
        {
            receive.queued = true;
            kernel.pending.push(Item::Receive(slot));
        }
    }

    fn room_came(&mut self, socket: usize) {
        let s = &self.sockets[socket];
        let Some(slot) = s.slot else { return };
        let room = s.to_client_max - s.to_client.len().min(s.to_client_max);
        if !s.reset && room * 3 < s.to_client_max {
            return;
        }
        let kernel = &mut self.kernels[s.shard];
        if let Some(entry) = &mut kernel.table[slot]
            && let Some(write) = &mut entry.write
            && !write.queued
        {
            write.queued = true;
            kernel.pending.push(Item::Writable(slot, false));
        }
    }

    // The shards' side.

    fn entry(&mut self, shard: usize, slot: Slot, what: &str) -> &mut Entry {
        let entry = self.kernels[shard].table[slot.0 as usize].as_mut();
        let entry = entry.unwrap_or_else(|| panic!("{what} of the free slot {slot:?}"));
        assert!(!entry.closing, "{what} of slot {slot:?}, which is being closed");
        entry
    }

    /// Bytes that clients wrote and no shard has received yet.
    pub(crate) fn bytes_to_servers(&self) -> usize {
        self.sockets.iter().map(|s| s.to_server.len()).sum()
    }

    pub(crate) fn buffer_bytes(&self, shard: usize) -> usize {
        self.kernels[shard].buffer_bytes
    }

    pub(crate) fn poll_readable(&mut self, shard: usize, slot: Slot, token: Token) {
        let entry = self.entry(shard, slot, "poll");
        assert!(entry.poll.is_none(), "a poll armed twice on {slot:?}");
        entry.poll = Some(Op { token, wait: Wait::Once, queued: false, ending: false });
        let s = &self.sockets[self.kernels[shard].table[slot.0 as usize].as_ref().unwrap().socket];
        if !s.to_server.is_empty() || s.fin || s.reset {
            // Who arms it again before it has read everything, or without reading at all, goes on
            // hearing of the same bytes.
            let entry = self.entry(shard, slot, "poll");
            if let Some(poll) = &mut entry.poll {
                poll.queued = true;
            }
            self.kernels[shard].pending.push(Item::Readable(slot.0 as usize));
        }
    }

    pub(crate) fn poll_writable(&mut self, shard: usize, slot: Slot, token: Token) {
        let lies = self.dice.chance(self.faults.false_room);
        let entry = self.entry(shard, slot, "poll for room");
        assert!(entry.write.is_none(), "a poll for room armed twice on {slot:?}");
        entry.write = Some(Op { token, wait: Wait::Once, queued: lies, ending: false });
        let socket = entry.socket;
        if lies {
            self.kernels[shard].pending.push(Item::Writable(slot.0 as usize, false));
        } else {
            self.room_came(socket);
        }
    }

    pub(crate) fn receive(&mut self, shard: usize, slot: Slot, token: Token, wait: Wait) {
        let entry = self.entry(shard, slot, "receive");
        assert!(entry.receive.is_none(), "a receive armed twice on {slot:?}");
        let socket = entry.socket;
        entry.receive = Some(Op { token, wait, queued: wait == Wait::No, ending: false });
        if wait != Wait::No {
            let s = &self.sockets[socket];
            if s.to_server.is_empty() && !s.fin && !s.reset {
                return;
            }
            if let Some(receive) = &mut self.entry(shard, slot, "receive").receive {
                receive.queued = true;
            }
        }
        self.kernels[shard].pending.push(Item::Receive(slot.0 as usize));
    }

    pub(crate) fn cancel(&mut self, shard: usize, operation: Operation, token: Token) {
        let kernel = &mut self.kernels[shard];
        for (slot, entry) in kernel.table.iter_mut().enumerate() {
            let Some(entry) = entry else { continue };
            let (op, item) = match operation {
                Operation::PollReadable => (&mut entry.poll, Item::PollCancelled(slot)),
                Operation::PollWritable => (&mut entry.write, Item::Writable(slot, true)),
                Operation::Receive => (&mut entry.receive, Item::ReceiveCancelled(slot)),
            };
            let Some(op) = op.as_mut().filter(|op| op.token == token) else { continue };
            let one_shot_done = op.wait != Wait::Always && op.queued;
            if !op.ending && !one_shot_done {
                op.ending = true;
                op.queued = true;
                kernel.pending.push(item);
            }
            return;
        }
    }

    pub(crate) fn close(&mut self, shard: usize, slot: Slot, token: Token) {
        let entry = self.entry(shard, slot, "close");
        let out =
            [("poll", entry.poll), ("poll for room", entry.write), ("receive", entry.receive)];
        for (name, op) in out {
            assert!(op.is_none(), "slot {slot:?} closed with a {name} of it out: {op:?}");
        }
        entry.closing = true;
        self.kernels[shard].pending.push(Item::Closed(slot.0 as usize, token));
    }

    pub(crate) fn resume_accepts(&mut self, shard: usize, listener: ListenerId) {
        let kernel = &mut self.kernels[shard];
        let at = usize::from(listener.0);
        kernel.accepting[at] = true;
        for _ in 0..kernel.backlog[at].len() {
            kernel.pending.push(Item::Accept(at));
        }
    }

    pub(crate) fn stop_accepting(&mut self, shard: usize) {
        let kernel = &mut self.kernels[shard];
        kernel.stopped = true;
        for listener in 0..2 {
            for socket in kernel.backlog[listener].drain(..) {
                self.sockets[socket].torn = true;
            }
            kernel.pending.push(Item::Stopped(listener));
        }
    }

    pub(crate) fn wake(&mut self, peer: usize) {
        match self.kernels.get_mut(peer) {
            Some(kernel) => kernel.pending.push(Item::Woken),
            None => self.control_woken = true,
        }
    }

    pub(crate) fn send(
        &mut self,
        shard: usize,
        sends: &[Send<'_>],
        troubles: &mut Vec<SendTrouble>,
    ) {
        troubles.clear();
        let mut seen = BTreeSet::new();
        for (index, send) in sends.iter().enumerate() {
            assert!(seen.insert(send.slot.0), "two sends in one batch to {:?}", send.slot);
            assert!(!send.bytes.is_empty(), "a send of nothing to {:?}", send.slot);
            let socket = self.entry(shard, send.slot, "send").socket;
            let short = self.dice.chance(self.faults.short);
            let s = &mut self.sockets[socket];
            let outcome = if s.reset {
                Some(SendOutcome::Dead(Errno(if s.gone { 104 } else { 32 })))
            } else {
                let room = s.to_client_max.saturating_sub(s.to_client.len());
                let mut taken = send.bytes.len().min(room);
                if short && s.to_client_max < ENDLESS {
                    taken = self.dice.below(taken + 1);
                }
                s.taken_bytes += taken as u64;
                if s.gone {
                    // The first bytes are taken; the answer to them is a reset.
                    s.reset = true;
                } else {
                    s.to_client.extend(&send.bytes[..taken]);
                }
                match taken {
                    0 => Some(SendOutcome::Full),
                    all if all == send.bytes.len() => None,
                    taken => Some(SendOutcome::Short(taken as u32)),
                }
            };
            if s.gone && s.reset {
                self.input_came(socket);
                self.room_came(socket);
            }
            if let Some(outcome) = outcome {
                troubles.push(SendTrouble { index: index as u32, outcome });
            }
        }
    }

    /// One completion of those on their way, not always the oldest. `None`: it came to nothing.
    pub(crate) fn deliver(&mut self, shard: usize) -> Option<Completion<SimBuffer>> {
        let pending = &self.kernels[shard].pending;
        if pending.is_empty() {
            return None;
        }
        let chosen = if self.dice.chance(700) { 0 } else { self.dice.below(pending.len()) };
        let key = pending[chosen].key();
        let first = pending.iter().position(|item| item.key() == key)?;
        let item = self.kernels[shard].pending.remove(first);
        match item {
            Item::Accept(listener) => self.accept(shard, listener),
            Item::Stopped(listener) => Some(Completion::AcceptFailed {
                listener: ListenerId(listener as u8),
                failure: AcceptFailure::Stopped,
            }),
            Item::Readable(slot) => {
                let socket = self.live(shard, slot).socket;
                let hung_up = self.sockets[socket].fin || self.sockets[socket].reset;
                let poll = self.live(shard, slot).poll.take()?;
                Some(Completion::Readable { token: poll.token, hung_up })
            }
            Item::PollCancelled(slot) => {
                let poll = self.live(shard, slot).poll.take()?;
                Some(Completion::PollEnded { token: poll.token })
            }
            Item::Receive(slot) => self.received(shard, slot),
            Item::ReceiveCancelled(slot) => {
                let receive = self.live(shard, slot).receive.take()?;
                let end = ReceiveEnd::Cancelled;
                Some(Completion::ReceiveEnded { token: receive.token, end })
            }
            Item::Writable(slot, cancelled) => {
                let write = self.live(shard, slot).write.take()?;
                Some(Completion::Writable { token: write.token, cancelled })
            }
            Item::Closed(slot, token) => {
                let entry = self.kernels[shard].table[slot].take()?;
                let s = &mut self.sockets[entry.socket];
                s.slot = None;
                s.closed = true;
                // Input that was never received: the kernel answers with a reset.
                s.torn = !s.to_server.is_empty() && !s.reset;
                Some(Completion::Closed { token })
            }
            Item::Woken => Some(Completion::Woken),
        }
    }

    fn live(&mut self, shard: usize, slot: usize) -> &mut Entry {
        self.kernels[shard].table[slot].as_mut().expect("freed only when nothing of it is out")
    }

    fn accept(&mut self, shard: usize, at: usize) -> Option<Completion<SimBuffer>> {
        let listener = ListenerId(at as u8);
        let fails = self.dice.chance(self.faults.accept);
        let throw = self.dice.below(2);
        let kernel = &mut self.kernels[shard];
        if kernel.stopped || !kernel.accepting[at] {
            return None;
        }
        let socket = *kernel.backlog[at].front()?;
        let free: Vec<usize> =
            (0..kernel.table.len()).filter(|&slot| kernel.table[slot].is_none()).collect();
        let failure = if free.is_empty() {
            Some(AcceptFailure::TableFull)
        } else if fails {
            let errno = Errno(if throw == 0 { 103 } else { 12 });
            Some(if throw == 0 { AcceptFailure::Peer(errno) } else { AcceptFailure::System(errno) })
        } else {
            None
        };
        if let Some(failure) = failure {
            kernel.accepting[at] = matches!(failure, AcceptFailure::Peer(_));
            if !matches!(failure, AcceptFailure::System(_)) {
                kernel.backlog[at].pop_front();
                self.sockets[socket].torn = true;
            }
            return Some(Completion::AcceptFailed { listener, failure });
        }
        let slot = free[self.dice.below(free.len())];
        let kernel = &mut self.kernels[shard];
        kernel.backlog[at].pop_front();
        kernel.table[slot] = Some(Entry { socket, ..Entry::default() });
        let s = &mut self.sockets[socket];
        debug_assert_eq!(s.listener, at);
        s.slot = Some(slot);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1_024 + (socket % 60_000) as u16));
        Some(Completion::Accepted { listener, slot: Slot(slot as u32), peer })
    }

    fn received(&mut self, shard: usize, slot: usize) -> Option<Completion<SimBuffer>> {
        let ends = self.dice.chance(self.faults.ends);
        let kernel = &mut self.kernels[shard];
        let entry = kernel.table[slot].as_mut()?;
        let receive = entry.receive.as_mut()?;
        let (token, wait) = (receive.token, receive.wait);
        let s = &mut self.sockets[entry.socket];
        receive.queued = false;
        let end = if s.reset {
            ReceiveEnd::Dead(Errno(104))
        } else if s.to_server.is_empty() {
            if s.fin {
                ReceiveEnd::Eof
            } else if wait != Wait::No {
                return None;
            } else {
                ReceiveEnd::Again
            }
        } else if kernel.buffers_free.get() == 0 {
            ReceiveEnd::NoBuffers
        } else {
            let count = s.to_server.len().min(kernel.buffer_bytes);
            let bytes: Vec<u8> = s.to_server.drain(..count).collect();
            kernel.buffers_free.set(kernel.buffers_free.get() - 1);
            let data = SimBuffer { bytes, free: Rc::clone(&kernel.buffers_free) };
            let armed = wait == Wait::Always && (receive.ending || !ends);
            if !armed {
                entry.receive = None;
            } else if !receive.ending && (!s.to_server.is_empty() || s.fin) {
                receive.queued = true;
                kernel.pending.push(Item::Receive(slot));
            } else {
                receive.queued = receive.ending;
            }
            return Some(Completion::Received { token, data, armed });
        };
        if receive.ending {
            // Its cancellation is on its way and will be its last completion.
            receive.queued = true;
            return None;
        }
        entry.receive = None;
        Some(Completion::ReceiveEnded { token, end })
    }
}
