//! What of io_uring this kernel has, and so which of the ring's ways to go are open.
//!
//! Knows: features, opcodes and registrations with their kernel versions. Must not know: version
//! strings, which distributions' backports make lie; what a ring is for.
//!
//! Only honest refusals are asked for: a feature bit, an opcode in the probe, `EINVAL` of a flag that
//! the set-up does not know. What an old kernel takes and answers misleadingly is never tried: its
//! RECV ignores the multishot flag and returns 0, as if the peer had gone; its CLOSE ignores the slot
//! and closes descriptor 0; and a registration that it does not know waits for ever while anything is
//! in flight before it says so. For these the presence of an opcode of the same release stands.

use std::fmt;

use io_uring::{IoUring, Probe, opcode};

use crate::{error::RingError, queue::Queues, selftest, setup};

/// What is used of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "a table of what is there and what is not")]
pub struct Capabilities {
    /// The kernel picks receive buffers (`IORING_REGISTER_PBUF_RING`); else a poll comes first, and
    /// then recv(2).
    pub(crate) buffer_ring: bool,
    /// Task work waits for the next enter (`IORING_SETUP_COOP_TASKRUN`).
    pub(crate) coop_taskrun: bool,
    /// An entry can say that its success is to be silent (`IOSQE_CQE_SKIP_SUCCESS`).
    pub(crate) cqe_skip: bool,
    /// Task work runs when events are asked for (`IORING_SETUP_DEFER_TASKRUN`).
    pub(crate) defer_taskrun: bool,
    /// Connections are direct descriptors and no descriptors of the process: accepts choose a slot,
    /// and a slot that is closed lets go of its socket at once, whatever else is in flight.
    pub(crate) direct_descriptors: bool,
    /// `io_uring_enter` takes a timeout; else it is an entry (`IORING_OP_TIMEOUT`).
    pub(crate) ext_arg: bool,
    /// A wait can be for several completions, and after some time for any (`IORING_FEAT_MIN_TIMEOUT`).
    pub(crate) min_wait: bool,
    /// A ring wakes another by a message (`IORING_OP_MSG_RING`); else by its eventfd.
    pub(crate) msg_ring: bool,
    /// A receive stays armed; else it is armed again after each.
    pub(crate) multishot_receive: bool,
    /// The ring is entered by its index with the thread.
    pub(crate) registered_ring: bool,
    /// Sends that take everything are silent: `cqe_skip`, and a short send keeps its count.
    pub(crate) silent_sends: bool,
    /// Tables of descriptors and buffers are made empty (`IORING_RSRC_REGISTER_SPARSE`).
    pub(crate) sparse_tables: bool,
    /// Everything in flight is cancelled by one call (`IORING_REGISTER_SYNC_CANCEL`); else receives are
    /// ended by shutting their sockets down.
    pub(crate) sync_cancel: bool,
    /// An entry that is refused does not stop those behind it (`IORING_SETUP_SUBMIT_ALL`).
    pub(crate) submit_all: bool,
}

/// What the caller asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TierChoice {
    /// The best the kernel has.
    #[default]
    Auto,
    /// No more than Linux 5.10 had.
    Base,
}

/// How much of it there is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// No more than Linux 5.10 had.
    Base,
    /// Some of what came after.
    Between,
    /// All that is made use of.
    Modern,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// In small letters and underscores, for metrics and logs.
    pub name: &'static str,
    /// The first kernel that has it, or has it so that it can be used.
    pub since: &'static str,
    /// Whether it is used.
    pub there: bool,
}

impl Capabilities {
    /// What the original Linux 5.10 has, and each later kernel.
    pub const BASE: Self = Self {
        buffer_ring: false,
        coop_taskrun: false,
        cqe_skip: false,
        defer_taskrun: false,
        direct_descriptors: false,
        ext_arg: false,
        min_wait: false,
        msg_ring: false,
        multishot_receive: false,
        registered_ring: false,
        silent_sends: false,
        sparse_tables: false,
        sync_cancel: false,
        submit_all: false,
    };

    /// Looks, and tests what nothing announces. Makes rings of this thread and drops them.
    ///
    /// # Errors
    /// What even the base tier lacks, or what the system refuses, and the line that fixes it.
    pub fn decide(choice: TierChoice) -> Result<Self, RingError> {
        let plain = setup::queues(&Self::BASE, PROBE_ENTRIES, 2 * PROBE_ENTRIES)?;
        let opcodes = check_base(&plain)?;
        if choice == TierChoice::Base {
            return Ok(Self::BASE);
        }
        let has = |code| opcodes.is_supported(code);
        let features = plain.params();
        let mut found = Self {
            ext_arg: features.is_feature_ext_arg(),
            min_wait: features.is_feature_min_timeout(),
            cqe_skip: features.is_feature_skip_cqe_on_success(),
            msg_ring: has(opcode::MsgRingData::CODE),
            // SEND_ZC came with the same release, 6.0.
            multishot_receive: has(opcode::SendZc::CODE),
            sync_cancel: has(opcode::SendZc::CODE),
            sparse_tables: plain.submitter().register_files_sparse(1).is_ok(),
            buffer_ring: setup::has_buffer_rings(&plain),
            ..Self::BASE
        };
        found.registered_ring = setup::can_be_registered(&plain);
        drop(plain);
        found.settle_flags()?;
        let mut queues =
            Queues::new(setup::queues(&found, PROBE_ENTRIES, 2 * PROBE_ENTRIES)?, &found);
        // SENDMSG_ZC came with the release that repaired the count of a short send, 6.1.
        found.silent_sends =
            found.cqe_skip && has(opcode::SendMsgZc::CODE) && selftest::skip_is_sound(&mut queues)?;
        // SOCKET came with the release in which accepts choose a slot, 5.19.
        found.direct_descriptors = found.sparse_tables
            && found.buffer_ring
            && has(opcode::Socket::CODE)
            && selftest::close_is_prompt(&mut queues)?;
        // Without rings of buffers there is nothing for it to take from.
        found.multishot_receive &= found.buffer_ring;
        Ok(found)
    }

    /// The flags of the set-up, most first: who does not know one says so.
    fn settle_flags(&mut self) -> Result<(), RingError> {
        let ladder = [
            Self { submit_all: true, coop_taskrun: true, defer_taskrun: true, ..*self },
            Self { submit_all: true, coop_taskrun: true, ..*self },
            Self { submit_all: true, ..*self },
        ];
        for step in ladder {
            match setup::queues(&step, PROBE_ENTRIES, 2 * PROBE_ENTRIES) {
                Ok(_) => {
                    *self = step;
                    return Ok(());
                }
                Err(RingError::KernelTooOld { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether connections are direct descriptors, which each ring may have as many of as
    /// `RLIMIT_NOFILE` says, and no descriptors of the process.
    pub const fn has_direct_descriptors(&self) -> bool {
        self.direct_descriptors
    }

    /// In a word.
    pub fn tier(&self) -> Tier {
        let there = self.features().filter(|feature| feature.there).count();
        match there {
            0 => Tier::Base,
            all if all == self.features().count() => Tier::Modern,
            _ => Tier::Between,
        }
    }

    /// Each, in the order in which kernels got them.
    pub fn features(&self) -> impl Iterator<Item = Feature> + use<> {
        [
            ("ext_arg", "5.11", self.ext_arg),
            ("cqe_skip", "5.17", self.cqe_skip),
            ("msg_ring", "5.18", self.msg_ring),
            ("registered_ring", "5.18", self.registered_ring),
            ("submit_all", "5.18", self.submit_all),
            ("buffer_ring", "5.19", self.buffer_ring),
            ("coop_taskrun", "5.19", self.coop_taskrun),
            ("sparse_tables", "5.19", self.sparse_tables),
            ("multishot_receive", "6.0", self.multishot_receive),
            ("sync_cancel", "6.0", self.sync_cancel),
            ("defer_taskrun", "6.1", self.defer_taskrun),
            ("silent_sends", "6.1", self.silent_sends),
            ("min_wait", "6.12", self.min_wait),
            ("direct_descriptors", "6.13", self.direct_descriptors),
        ]
        .map(|(name, since, there)| Feature { name, since, there })
        .into_iter()
    }
}

/// Everything that each tier needs; what the kernel says it has.
fn check_base(uring: &IoUring) -> Result<Probe, RingError> {
    let features = uring.params();
    let features = [
        (features.is_feature_nodrop(), "IORING_FEAT_NODROP"),
        (features.is_feature_submit_stable(), "IORING_FEAT_SUBMIT_STABLE"),
        (features.is_feature_fast_poll(), "IORING_FEAT_FAST_POLL"),
        (features.is_feature_poll_32bits(), "IORING_FEAT_POLL_32BITS"),
    ];
    let mut probe = Probe::new();
    // Linux 5.6; a kernel that refuses it has none of the opcodes.
    uring.submitter().register_probe(&mut probe).map_err(RingError::system("io_uring probe"))?;
    let opcodes = [
        (opcode::Accept::CODE, "IORING_OP_ACCEPT"),
        (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
        (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
        (opcode::Send::CODE, "IORING_OP_SEND"),
        (opcode::Timeout::CODE, "IORING_OP_TIMEOUT"),
    ];
    let opcodes = opcodes.map(|(code, name)| (probe.is_supported(code), name));
    match features.into_iter().chain(opcodes).find(|(there, _)| !there) {
        Some((_, missing)) => Err(RingError::KernelTooOld { missing }),
        None => Ok(probe),
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Between => "between",
            Self::Modern => "modern",
        })
    }
}

impl fmt::Display for Capabilities {
    /// The tier, and in between what is missing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tier())?;
        if self.tier() == Tier::Between {
            let missing = self.features().filter(|feature| !feature.there);
            let missing: Vec<_> = missing.map(|feature| feature.name).collect();
            write!(f, " (without {})", missing.join(", "))?;
        }
        Ok(())
    }
}

/// A small ring is enough.
const PROBE_ENTRIES: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tier_is_as_much_as_there_is() {
        assert_eq!(Capabilities::BASE.to_string(), "base");
        let between = Capabilities { ext_arg: true, ..Capabilities::BASE };
        assert_eq!(between.tier(), Tier::Between);
        let text = between.to_string();
        assert!(text.starts_with("between (without cqe_skip, msg_ring"), "{text}");
        let there = between.features().filter(|feature| feature.there);
        assert_eq!(there.map(|feature| feature.since).collect::<Vec<_>>(), ["5.11"]);
    }

    #[test]
    fn base_is_base_on_every_kernel() {
        let base = Capabilities::decide(TierChoice::Base).expect("the machine has io_uring");
        assert_eq!(base, Capabilities::BASE);
    }

    #[test]
    fn descriptor_0_stays_open() {
        Capabilities::decide(TierChoice::Auto).expect("the machine has io_uring");
        assert!(rustix::io::fcntl_getfd(std::io::stdin()).is_ok());
    }
}
