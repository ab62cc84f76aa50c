//! What this kernel has, by trying it.
//!
//! Knows: which of the ring's ways to go need what. Must not know: versions, what the ring is for.
//!
//! A version says little: distributions take features back, containers take them away, and 5.10 with a
//! high enough patch level has the io_uring of 5.15.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use serde::Serialize;

use super::{Completion, Ring, RingError, Sizes, SocketId, build};

/// Which of the kernel's means a ring uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub(crate) struct Means {
    /// Completions are worked on when they are asked for (SINGLE_ISSUER and DEFER_TASKRUN, 6.1).
    pub(crate) deferred: bool,
    /// Sockets are in the ring's own table and need no file descriptor (5.19).
    pub(crate) direct: bool,
    /// A receive stays armed and takes from a ring of buffers (6.0); else each is polled for.
    pub(crate) multishot: bool,
    /// io_uring_enter takes a timeout (5.11); else it is an entry of its own.
    pub(crate) timed_wait: bool,
}

impl Means {
    /// What Linux 5.10 has, and every later one.
    pub(crate) const BASE: Self =
        Self { deferred: false, direct: false, multishot: false, timed_wait: false };

    /// What works here.
    ///
    /// # Errors
    /// [`RingError::Setup`]: not even a plain ring.
    pub(crate) fn probe() -> Result<Self, RingError> {
        let deferred = build(ENTRIES, true).is_ok();
        let ring = build(ENTRIES, deferred)
            .map_err(|error| RingError::Setup { what: "the plainest ring", error })?;
        let timed_wait = ring.params().is_feature_ext_arg();
        let direct = ring.submitter().register_files_sparse(1).is_ok();
        drop(ring);
        let means = Self { deferred, direct, multishot: true, timed_wait };
        let multishot = receives_twice(means).unwrap_or(false);
        Ok(Self { multishot, ..means })
    }
}

/// Makes a receive that should stay armed take two messages. There are kernels (5.10) that take the
/// flag and then answer with 0 bytes, as if the peer had ended the connection.
fn receives_twice(means: Means) -> Result<bool, RingError> {
    let sizes = Sizes { entries: ENTRIES, slots: 1, buffers: 2, buffer_bytes: 4096 };
    let mut ring = Ring::new(&sizes, means)?;
    let Ok((ours, theirs)) = UnixStream::pair() else { return Ok(false) };
    let socket = SocketId { slot: 0, generation: 1 };
    ring.install(socket.slot, ours.into())?;
    ring.receive(socket)?;
    let mut completions = Vec::new();
    for word in [b"first", b"again"] {
        // A socket that has just been made has room for it.
        if (&theirs).write_all(word).is_err() {
            return Ok(false);
        }
        for _ in 0..WAITS_MAX {
            if completions.is_empty() {
                ring.wait(WAIT_NS)?;
                ring.reap(&mut completions)?;
            }
        }
        let Some(Completion::Received { chunk, more: true, .. }) = completions.pop() else {
            return Ok(false);
        };
        if ring.bytes(&chunk) != word || !completions.is_empty() {
            return Ok(false);
        }
        ring.give_back(chunk);
    }
    Ok(true)
}

/// A small ring is enough.
const ENTRIES: u32 = 8;
/// Nothing here takes that long; a signal may end a wait.
const WAIT_NS: u64 = 300_000_000;
const WAITS_MAX: u32 = 5;
