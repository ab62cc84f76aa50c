//! What happens on one core: connections, topics, timers and mail meet here and nowhere else.
//!
//! Knows: conn, topics, timers, the mesh, and the seam to the ring. Must not know: errno, frame
//! bits, how the admin port speaks.
//!
//! One idea a file: `accept` (the opening handshake), `heads` (requests' bytes), `plain` (answers that
//! are no upgrade), `rights` (who may do what), `addresses` (how many each has), `receive` (bytes in),
//! `commands` (the JSON protocol), `sse` (streams of Server-Sent Events), `cursor` (their ids),
//! `deflate` (a connection's own compressed messages), `publish` (publications in, ordered, out to all
//! shards), `compress` and `held` (publications for deflated lanes, what waits for those), `pace` (what
//! goes out later than it came in), `journal` (what outlives the process), `seats` (who sits in which
//! lane), `fanout` (slices of sends), `own` (output for one connection), `lag` (full sockets, sweeps),
//! `resume` (where a subscriber begins), `close` (endings), `upkeep` (timers, drain), `report` (answers
//! to the control thread), `vitals` (sizes, for tests).

mod accept;
mod addresses;
mod close;
mod commands;
mod compress;
mod cursor;
mod deflate;
mod fanout;
mod heads;
mod held;
mod journal;
mod lag;
mod origin;
mod overload;
mod own;
mod pace;
mod plain;
mod publish;
mod receive;
mod report;
mod resume;
mod rights;
mod seats;
mod sse;
mod sweeps;
mod upkeep;
mod vitals;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use self::held::Held;
pub use self::vitals::Vitals;
use slab::Slab;
use uringcast_mesh::grid::Node;
use uringcast_ring::{
    Completion, Io, ListenerId, SendTrouble, Token, error::RingError, pool::Pool,
};

use crate::{
    clock::Now,
    conn::{outbox::Outbox, table::Table},
    counters::RuleCounters,
    ids::{ConnectionId, LaneId, NodeId, TopicId},
    late,
    mail::Mail,
    publication::deflated::Deflater,
    revived::Revived,
    rules::RuleId,
    settings::Settings,
    shared::{Shared, Stage},
    timers::{Fixed, Spread, Various},
    topics::{
        LagBounds, Topics,
        lane::{LagMark, Round},
        names::Names,
        sweep::Sweep,
    },
};

/// The ring's listener of the data port.
pub const DATA_LISTENER: ListenerId = ListenerId(0);
/// The ring's listener of the publish port.
pub const PUBLISH_LISTENER: ListenerId = ListenerId(1);

/// Counts in the shard's own figures.
macro_rules! count {
    ($shard:ident.$field:ident) => {
        $shard.shared.counters[$shard.index].$field.add(1)
    };
    ($shard:ident.$field:ident, $n:expr) => {
        $shard.shared.counters[$shard.index].$field.add($n)
    };
}
/// Takes away in the shard's own gauges.
macro_rules! uncount {
    ($shard:ident.$field:ident) => {
        $shard.shared.counters[$shard.index].$field.sub(1)
    };
}
use {count, uncount};

/// Mail acted on in one tick at most.
const MAIL_PER_TICK_MAX: usize = 512;
/// Mail parked for shards whose rings are full, at most; beyond it publications are refused.
const PARKED_MAX: usize = 1 << 16;
/// With so much mail parked publishers are slowed.
const PARKED_SLOW: usize = 1 << 10;
/// A socket that was said to have room and had none is tried again after this.
const WRITE_RETRY_NS: u64 = 20_000_000;
/// Who broke a rule is closed once it was silent for so long: closing with input unread would be a
/// reset, which may overtake our last words.
const LINGER_NS: u64 = 200_000_000;
/// How long overload is taken to last after the last sign of it.
const OVERLOAD_NS: u64 = late::LATE_NS;

/// What a shard is made of.
#[derive(Debug)]
pub struct Parts<I> {
    /// Its ring, or the simulator's.
    pub io: I,
    /// The pool of its logs and publications.
    pub pool: Pool,
    /// Its place in the mesh: behind the shards is the control thread's, and then the helper
    /// thread's if there is one.
    pub node: Node<Mail>,
    /// What it obeys.
    pub settings: Arc<Settings>,
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// With a journal: the topics that it has, the same for all shards.
    pub journal: Option<Arc<[Revived]>>,
}

/// One core's shard.
#[derive(Debug)]
pub struct Shard<I: Io> {
    io: I,
    node: Node<Mail>,
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    index: usize,
    shards: usize,
    now: Now,

    connections: Table,
    topics: Topics,
    sweeps: HashMap<u32, Sweep>,
    acks: Slab<publish::PendingAck>,
    own_queue: VecDeque<ConnectionId>,
    /// Empty ones, with their memory.
    #[allow(clippy::vec_box, reason = "connections hold them as boxes")]
    spare_outboxes: Vec<Box<Outbox>>,
    /// Receives put off: the shared buffers were all out.
    starved: Vec<ConnectionId>,
    parked: Vec<VecDeque<Mail>>,
    /// The helper thread's node.
    helper: Option<usize>,
    held: Held,
    journaling: journal::Journaling,
    samples: pace::Samples,
    deflater: Deflater,
    /// Bytes that may still be compressed in this tick.
    deflate_left: usize,

    addresses: addresses::Addresses,
    handshakes: Fixed,
    /// The same for connections that had an answer since: one each, looked at when it is due.
    idles: Various,
    closings: Fixed,
    retries: Fixed,
    lingers: Fixed,
    pings: Spread,
    heartbeats: Various,

    /// Rounds of lanes completed in the last tick.
    rounds: Vec<Round>,
    overload: overload::Overload,
    log_bytes_told: u64,
    accepts_stopped: [bool; 2],
    accepts_look_ns: u64,
    drain: Option<upkeep::Drain>,
    ended: bool,
    sleeping: bool,
    send_cost: fanout::SendCost,
    /// What may still be looked through in this tick to judge who lags.
    looks_left: usize,
    /// When the cursor is to be looked after again.
    cursor_look_ns: u64,
    scratch: Scratch,
    codec: deflate::Codec,
}

/// Memory for one step, kept from tick to tick.
#[derive(Debug, Default)]
struct Scratch {
    /// The answer to a request.
    answer: Vec<u8>,
    head: Vec<u8>,
    ids: Vec<TopicId>,
    lanes: Vec<LaneId>,
    mail: Vec<Mail>,
    marks: Vec<LagMark>,
    message: Vec<u8>,
    troubles: Vec<SendTrouble>,
}

impl<I: Io> Shard<I> {
    /// With nobody connected.
    pub fn new(parts: Parts<I>, now: Now) -> Self {
        let Parts { io, pool, node, settings, shared, journal } = parts;
        let names = Names::new(
            shared.hash_seed,
            settings.topics_max,
            settings.patterns_max,
            settings.history_bytes_max,
        );
        let lag = LagBounds {
            bytes_max: settings.lag_bytes_max,
            messages_max: settings.lag_messages_max,
            ..LagBounds::NONE
        };
        let shards = shared.counters.len();
        let nanos = |wait: Duration| u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX / 2);
        let mut shard = Self {
            io,
            index: node.id(),
            shards,
            now,
            connections: Table::with_capacity(settings.connections_max as usize),
            topics: Topics::new(
                names,
                pool,
                settings.lanes_max,
                lag,
                settings.rules.clone(),
                Arc::clone(&shared.census),
            ),
            sweeps: HashMap::new(),
            acks: Slab::new(),
            own_queue: VecDeque::new(),
            spare_outboxes: Vec::new(),
            starved: Vec::new(),
            parked: (0..node.nodes()).map(|_| VecDeque::new()).collect(),
            addresses: addresses::Addresses::new(settings.connections_per_address_max),
            idles: Various::default(),
            helper: (node.nodes() > shards + 1).then_some(shards + 1),
            held: Held::default(),
            journaling: journal::Journaling::new(journal.is_some()),
            samples: pace::Samples::default(),
            deflater: Deflater::default(),
            deflate_left: compress::INLINE_BYTES_PER_TICK,
            handshakes: Fixed::new(nanos(settings.handshake_timeout)),
            closings: Fixed::new(nanos(settings.close_timeout)),
            retries: Fixed::new(WRITE_RETRY_NS),
            lingers: Fixed::new(LINGER_NS),
            pings: Spread::new(nanos(settings.ping_interval), settings.connections_max, now.ns),
            heartbeats: Various::default(),
            rounds: Vec::new(),
            overload: overload::Overload::default(),
            log_bytes_told: 0,
            accepts_stopped: [false; 2],
            accepts_look_ns: 0,
            drain: None,
            ended: false,
            sleeping: false,
            send_cost: fanout::SendCost::default(),
            looks_left: 0,
            cursor_look_ns: 0,
            scratch: Scratch::default(),
            codec: deflate::Codec::default(),
            node,
            settings,
            shared,
        };
        shard.restore(&journal.unwrap_or_default());
        shard
    }

    /// The ring, for the reactor to wait on.
    pub fn io_mut(&mut self) -> &mut I {
        &mut self.io
    }

    /// Whether the shard has ended: everyone is gone and nobody new comes.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// This shard's number among the nodes.
    fn node_id(&self) -> NodeId {
        NodeId(self.index as u16)
    }

    /// Its own figures of a rule.
    fn of_rule(&self, rule: RuleId) -> &RuleCounters {
        self.shared.of_rule(self.index, rule)
    }

    fn token(id: ConnectionId) -> Token {
        Token { index: id.index, generation: id.generation }
    }

    /// Acts on a completion.
    pub fn complete(&mut self, completion: Completion<I::Buffer>, now: Now) {
        self.now = now;
        match completion {
            Completion::Accepted { listener, slot, peer } => self.accepted(listener, slot, peer),
            Completion::AcceptFailed { listener, failure } => self.accept_failed(listener, failure),
            Completion::Readable { token, hung_up } => self.readable(token.into(), hung_up),
            Completion::PollEnded { token } => self.poll_ended(token.into()),
            Completion::Received { token, data, armed } => {
                self.received(token.into(), &data, armed);
            }
            Completion::ReceiveEnded { token, end } => self.receive_ended(token.into(), end),
            Completion::Writable { token, cancelled } => self.writable(token.into(), cancelled),
            Completion::Closed { token } => self.closed(token.into()),
            Completion::Woken => {}
        }
    }

    /// What there is to do besides completions: mail, timers, own output, one slice of a lane.
    ///
    /// # Errors
    /// Only what the ring cannot go on after.
    pub fn tick(&mut self, now: Now) -> Result<(), RingError> {
        self.record_rounds(now.ns);
        self.send_cost.tick(now.ns.saturating_sub(self.now.ns), self.topics.has_pending());
        self.now = now;
        if self.sleeping {
            self.sleeping = false;
            self.node.awake();
        }
        self.topics.names.tick();
        self.looks_left = lag::LOOKS_PER_TICK / 2;
        self.vow();
        self.deflate_left = compress::INLINE_BYTES_PER_TICK;
        self.read_mail();
        self.upkeep();
        self.send_own()?;
        self.send_slice()?;
        self.judge_lags();
        self.rouse_awaiting();
        self.tell_gauges();
        Ok(())
    }

    /// How long the ring may wait before the next tick; `None` for as long as nothing happens. With
    /// `Some(0)` it must not sleep. The mesh is told that the shard sleeps.
    pub fn timeout(&mut self) -> Option<Duration> {
        if self.topics.has_pending()
            || !self.own_queue.is_empty()
            || !self.topics.appended.lagging.is_empty()
            || !self.starved.is_empty()
            || self.parked.iter().any(|queue| !queue.is_empty())
            || self.drain.as_ref().is_some_and(|drain| !drain.told_everyone())
        {
            return Some(Duration::ZERO);
        }
        if !self.node.prepare_sleep() {
            return Some(Duration::ZERO);
        }
        self.sleeping = true;
        // A stage that moved on after the last look would be slept over.
        if self.shared.stage() >= Stage::Draining && self.drain.is_none() {
            return Some(Duration::ZERO);
        }
        let deadline = self.next_deadline_ns()?;
        Some(Duration::from_nanos(deadline.saturating_sub(self.now.ns)))
    }

    fn tell_gauges(&self) {
        let counters = &self.shared.counters[self.index];
        counters.connections.set(self.connections.len() as u64);
        counters.topics.set(self.topics.names.topics_count() as u64);
        counters.patterns.set(self.topics.names.patterns_count() as u64);
        counters.lanes.set(self.topics.lanes_count() as u64);
        counters.log_bytes.set(self.topics.memory.held_bytes);
        counters.pool_bytes.set(self.topics.memory.pool.bytes() as u64);
        counters.deflate_held.set(self.held.count() as u64);
        counters.parked.set(self.parked.iter().map(|queue| queue.len() as u64).sum());
    }
}

impl From<Token> for ConnectionId {
    fn from(token: Token) -> Self {
        Self { index: token.index, generation: token.generation }
    }
}
