//! Whether a reactor is so busy that its waits had better gather.
//!
//! Knows: for how much of the time its thread worked. Must not know: at what.
//!
//! A wait that ends with the first completion costs a wake-up and a tick for each message that comes
//! alone, and its sender a wake-up as well. A core with time to spare had better spend it so, for the
//! message is handled at once. One that has little left is better served by several at a time: what
//! that delays is less than what they would wait for each other. A reactor that is never without work
//! does not sleep, and is not concerned.

use uringcast_ring::MinWait;

/// How a gathering wait ends: what it delays is delayed by no more than that.
pub(crate) const GATHERING: MinWait = MinWait { completions: 64, at_most_us: 100 };

/// Begins at so much of the time at work, in percent,
const BUSY_PERCENT: u64 = 60;
/// and ends below so much: gathering takes a third of the work away, and is not to end by that.
const CALM_PERCENT: u64 = 35;
/// It is looked at as often, ns.
const WINDOW_NS: u64 = 10_000_000;

/// The state of one reactor.
#[derive(Debug)]
pub(crate) struct Gathering {
    since_ns: u64,
    since_cpu_ns: u64,
    on: bool,
}

impl Gathering {
    /// `now_ns`: monotonic; `cpu_ns`: of the thread.
    pub(crate) fn new(now_ns: u64, cpu_ns: u64) -> Self {
        Self { since_ns: now_ns, since_cpu_ns: cpu_ns, on: false }
    }

    /// Whether waits gather.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Looks at the clocks; what changed, if something did.
    pub(crate) fn look(&mut self, now_ns: u64, cpu_ns: u64) -> Option<bool> {
        let wall_ns = now_ns.saturating_sub(self.since_ns);
        if wall_ns < WINDOW_NS {
            return None;
        }
        let worked_ns = cpu_ns.saturating_sub(self.since_cpu_ns);
        (self.since_ns, self.since_cpu_ns) = (now_ns, cpu_ns);
        let percent = if self.on { CALM_PERCENT } else { BUSY_PERCENT };
        let before = std::mem::replace(&mut self.on, worked_ns >= wall_ns / 100 * percent);
        (before != self.on).then_some(self.on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathering_begins_when_busy_and_ends_when_calm() {
        let mut gathering = Gathering::new(0, 0);
        let (mut now_ns, mut cpu_ns) = (0, 0);
        let mut works = |percent: u64| {
            now_ns += WINDOW_NS;
            cpu_ns += WINDOW_NS / 100 * percent;
            gathering.look(now_ns, cpu_ns)
        };
        assert_eq!(works(59), None);
        assert_eq!(works(60), Some(true));
        assert_eq!(works(100), None);
        assert_eq!(works(40), None, "that is what gathering itself makes of 60");
        assert_eq!(works(35), None);
        assert_eq!(works(34), Some(false));
        assert_eq!(works(40), None);
        assert!(!gathering.is_on());
    }

    #[test]
    fn a_burst_shorter_than_the_window_does_not_count() {
        let mut gathering = Gathering::new(0, 0);
        assert_eq!(gathering.look(WINDOW_NS - 1, WINDOW_NS - 1), None);
        assert_eq!(gathering.look(4 * WINDOW_NS, WINDOW_NS), None, "all of it is looked at");
    }
}
