//! What will be done, decided before the run: who connects where, and when each publication is due.
//!
//! Knows: times, rates, roles. Must not know: sockets, what happened.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::burst::Burst;
use crate::dial::{Dial, NUMBER};
use crate::driver::{Means, Sources};
use crate::rate::Rate;
use crate::targets::Scheme;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Open and silent; a close counts as a loss.
    Idle,
    /// Sends what its source has; the number is the source's index in its thread.
    Publisher(u16),
    /// Receives and is checked, but reads only so many bytes a second.
    Slow,
    /// Reads the answer to its upgrade and then never again.
    Stalled,
    /// Receives and is checked; one that churns leaves and comes back all the time.
    Subscriber { churns: bool },
}

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientPlan {
    /// What it is for.
    pub(crate) role: Role,
    /// Index in [`WorkerPlan::groups`].
    pub(crate) group: u16,
}

impl ClientPlan {
    /// A subscriber whose deliveries are checked.
    pub(crate) fn is_checked(&self) -> bool {
        matches!(self.role, Role::Subscriber { .. } | Role::Slow)
    }

    /// A subscriber that stays from beginning to end.
    pub(crate) fn is_steady(&self) -> bool {
        matches!(self.role, Role::Subscriber { churns: false } | Role::Slow)
    }
}

/// Where a group of connections goes.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The peer.
    pub(crate) address: SocketAddr,
    /// As in the `Host` field.
    pub(crate) host: String,
    /// Path and query, as given: see [`Self::path_of`].
    pub(crate) path: String,
    /// Which interest of the ledger its subscribers have; `None` for others.
    pub(crate) interest: Option<u16>,
    /// The scheme of its URL.
    pub(crate) scheme: Scheme,
    /// How its connections are begun.
    pub(crate) dial: Arc<Dial>,
}

impl Group {
    /// The path of the connection with this number: each may have an interest of its own.
    pub(crate) fn path_of(&self, number: u32) -> Cow<'_, str> {
        match self.path.contains(NUMBER) {
            true => Cow::Owned(self.path.replace(NUMBER, &number.to_string())),
            false => Cow::Borrowed(&self.path),
        }
    }
}

/// One thread's share.
#[derive(Clone, Debug)]
pub(crate) struct WorkerPlan {
    /// The thread's number.
    pub(crate) thread: usize,
    /// The processor to stay on.
    pub(crate) cpu: Option<usize>,
    /// Where connections go.
    pub(crate) groups: Arc<[Group]>,
    /// In the order of their opening.
    pub(crate) clients: Vec<ClientPlan>,
    /// The number of `clients[0]` within the run.
    pub(crate) number_first: u32,
    /// Connections begun per second; 0: as fast as they are answered.
    pub(crate) connects_per_s: u32,
    /// Where connections come from.
    pub(crate) sources: Sources,
    /// Cut from the beginning, ns.
    pub(crate) warmup_ns: u64,
    /// Connections that do not publish offer permessage-deflate.
    pub(crate) deflate: bool,
    /// For masks, churn and handshake keys.
    pub(crate) seed: u64,
    /// What slow connections read, bytes per second; at least 1.
    pub(crate) slow_bytes_per_s: u64,
    /// Slow connections read at full speed once everything is published.
    pub(crate) slow_catch_up: bool,
    /// Receive buffer of subscribers, bytes; `None` for the kernel's.
    pub(crate) receive_buffer_bytes: Option<usize>,
    /// Send buffer of publishers, bytes; `None` for the kernel's.
    pub(crate) send_buffer_bytes: Option<usize>,
    /// What the ring uses of the kernel.
    pub(crate) means: Means,
}

/// An absolute schedule: the publications of all publishers have their places one after another,
/// and each publisher has every `publishers`-th.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Schedule {
    /// Of all publishers' publications together.
    pub(crate) rate: Rate,
    /// How many of them come together.
    pub(crate) burst: Burst,
    /// How many there are in all; `None`: no end.
    pub(crate) count: Option<u64>,
    /// How many publishers share them.
    pub(crate) publishers: u64,
    /// Which of them this is.
    pub(crate) publisher: u64,
}

impl Schedule {
    /// Evenly spaced and without an end, of the first of so many publishers.
    pub(crate) fn new(rate: Rate, publishers: u16) -> Self {
        let publishers = u64::from(publishers);
        Self { rate, burst: Burst::NONE, count: None, publishers, publisher: 0 }
    }

    /// When the publisher's publication `number` is due, ns after the start; [`u64::MAX`] if there
    /// is none with this number.
    #[inline]
    pub(crate) fn offset_ns(&self, number: u64) -> u64 {
        let place = number * self.publishers + self.publisher;
        match self.count {
            Some(count) if place >= count => u64::MAX,
            _ => self.burst.offset_ns(&self.rate, place),
        }
    }
}

/// Shares `clients` out: all publishers, if there are any, to a thread of their own, which is the
/// first, so that receiving does not delay publishing; the others in stretches of equal length
/// over `threads` more, so that each has its part of every group that is spread evenly.
pub(crate) fn share(clients: &[ClientPlan], threads: usize) -> Vec<Vec<ClientPlan>> {
    let (publishers, others): (Vec<_>, Vec<_>) =
        clients.iter().copied().partition(|client| matches!(client.role, Role::Publisher(_)));
    let end = |thread: usize| others.len() * thread / threads;
    let shares = (0..threads).map(|thread| others[end(thread)..end(thread + 1)].to_vec());
    let publishing = (!publishers.is_empty()).then_some(publishers);
    if others.is_empty() && publishing.is_some() {
        return publishing.into_iter().collect();
    }
    publishing.into_iter().chain(shares).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publications_are_evenly_spaced_over_the_publishers() {
        let rate = Rate::constant(3000.0);
        let of = |publisher| Schedule {
            rate,
            burst: Burst::NONE,
            count: Some(3_600_001),
            publishers: 3,
            publisher,
        };
        assert_eq!(of(0).offset_ns(0), 0);
        assert_eq!(of(1).offset_ns(0), 333_333);
        assert_eq!(of(2).offset_ns(0), 666_666);
        assert_eq!(of(0).offset_ns(1), 1_000_000);
        assert_eq!(of(0).offset_ns(1_200_000), 1_200_000_000_000);
        assert_eq!(of(1).offset_ns(1_200_000), u64::MAX);
    }

    #[test]
    fn a_path_may_hold_the_number_of_its_connection() {
        let mut group = Group {
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            host: String::new(),
            path: "/ws?topics=bench,own.{n},{n}".to_owned(),
            interest: None,
            scheme: Scheme::Ws,
            dial: Arc::default(),
        };
        assert_eq!(group.path_of(17), "/ws?topics=bench,own.17,17");
        "/raw/{m}".clone_into(&mut group.path);
        assert_eq!(group.path_of(17), "/raw/{m}");
    }

    #[test]
    fn every_client_is_in_one_share() {
        let subscriber = Role::Subscriber { churns: false };
        let mut clients = vec![ClientPlan { role: subscriber, group: 0 }; 10];
        clients.push(ClientPlan { role: Role::Publisher(0), group: 1 });
        let shares = share(&clients, 3);
        assert_eq!(shares.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3, 3, 4]);
        assert_eq!(shares[0][0].role, Role::Publisher(0));
        assert_eq!(share(&clients[..10], 2).len(), 2);
        assert_eq!(share(&clients[10..], 2).len(), 1);
    }
}
