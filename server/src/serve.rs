//! Wiring: listeners, rings, shards and the control thread, in order, and their end.
//!
//! Knows: who is given what. Must not know: what any of them does with it.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
};

use tracing::{error, info, warn};
use uringcast_mesh::{Node, capacity_for, grid};
use uringcast_ring::{
    Ring, RingOptions, WakeHandle,
    error::RingError,
    listen::{ListenOptions, listen},
    pin::{pin_current_thread, raise_nofile_limit},
    pool::PoolOptions,
};

use crate::{
    clock,
    control::{self, ControlInput},
    helper::{HelperInput, HelperThread},
    journal::{Journal, Keep, KeepOf, OpenError},
    logging::Logging,
    mail::{JournalEntry, Mail},
    plan::Plan,
    reactor,
    revived::{Revived, revive},
    rules::Rules,
    settings::Settings,
    shard::{Parts, Shard},
    shared::{Shared, Stage},
};

/// Direct descriptors beyond `connections_max`: whoever comes then is accepted to be told so.
const SLOTS_SPARE: u32 = 256;
/// Pool memory of a shard beyond the bound of all logs: publications on their way and last values.
const POOL_SPARE_BYTES: usize = 512 << 20;

/// Why serving failed. It is the system's fault each time.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A port can't be listened on.
    #[error("--{flag} {address}: {source}")]
    Listen {
        /// Which port.
        flag: &'static str,
        /// Its address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A ring was refused or broke.
    #[error("reactor {index}: {source}")]
    Ring {
        /// Whose.
        index: usize,
        /// Why, and the line that fixes it.
        source: RingError,
    },
    /// The journal can't be used.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The control thread did not start.
    #[error(transparent)]
    Control(#[from] control::ControlError),
    /// A thread could not be made, or there were no descriptors for its wiring.
    #[error("{0}")]
    System(#[from] io::Error),
    /// A reactor panicked.
    #[error("reactor {0} has panicked; this is a bug")]
    Panic(usize),
}

impl ServeError {
    /// 1 failed while running, 2 wrong use.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Journal(error) if error.is_wrong_use() => 2,
            _ => 1,
        }
    }
}

/// What a reactor's thread is given.
struct ReactorInput {
    index: usize,
    cpu: usize,
    listeners: [TcpListener; 2],
    node: Node<Mail>,
    shared: Arc<Shared>,
    options: RingOptions,
    pool: PoolOptions,
    plan: Arc<Plan>,
    /// With a journal: the topics that it has.
    revived: Option<Arc<[Revived]>>,
    /// Its wake handle goes out by this, or why it has none.
    ready: mpsc::Sender<Result<(usize, WakeHandle), ServeError>>,
    /// Everyone's wake handles come in by this.
    peers: mpsc::Receiver<Vec<WakeHandle>>,
}

/// Serves until told to stop.
///
/// # Errors
/// What keeps it from starting, or going on.
pub fn serve(plan: Plan, logging: &Logging) -> Result<ExitCode, ServeError> {
    if let Err(error) = raise_nofile_limit() {
        warn!(%error, "the limit of open files stays as it is");
    }
    let plan = Arc::new(plan);
    let reactors = plan.reactors();
    let data = listeners(&plan, "listen", plan.listen)?;
    let publish = listeners(&plan, "publish-listen", plan.publish_listen)?;
    let admin = admin_listener(&plan)?;
    let addresses = [data[0].local_addr()?, publish[0].local_addr()?, admin.local_addr()?];

    let (mut nodes, helper_bell) = mesh(&plan)?;
    let helper = helper_bell.as_ref().and_then(|_| nodes.pop());
    let Known { shared, journal, revived } = open_journal(&plan)?;
    let control_node = nodes.pop().expect("a grid has as many nodes as asked for");
    let bell = control::bell()?;
    let control_handle = WakeHandle::eventfd_only(bell.try_clone()?);

    let (ready, readies) = mpsc::channel();
    let mut peers = Vec::new();
    let mut threads = Vec::new();
    let each = nodes.into_iter().enumerate().zip(data).zip(publish);
    for (((index, node), data), publish) in each {
        let (peers_out, peers_in) = mpsc::channel();
        peers.push(peers_out);
        let input = ReactorInput {
            index,
            cpu: plan.cpus[index],
            listeners: [data, publish],
            node,
            shared: Arc::clone(&shared),
            options: ring_options(&plan),
            pool: pool_options(&plan),
            plan: Arc::clone(&plan),
            revived: revived.clone(),
            ready: ready.clone(),
            peers: peers_in,
        };
        let name = format!("reactor-{index}");
        threads.push(thread::Builder::new().name(name).spawn(move || reactor_thread(input))?);
    }
    drop(ready);
    let handles = collect_handles(&readies, reactors)?;
    drop(readies);
    tell_peers(&peers, &handles, &control_handle, helper_bell.as_ref())?;
    let helper = start_helper(&plan, helper, helper_bell, &handles)?;
    announce(addresses);

    let outcome = control::run(ControlInput {
        node: control_node,
        bells: handles,
        bell,
        shared: Arc::clone(&shared),
        settings: plan.settings.clone(),
        admin,
        admin_hosts: plan.admin_hosts.clone(),
        data_port: addresses[0].port(),
        lines_dropped: Some(logging.dropped()),
        journal,
    })?;
    shared.advance(Stage::Draining);
    if !outcome.shards_ended() {
        return Ok(ExitCode::from(outcome.exit_code()));
    }
    for (index, thread) in threads.into_iter().enumerate() {
        thread.join().unwrap_or(Err(ServeError::Panic(index)))?;
    }
    if let Some(helper) = helper {
        helper.stop();
    }
    Ok(ExitCode::from(outcome.exit_code()))
}

/// The mesh's nodes: a shard each, then the control thread's, then the helper's if there is one, and
/// the bell that wakes that.
fn mesh(plan: &Plan) -> io::Result<(Vec<Node<Mail>>, Option<OwnedFd>)> {
    let bell = if plan.settings.deflate { Some(control::bell()?) } else { None };
    let nodes = plan.reactors() + 1 + usize::from(bell.is_some());
    Ok((grid(nodes, capacity_for::<Mail>(nodes)), bell))
}

fn start_helper(
    plan: &Plan,
    node: Option<Node<Mail>>,
    bell: Option<OwnedFd>,
    bells: &[WakeHandle],
) -> io::Result<Option<HelperThread>> {
    let bytes_min = plan.settings.deflate_min_bytes as usize;
    node.zip(bell)
        .map(|(node, bell)| HelperInput { node, bell, bells: bells.to_vec(), bytes_min })
        .map(HelperThread::start)
        .transpose()
}

fn admin_listener(plan: &Plan) -> Result<TcpListener, ServeError> {
    let (flag, address) = ("admin", plan.admin);
    TcpListener::bind(address).map_err(|source| ServeError::Listen { flag, address, source })
}

/// What is known before the first shard starts.
struct Known {
    shared: Arc<Shared>,
    journal: Option<Journal>,
    revived: Option<Arc<[Revived]>>,
}

/// Opens the journal, if there is to be one; the topics that it has begin an epoch of this process.
fn open_journal(plan: &Plan) -> Result<Known, ServeError> {
    let mut shared = Shared::new(plan.reactors(), rand::random()).with_rules(&plan.settings.rules);
    let now_us = clock::now().utc_us;
    shared.begin(now_us);
    let Some(options) = plan.journal.clone() else {
        return Ok(Known { shared: Arc::new(shared), journal: None, revived: None });
    };
    let settings = &plan.settings;
    let (mut journal, restored) = Journal::open(options, keep_of(&settings.rules))?;
    shared.history_from_us = restored.complete_from_us.unwrap_or(now_us);
    let topics_max = settings.topics_max as usize;
    let bytes_max = usize::try_from(settings.history_bytes_max).unwrap_or(usize::MAX / 2);
    let bytes_max = bytes_max.saturating_add(POOL_SPARE_BYTES);
    let revived = revive(restored.topics, shared.hash_seed, now_us, topics_max, bytes_max);
    for topic in &revived {
        let (epoch, first_seq) = (topic.epoch, topic.seq + 1);
        journal.note(&JournalEntry::Topic { topic: topic.name.clone(), epoch, first_seq });
    }
    let (journal, revived) = (Some(journal), Some(revived.into()));
    Ok(Known { shared: Arc::new(shared), journal, revived })
}

/// What the journal keeps is what shards keep.
fn keep_of(rules: &Rules) -> KeepOf {
    let rules = rules.clone();
    Box::new(move |topic| {
        let history = &rules.rule(rules.of(topic)).history;
        Keep { messages: history.messages.into(), bytes: history.bytes, age: history.age }
    })
}

fn listeners(
    plan: &Plan,
    flag: &'static str,
    address: SocketAddr,
) -> Result<Vec<TcpListener>, ServeError> {
    let settings = &plan.settings;
    let options = ListenOptions {
        reuse_port: true,
        backlog: plan.backlog,
        nodelay: true,
        send_buffer_bytes: settings.send_buffer_bytes,
        notsent_lowat_bytes: settings.notsent_lowat_bytes,
        user_timeout_ms: Some(u32::try_from(settings.user_timeout.as_millis()).unwrap_or(u32::MAX)),
        ..ListenOptions::default()
    };
    // Reactors share the port, and so would another process that is there already, in silence; a
    // socket that shares nothing finds out.
    if address.port() != 0 {
        let alone = ListenOptions { reuse_port: false, ..options };
        listen(address, &alone).map_err(|source| ServeError::Listen { flag, address, source })?;
    }
    let mut address = address;
    let mut all = Vec::with_capacity(plan.reactors());
    for _ in 0..plan.reactors() {
        let listener = listen(address, &options).map_err(|source| ServeError::Listen {
            flag,
            address,
            source,
        })?;
        // Port 0: the first is given one, the others share it.
        address = listener.local_addr()?;
        all.push(listener);
    }
    Ok(all)
}

fn ring_options(plan: &Plan) -> RingOptions {
    let wanted = plan.settings.connections_max.saturating_add(SLOTS_SPARE);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(u32::MAX);
    RingOptions {
        slots: wanted.min(limit).max(1),
        receive_buffers: u16::try_from(plan.receive_buffers).unwrap_or(1 << 15),
        receive_buffer_bytes: plan.receive_buffer_bytes,
        accepts: u16::try_from(plan.accepts_in_flight).unwrap_or(1_024),
        tier: plan.tier,
        ..RingOptions::default()
    }
}

fn pool_options(plan: &Plan) -> PoolOptions {
    let &Settings { log_bytes_max, history_bytes_max, .. } = &plan.settings;
    let logs = log_bytes_max.saturating_add(history_bytes_max);
    let logs = usize::try_from(logs).unwrap_or(usize::MAX / 2);
    PoolOptions { bytes_max: logs.saturating_add(POOL_SPARE_BYTES), ..PoolOptions::default() }
}

fn collect_handles(
    readies: &mpsc::Receiver<Result<(usize, WakeHandle), ServeError>>,
    reactors: usize,
) -> Result<Vec<WakeHandle>, ServeError> {
    let mut handles: Vec<Option<WakeHandle>> = vec![None; reactors];
    for _ in 0..reactors {
        let Ok(ready) = readies.recv() else { break };
        let (index, handle) = ready?;
        handles[index] = Some(handle);
    }
    let missing = handles.iter().position(Option::is_none);
    missing
        .map_or_else(|| Ok(handles.into_iter().flatten().collect()), |i| Err(ServeError::Panic(i)))
}

/// Tells every reactor whom it can wake, in the order of the mesh's nodes.
fn tell_peers(
    peers: &[mpsc::Sender<Vec<WakeHandle>>],
    reactors: &[WakeHandle],
    control: &WakeHandle,
    helper_bell: Option<&OwnedFd>,
) -> io::Result<()> {
    for out in peers {
        let mut everyone = reactors.to_vec();
        everyone.push(control.clone());
        if let Some(bell) = helper_bell {
            everyone.push(WakeHandle::eventfd_only(bell.try_clone()?));
        }
        // A reactor that has ended since says so itself, below.
        let _ = out.send(everyone);
    }
    Ok(())
}

/// Says where to connect, for people and scripts: the one line on standard output.
fn announce([data, publish, admin]: [SocketAddr; 3]) {
    let line = format!("listening data={data} publish={publish} admin={admin}\n");
    let mut out = io::stdout().lock();
    // Nobody may be reading, which is no reason not to serve.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    info!(%data, %publish, %admin, "listening");
}

fn reactor_thread(input: ReactorInput) -> Result<(), ServeError> {
    let (index, shared, ready) = (input.index, Arc::clone(&input.shared), input.ready.clone());
    let outcome = catch_unwind(AssertUnwindSafe(|| run_reactor(input)))
        .unwrap_or(Err(ServeError::Panic(index)));
    let outcome = match outcome {
        Ok(()) => Ok(()),
        Err(error) => {
            error!(%error, "a reactor has ended; so does the process");
            // Without one shard publications would be lost in silence.
            shared.advance(Stage::Aborting);
            // While the process still starts, whoever waits for this reactor must hear of it.
            match ready.send(Err(error)) {
                Ok(()) => Ok(()),
                Err(mpsc::SendError(unsent)) => unsent.map(|_| ()),
            }
        }
    };
    shared.ended[index].store(true, Ordering::Release);
    outcome
}

fn run_reactor(input: ReactorInput) -> Result<(), ServeError> {
    let index = input.index;
    if let Err(error) = pin_current_thread(input.cpu) {
        warn!(index, cpu = input.cpu, %error, "not pinned");
    }
    let ring_error = |source| ServeError::Ring { index, source };
    let mut ring = Ring::new(input.options).map_err(ring_error)?;
    info!(index, cpu = input.cpu, ring = %ring.describe(), "reactor");
    // All of them are made alike.
    input.shared.ring.get_or_init(|| ring.describe().capabilities);
    let pool = ring.pool(input.pool);
    for listener in input.listeners {
        ring.add_listener(listener).map_err(ring_error)?;
    }
    let _ = input.ready.send(Ok((index, ring.wake_handle())));
    // Without peers the process is ending before it began.
    let Ok(peers) = input.peers.recv() else { return Ok(()) };
    ring.set_peers(peers);
    let mut shard = Shard::new(
        Parts {
            io: ring,
            pool,
            node: input.node,
            settings: Arc::new(input.plan.settings.clone()),
            shared: Arc::clone(&input.shared),
            journal: input.revived,
        },
        clock::now(),
    );
    input.shared.ready[index].store(true, Ordering::Release);
    reactor::run(&mut shard, &input.shared, index).map_err(ring_error)
}
