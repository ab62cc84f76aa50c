//! What `serve` would take of the machine, in the numbers that findings are measured by.
//!
//! Knows: the plan. Must not know: what the machine has.

use uringcast_ring::{RingOptions, TierChoice};

use crate::plan::{Machine, Plan};

/// What `serve` would take.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The core of each reactor.
    pub(super) cpus: Vec<usize>,
    /// Cores that it may have at a time, by its cgroups.
    pub(super) cpu_quota: Option<usize>,
    pub(super) reactors: usize,
    /// Per reactor.
    pub(super) connections_max: u64,
    /// Somebody asked for so many.
    pub(super) asked: bool,
    /// The server refuses, since the limit of open files is below what is wanted.
    pub(super) files_short: bool,
    /// Accepts in flight on both ports, per reactor; each takes a descriptor beside the connections'.
    pub(super) accepts: u64,
    /// Somebody asked for no more than Linux 5.10 has.
    pub(super) base_asked: bool,
    /// Connections are in the rings' own tables; else they are descriptors of the process.
    pub(super) direct: bool,
    pub(super) backlog: u64,
    /// What the kernel locks for the rings of the reactors, measured as they are made.
    pub(super) rings_bytes: u64,
    /// What logs and history may grow to.
    pub(super) stored_bytes_max: u64,
    /// `SO_SNDBUF` as the kernel doubles it; `None`: `tcp_wmem`.
    pub(super) send_buffer_bytes: Option<u64>,
}

impl Wanted {
    pub(super) fn of(plan: &Plan, machine: &Machine, files_short: bool) -> Self {
        let settings = &plan.settings;
        let reactors = plan.reactors();
        let ring_bytes = ring_bytes(&RingOptions::default(), plan.receive_buffers);
        Self {
            cpus: plan.cpus.clone(),
            cpu_quota: machine.cpu_quota,
            reactors,
            connections_max: settings.connections_max.into(),
            asked: plan.connections_max_given,
            files_short,
            accepts: 2 * u64::from(plan.accepts_in_flight),
            base_asked: plan.tier == TierChoice::Base,
            direct: machine.direct_descriptors && plan.tier == TierChoice::Auto,
            backlog: plan.backlog.into(),
            rings_bytes: reactors as u64 * (ring_bytes + TRIAL_BYTES) + TRIAL_BYTES,
            stored_bytes_max: settings.log_bytes_max.saturating_add(settings.history_bytes_max),
            send_buffer_bytes: settings.send_buffer_bytes.map(|bytes| 2 * u64::from(bytes)),
        }
    }

    /// What the kernel locks for all rings of the process.
    pub(super) fn locked_bytes(&self) -> u64 {
        self.rings_bytes + CONTROL_RING_BYTES
    }

    /// Of all reactors.
    pub(super) fn connections(&self) -> u64 {
        self.connections_max * self.reactors as u64
    }
}

/// What one reactor's ring and its ring of receive buffers are charged with; the buffers themselves are
/// not. (Measured on Linux 6.18 by the lowest `RLIMIT_MEMLOCK` that suffices: it is these pages, to
/// the page.)
fn ring_bytes(options: &RingOptions, receive_buffers: u32) -> u64 {
    let (submissions, completions) = (u64::from(options.sq_entries), u64::from(options.cq_entries));
    let submission_entries = pages(64 * submissions);
    let queues = pages(64 + 16 * completions + 4 * submissions);
    submission_entries + queues + pages(16 * u64::from(receive_buffers))
}

fn pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(4_096)
}

/// The small rings by which each reactor, and the process before them, find out what the kernel has. They
/// are gone when the others are made, but still charged.
const TRIAL_BYTES: u64 = 6 * 4_096;
/// The control thread's ring: tokio-uring's 256 submissions and 512 completions.
const CONTROL_RING_BYTES: u64 = 7 * 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{flags::LowArgs, plan::Machine};

    #[test]
    fn rings_are_charged_as_measured() {
        let bytes = |receive_buffers| ring_bytes(&RingOptions::default(), receive_buffers);
        assert_eq!((bytes(1_024), bytes(4_096)), (352_256, 401_408));
    }

    #[test]
    fn the_plan_is_counted_for_all_reactors() {
        let machine = Machine {
            cpus: vec![4, 6],
            cpu_quota: None,
            open_files_max: 20_000,
            direct_descriptors: true,
        };
        let plan = Plan::load(&LowArgs::default(), &machine).expect("the defaults are right");
        let wanted = Wanted::of(&plan, &machine, false);
        assert_eq!((wanted.connections(), wanted.asked), (38_000, false));
        // The lowest limits with which two reactors start, and with which all starts.
        assert_eq!((wanted.rings_bytes, wanted.locked_bytes()), (778_240, 806_912));
    }
}
