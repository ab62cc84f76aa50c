//! Whether a reactor is so busy that its waits had better gather.
//!
//! Knows: for how much of the time its thread worked, and how much came in. Must not know: at what, and
//! from whom.
//!
//! A wait that ends with the first completion costs a wake-up and a tick for each message that comes
//! alone, and its sender a wake-up as well. A core with time to spare had better spend it so, for the
//! message is handled at once. One that has little left is better served by several at a time. A reactor
//! that is never without work does not sleep, and is not concerned.
//!
//! Who waits for an answer before saying more sends less the longer answers take: where gathering makes
//! that of it, and less comes in than without, it ends, and is not tried again for two seconds. Nor where
//! a wait gathers hardly more than without.

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
/// A wait gathers more if it is more than so much of what it was.
const MORE: (u64, u64) = (4, 3);
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
    /// Waits that may have slept.
    pub(crate) waits: u64,
}

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Intake {
    bytes_per_s: u64,
    bytes_per_wait: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Calm,
    /// Gathers; so much came in without.
    On(Intake),
    /// The same, and less came in.
    Less(Intake),
    /// Does not, to see whether more comes than came with it.
    Doubt(Intake),
    /// Does not until then, ns.
    Barred(u64),
}

impl Gathering {
    pub(crate) fn new(now_ns: u64, cpu_ns: u64) -> Self {
        Self { since: Reading { now_ns, cpu_ns, ..Reading::default() }, state: State::Calm }
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
        let intake = Intake {
            bytes_per_s: bytes.saturating_mul(1_000_000_000) / wall_ns,
            bytes_per_wait: bytes / now.waits.saturating_sub(before.waits).max(1),
        };
        let afresh = if percent >= BUSY_PERCENT { State::On(intake) } else { State::Calm };
        let barred = State::Barred(now.now_ns + BARRED_NS);
        self.state = match self.state {
            State::Less(without) if intake.is_less(without) => State::Doubt(intake),
            State::On(without) | State::Less(without) if !intake.gathers_more(without) => barred,
            State::On(without) if intake.is_less(without) => State::Less(without),
            State::On(without) | State::Less(without) if percent >= CALM_PERCENT => {
                State::On(without)
            }
            State::On(_) | State::Less(_) => State::Calm,
            State::Doubt(with) if with.is_less(intake) => barred,
            State::Barred(until_ns) if now.now_ns < until_ns => self.state,
            State::Calm | State::Doubt(_) | State::Barred(_) => afresh,
        };
        matches!(self.state, State::On(_) | State::Less(_))
    }
}

impl Intake {
    fn is_less(self, than: Self) -> bool {
        self.bytes_per_s.saturating_mul(LESS.1) < than.bytes_per_s.saturating_mul(LESS.0)
    }

    fn gathers_more(self, than: Self) -> bool {
        self.bytes_per_wait.saturating_mul(MORE.1) > than.bytes_per_wait.saturating_mul(MORE.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows, each with what was worked, what came in and in how many waits.
    struct Windows(Gathering, Reading);

    impl Windows {
        fn new() -> Self {
            Self(Gathering::new(0, 0), Reading::default())
        }

        fn next(&mut self, percent: u64, bytes: u64, waits: u64) -> bool {
            self.1.now_ns += WINDOW_NS;
            self.1.cpu_ns += WINDOW_NS / 100 * percent;
            self.1.received_bytes += bytes;
            self.1.waits += waits;
            assert!(self.0.is_due(self.1.now_ns) && !self.0.is_due(self.1.now_ns - 1));
            self.0.look(self.1)
        }
    }

    #[test]
    fn it_begins_when_busy_and_ends_when_calm() {
        let mut windows = Windows::new();
        assert!(!windows.next(59, 1000, 100), "not busy enough");
        assert!(windows.next(60, 1000, 100));
        assert!(windows.next(100, 1000, 50));
        assert!(windows.next(40, 1000, 50), "that is what gathering itself makes of 60");
        assert!(windows.next(35, 1000, 50));
        assert!(!windows.next(34, 1000, 50), "calm");
        assert!(!windows.next(40, 1000, 100), "and not busy again");
    }

    /// Four outstanding publications in a closed loop were 31,000 a second instead of 89,000.
    #[test]
    fn who_waits_for_answers_is_not_made_to_wait() {
        let mut windows = Windows::new();
        assert!(windows.next(80, 9000, 100));
        assert!(windows.next(65, 7000, 30), "less comes in, which may be by chance");
        assert!(!windows.next(65, 7000, 30), "again: is it for the gathering?");
        assert!(!windows.next(80, 9000, 100), "it is");
        let barred = BARRED_NS / WINDOW_NS;
        assert!((1..barred).all(|_| !windows.next(80, 9000, 100)));
        assert!(windows.next(80, 9000, 100), "once more");
    }

    #[test]
    fn less_that_comes_by_itself_ends_nothing_for_long() {
        let mut windows = Windows::new();
        assert!(windows.next(90, 9000, 100));
        assert!(windows.next(70, 5000, 20));
        assert!(windows.next(70, 9000, 40));
        assert!(windows.next(70, 5000, 20));
        assert!(!windows.next(70, 5000, 20));
        assert!(windows.next(70, 5000, 50), "no more without");
        assert!(windows.next(70, 50_000, 50), "more is no reason to doubt");
    }

    /// A third of the core stayed busy with waits for 100 µs where a message came every 100 µs.
    #[test]
    fn waits_that_gather_nothing_are_not_kept_up() {
        let mut windows = Windows::new();
        assert!(windows.next(60, 9000, 90));
        assert!(!windows.next(60, 9000, 80));
        let barred = BARRED_NS / WINDOW_NS;
        assert!((1..barred).all(|_| !windows.next(60, 9000, 90)));
        assert!(windows.next(60, 9000, 90));
        assert!(windows.next(60, 9000, 60));
    }

    #[test]
    fn a_pause_is_part_of_what_is_looked_at() {
        let mut gathering = Gathering::new(0, 0);
        let (now_ns, cpu_ns) = (4 * WINDOW_NS, 2 * WINDOW_NS);
        assert!(!gathering.look(Reading { now_ns, cpu_ns, ..Reading::default() }));
    }
}
