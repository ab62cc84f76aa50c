//! Rings from every node to every node, and each node's share of them.
//!
//! Knows: which ring leads where, whose turn it is to be read, and how much memory all rings may
//! take. Must not know: what a node is or does, and how one is woken.

use std::fmt;

use crate::{
    atomics::Arc,
    doorbell::Doorbell,
    ring::{Consumer, Producer, RING_BYTES, channel},
};

/// Makes `nodes` nodes, joined by rings of `capacity` messages ([`capacity_for`] chooses one that
/// keeps the whole grid under [`MESH_BYTES_MAX`]). There is a ring from each node to itself too, so
/// that nobody has to treat itself as a special case.
///
/// # Panics
/// If `nodes` is more than [`NODES_MAX`] or `capacity` is not a power of two.
pub fn grid<T>(nodes: usize, capacity: usize) -> Vec<Node<T>> {
    assert!(nodes <= NODES_MAX, "at most {NODES_MAX} nodes, not {nodes}");
    let bells = Arc::new((0..nodes).map(|_| Doorbell::new()).collect::<Vec<_>>());
    let mut outgoing: Vec<Vec<Producer<T>>> = Vec::with_capacity(nodes);
    let mut incoming: Vec<Vec<Consumer<T>>> = Vec::with_capacity(nodes);
    incoming.resize_with(nodes, || Vec::with_capacity(nodes));
    for _from in 0..nodes {
        let mut producers = Vec::with_capacity(nodes);
        for readers in &mut incoming {
            let (producer, consumer) = channel(capacity);
            producers.push(producer);
            readers.push(consumer);
        }
        outgoing.push(producers);
    }
    outgoing
        .into_iter()
        .zip(incoming)
        .enumerate()
        .map(|(id, (outgoing, incoming))| Node {
            id,
            outgoing,
            incoming,
            bells: Arc::clone(&bells),
            turn: 0,
        })
        .collect()
}

/// How many messages of type `T` each ring of a grid holds so that the whole grid takes at most
/// [`MESH_BYTES_MAX`]: a power of two, at most [`CAPACITY_MAX`] and at least 1. For messages of
/// 40 bytes: 8,192 for up to 14 nodes, 256 for 65.
pub const fn capacity_for<T>(nodes: usize) -> usize {
    let rings = if nodes == 0 { 1 } else { nodes * nodes };
    let ring_bytes = MESH_BYTES_MAX / rings;
    let slot_bytes = if size_of::<T>() == 0 { 1 } else { size_of::<T>() };
    let mut capacity = CAPACITY_MAX;
    while capacity > 1 && capacity * slot_bytes + RING_BYTES > ring_bytes {
        capacity /= 2;
    }
    capacity
}

/// One thread's share of the grid: the writing ends of its rings to all, the reading ends of the
/// rings of all to it, everybody's doorbell.
pub struct Node<T> {
    id: usize,
    /// By the reader's number.
    outgoing: Vec<Producer<T>>,
    /// By the writer's number.
    incoming: Vec<Consumer<T>>,
    /// By the reader's number.
    bells: Arc<Vec<Doorbell>>,
    /// INVARIANT: a writer's number: who is read first the next time.
    turn: usize,
}

/// What the sender of a message has to do for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a sleeping reader that nobody wakes does not see the message"]
pub enum Wake {
    /// Nothing: the reader is awake, or somebody else wakes it.
    NotNeeded,
    /// Wake it: it sleeps, and nobody else will.
    Needed,
}

impl<T> Node<T> {
    /// Its number, from 0.
    pub const fn id(&self) -> usize {
        self.id
    }

    /// How many nodes the grid has.
    pub const fn nodes(&self) -> usize {
        self.incoming.len()
    }

    /// Puts a message into the ring to node `to`. The messages of one sender are received in the
    /// order they were sent; between senders there is no order.
    ///
    /// # Errors
    /// Gives the message back when that ring is full. The reader is awake then, or being woken; no
    /// bell tells when there is room again, so try later.
    ///
    /// # Panics
    /// If there is no node `to`.
    #[inline]
    pub fn send(&mut self, to: usize, message: T) -> Result<Wake, T> {
        self.outgoing[to].push(message)?;
        Ok(if self.bells[to].should_ring() { Wake::Needed } else { Wake::NotNeeded })
    }

    /// Takes at most `budget` messages and gives each to `handle` with its sender's number; returns
    /// how many. The senders take turns of [`TURN_MESSAGES_MAX`], and the next call goes on where
    /// this one stopped, so that one who sends all the time does not keep the others waiting.
    pub fn receive(&mut self, budget: usize, mut handle: impl FnMut(usize, T)) -> usize {
        let mut taken = 0;
        // How many senders in a row had nothing more: all of them means that nothing is left.
        let mut idle = 0;
        while taken < budget && idle < self.incoming.len() {
            let from = self.turn;
            let turn_end = budget.min(taken + TURN_MESSAGES_MAX);
            idle += 1;
            while taken < turn_end {
                let Some(message) = self.incoming[from].pop() else { break };
                handle(from, message);
                taken += 1;
                idle = 0;
            }
            self.turn = if from + 1 == self.incoming.len() { 0 } else { from + 1 };
        }
        taken
    }

    /// Announces that this node is going to sleep. True: nothing is waiting, it may sleep and
    /// whoever sends to it is told to wake it. False: there is something to receive, and the
    /// announcement is taken back. After the sleep call [`Self::awake`].
    #[must_use = "sleeping although something is waiting would leave it there"]
    pub fn prepare_sleep(&mut self) -> bool {
        let bell = &self.bells[self.id];
        bell.prepare_sleep();
        let nothing_waits = self.incoming.iter().all(Consumer::is_empty);
        if !nothing_waits {
            bell.awake();
        }
        nothing_waits
    }

    /// Says that this node has woken, for whatever reason.
    pub fn awake(&mut self) {
        self.bells[self.id].awake();
    }
}

impl<T> fmt::Debug for Node<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id)
            .field("nodes", &self.nodes())
            .finish_non_exhaustive()
    }
}

/// What all rings together may take, bytes, up to [`NODES_MAX`] nodes; their memory grows with the
/// square of the nodes, so the capacity of each has to shrink.
pub const MESH_BYTES_MAX: usize = 64 << 20;
/// 128 reactors and the control thread.
pub const NODES_MAX: usize = 129;
/// The most messages that a ring is ever given by [`capacity_for`]: where there are few nodes, more
/// would only hide for longer that a reader is behind.
pub const CAPACITY_MAX: usize = 8192;
/// How many messages of one sender are taken before it is the next one's turn.
pub const TURN_MESSAGES_MAX: usize = 32;

const _: () = {
    // At the most nodes there is room for something, even for messages of 64 bytes.
    assert!(capacity_for::<[u8; 64]>(NODES_MAX) >= TURN_MESSAGES_MAX);
    assert!(CAPACITY_MAX.is_power_of_two());
};

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::OnceLock,
        thread::{self, Thread},
    };

    use super::*;

    #[test]
    fn the_grid_stays_within_its_memory() {
        type Message = [u64; 5];
        assert_eq!(capacity_for::<Message>(0), CAPACITY_MAX);
        assert_eq!(capacity_for::<Message>(14), CAPACITY_MAX);
        assert_eq!(capacity_for::<Message>(65), 256);
        for nodes in 1..=NODES_MAX {
            let capacity = capacity_for::<Message>(nodes);
            assert!(capacity.is_power_of_two());
            let ring_bytes = capacity * size_of::<Message>() + RING_BYTES;
            assert!(nodes * nodes * ring_bytes <= MESH_BYTES_MAX, "{nodes} nodes");
            let twice_bytes = 2 * capacity * size_of::<Message>() + RING_BYTES;
            let could_be_larger = nodes * nodes * twice_bytes <= MESH_BYTES_MAX;
            assert!(capacity == CAPACITY_MAX || !could_be_larger, "{nodes} nodes");
        }
        assert_eq!(capacity_for::<()>(2), CAPACITY_MAX);
        // Larger than all the memory there is: one message is still a ring.
        assert_eq!(capacity_for::<[u8; MESH_BYTES_MAX]>(2), 1);
    }

    #[test]
    fn everyone_reaches_everyone_and_itself() {
        let mut nodes = grid(3, 4);
        for (from, node) in nodes.iter_mut().enumerate() {
            assert_eq!((node.id(), node.nodes()), (from, 3));
            for to in 0..3 {
                assert_eq!(node.send(to, (from, to)), Ok(Wake::NotNeeded));
            }
        }
        for (to, node) in nodes.iter_mut().enumerate() {
            let mut senders = Vec::new();
            let taken = node.receive(100, |from, message| {
                assert_eq!(message, (from, to));
                senders.push(from);
            });
            assert_eq!(taken, 3);
            assert_eq!(senders, [0, 1, 2]);
            assert_eq!(node.receive(100, |_, _| {}), 0);
        }
    }

    #[test]
    fn a_full_ring_gives_back_and_the_others_go_on() {
        let mut nodes = grid(3, 2);
        assert!(nodes[0].send(1, 1).is_ok());
        assert!(nodes[0].send(1, 2).is_ok());
        assert_eq!(nodes[0].send(1, 3), Err(3));
        assert!(nodes[0].send(2, 4).is_ok());
        assert!(nodes[2].send(1, 5).is_ok());
        assert_eq!(nodes[1].receive(1, |from, message| assert_eq!((from, message), (0, 1))), 1);
        assert!(nodes[0].send(1, 3).is_ok());
    }

    #[test]
    fn senders_take_turns() {
        let mut nodes = grid(3, 128);
        for n in 0..100 {
            assert!(nodes[0].send(1, n).is_ok());
        }
        for n in 0..40 {
            assert!(nodes[2].send(1, n).is_ok());
        }
        let mut runs: Vec<(usize, usize)> = Vec::new();
        let mut receive = |nodes: &mut Vec<Node<i32>>, budget| {
            nodes[1].receive(budget, |from, _| match runs.last_mut() {
                Some((last, count)) if *last == from => *count += 1,
                _ => runs.push((from, 1)),
            })
        };
        // A budget of one turn goes to one sender, the next call to the next.
        assert_eq!(receive(&mut nodes, 32), 32);
        assert_eq!(receive(&mut nodes, 10), 10);
        assert_eq!(receive(&mut nodes, 0), 0);
        assert_eq!(receive(&mut nodes, 1000), 98);
        assert_eq!(receive(&mut nodes, 1000), 0);
        assert_eq!(runs, [(0, 32), (2, 10), (0, 32), (2, 30), (0, 36)]);
    }

    #[test]
    fn a_sleeper_is_woken_by_exactly_one() {
        let mut nodes = grid(3, 4);
        assert!(nodes[1].prepare_sleep());
        assert_eq!(nodes[0].send(1, 'a'), Ok(Wake::Needed));
        assert_eq!(nodes[2].send(1, 'b'), Ok(Wake::NotNeeded));
        // Somebody else's sleep is not touched.
        assert_eq!(nodes[0].send(2, 'c'), Ok(Wake::NotNeeded));
        // It may not sleep while something waits, and then nobody rings.
        assert!(!nodes[1].prepare_sleep());
        assert_eq!(nodes[0].send(1, 'd'), Ok(Wake::NotNeeded));
        nodes[1].awake();
        assert_eq!(nodes[1].receive(9, |_, _| {}), 3);
        assert!(nodes[1].prepare_sleep());
        nodes[1].awake();
        assert_eq!(nodes[0].send(1, 'e'), Ok(Wake::NotNeeded));
    }

    #[test]
    fn a_grid_of_none() {
        assert!(grid::<u8>(0, 1).is_empty());
    }

    #[test]
    fn three_threads_sleep_and_wake_and_lose_nothing() {
        const MESSAGES: u64 = if cfg!(miri) { 100 } else { 300_000 };
        let nodes = grid::<u64>(3, 64);
        // Parking is how these readers sleep: a token given early is kept, as with a real bell.
        let handles = OnceLock::<Vec<Thread>>::new();
        thread::scope(|scope| {
            let joins: Vec<_> = nodes
                .into_iter()
                .map(|node| {
                    let handles = &handles;
                    scope.spawn(move || exchange(node, MESSAGES, handles))
                })
                .collect();
            let threads = joins.iter().map(|join| join.thread().clone()).collect();
            handles.set(threads).expect("set once");
            for join in joins {
                join.join().expect("no reader panics");
            }
        });
    }

    /// Sends `messages` to each other node and receives as many from each, in order; sleeps without
    /// a timeout when there is nothing to do, so that a lost wake-up hangs the test.
    fn exchange(mut node: Node<u64>, messages: u64, handles: &OnceLock<Vec<Thread>>) {
        let handles = handles.wait();
        let mut sent = vec![0; node.nodes()];
        let mut received = vec![0; node.nodes()];
        sent[node.id()] = messages;
        received[node.id()] = messages;
        loop {
            let mut full = false;
            for to in 0..node.nodes() {
                // A few at a time, so that sleeping and waking happen often.
                for _ in 0..8 {
                    if sent[to] == messages {
                        break;
                    }
                    match node.send(to, sent[to]) {
                        Ok(Wake::Needed) => handles[to].unpark(),
                        Ok(Wake::NotNeeded) => {}
                        Err(_) => {
                            full = true;
                            break;
                        }
                    }
                    sent[to] += 1;
                }
            }
            node.receive(64, |from, message| {
                assert_eq!(message, received[from]);
                received[from] += 1;
            });
            if received.iter().all(|&n| n == messages) && sent.iter().all(|&n| n == messages) {
                return;
            }
            if full {
                // Waits for room, which has no bell.
                thread::yield_now();
            } else if sent.iter().all(|&n| n == messages) && node.prepare_sleep() {
                thread::park();
                node.awake();
            }
        }
    }
}
