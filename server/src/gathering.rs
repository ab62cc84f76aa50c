//! Whether a reactor is so busy that its waits had better gather.
//!
//! Knows: for how much of the time its thread worked. Must not know: at what.
//!
//! A wait that ends with the first completion costs a wake-up and a tick for each message that comes
//! alone, and its sender a wake-up as well. A core with time to spare had better spend it so, for the
//! message is handled at once. One that has little left is better served by several at a time. A reactor
//! that is never without work does not sleep, and is not concerned.
//!
//! Who waits for an answer before saying more sends less the longer answers take: where gathering makes
//! that of it, and less comes in than without, it ends, and is not tried again for two seconds.

use uringcast_ring::MinWait;

/// How a gathering wait ends. A timer's slack, 50 µs, comes on top.
pub(crate) const GATHERING: MinWait = MinWait { completions: 64, at_most_us: 100 };

/// Begins at so much of the time at work, in percent,
const BUSY_PERCENT: u64 = 60;
/// and ends below so much: gathering takes a third of the work away, and is not to end by that.
const CALM_PERCENT: u64 = 35;
/// It is looked at as often, ns.
const WINDOW_NS: u64 = 20_000_000;
/// What comes in is less if it is less than so much of it, in two windows: in one a thread may have been
/// kept from its processor.
const LESS: (u64, u64) = (6, 7);
/// How long it is not tried again, ns.
const BARRED_NS: u64 = 2_000_000_000;

/// The state of one reactor.
#[derive(Debug)]
pub(crate) struct Gathering {
    since: Reading,
    state: State,
}

/// What has been until now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// Monotonic time, ns.
    pub(crate) now_ns: u64,
    /// CPU time of the thread, ns.
    pub(crate) cpu_ns: u64,
    /// What has come in, bytes.
    pub(crate) received_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Calm,
    /// Gathers; so much came in without, bytes per second.
    On(u64),
    /// The same, and less came in.
    Less(u64),
    /// Does not, to see whether more comes than came with it, bytes per second.
    Doubt(u64),
    /// Does not until then, ns.
    Barred(u64),
}

impl Gathering {
    pub(crate) fn new(now_ns: u64, cpu_ns: u64) -> Self {
        Self { since: Reading { now_ns, cpu_ns, received_bytes: 0 }, state: State::Calm }
    }

    /// Whether it is time to look.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.since.now_ns) >= WINDOW_NS
    }

    /// Looks: whether waits are to gather from now on.
    pub(crate) fn look(&mut self, now: Reading) -> bool {
        let before = std::mem::replace(&mut self.since, now);
        let wall_ns = now.now_ns.saturating_sub(before.now_ns).max(1);
        let percent = now.cpu_ns.saturating_sub(before.cpu_ns).saturating_mul(100) / wall_ns;
        let bytes = now.received_bytes.saturating_sub(before.received_bytes);
        let rate = bytes.saturating_mul(1_000_000_000) / wall_ns;
        let afresh = if percent >= BUSY_PERCENT { State::On(rate) } else { State::Calm };
        self.state = match self.state {
            State::Less(without) if is_less(rate, without) => State::Doubt(rate),
            State::On(without) if is_less(rate, without) => State::Less(without),
            State::On(without) | State::Less(without) if percent >= CALM_PERCENT => {
                State::On(without)
            }
            State::On(_) | State::Less(_) => State::Calm,
            State::Doubt(with) if is_less(with, rate) => State::Barred(now.now_ns + BARRED_NS),
            State::Barred(until_ns) if now.now_ns < until_ns => self.state,
            State::Calm | State::Doubt(_) | State::Barred(_) => afresh,
        };
        matches!(self.state, State::On(_) | State::Less(_))
    }
}

fn is_less(rate: u64, than: u64) -> bool {
    rate.saturating_mul(LESS.1) < than.saturating_mul(LESS.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows, each with what was worked and what came in.
    struct Windows(Gathering, Reading);

    impl Windows {
        fn new() -> Self {
            Self(Gathering::new(0, 0), Reading::default())
        }

        fn next(&mut self, percent: u64, bytes: u64) -> bool {
            self.1.now_ns += WINDOW_NS;
            self.1.cpu_ns += WINDOW_NS / 100 * percent;
            self.1.received_bytes += bytes;
            assert!(self.0.is_due(self.1.now_ns) && !self.0.is_due(self.1.now_ns - 1));
            self.0.look(self.1)
        }
    }

    #[test]
    fn it_begins_when_busy_and_ends_when_calm() {
        let mut windows = Windows::new();
        for (percent, gathers, why) in [
            (59, false, "not busy enough"),
            (60, true, ""),
            (100, true, ""),
            (40, true, "that is what gathering itself makes of 60"),
            (35, true, ""),
            (34, false, "calm"),
            (40, false, "and not busy again"),
        ] {
            assert_eq!(windows.next(percent, 1000), gathers, "{percent}: {why}");
        }
    }

    /// Four outstanding publications in a closed loop were 31,000 a second instead of 89,000.
    #[test]
    fn who_waits_for_answers_is_not_made_to_wait() {
        let mut windows = Windows::new();
        assert!(windows.next(80, 900));
        assert!(windows.next(65, 700), "less comes in, which may be by chance");
        assert!(!windows.next(65, 700), "again: is it for the gathering?");
        assert!(!windows.next(80, 900), "it is");
        let barred = BARRED_NS / WINDOW_NS;
        assert!((1..barred).all(|_| !windows.next(80, 900)));
        assert!(windows.next(80, 900), "once more");
    }

    #[test]
    fn less_that_comes_by_itself_ends_nothing_for_long() {
        let mut windows = Windows::new();
        assert!(windows.next(90, 900));
        assert!(windows.next(70, 500));
        assert!(windows.next(70, 900));
        assert!(windows.next(70, 500));
        assert!(!windows.next(70, 500));
        assert!(windows.next(70, 500), "no more without");
        assert!(windows.next(70, 5000), "more is no reason to doubt");
        assert!(windows.next(20, 100));
        assert!(!windows.next(20, 100));
        assert!(!windows.next(20, 100));
        assert!(windows.next(60, 100));
    }

    #[test]
    fn a_pause_is_part_of_what_is_looked_at() {
        let mut gathering = Gathering::new(0, 0);
        let busy = Reading { now_ns: 4 * WINDOW_NS, cpu_ns: 2 * WINDOW_NS, received_bytes: 1 };
        assert!(!gathering.look(busy));
    }
}
