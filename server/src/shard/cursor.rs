//! The time up to which everything is in this shard's logs: the cursor of Server-Sent Events.
//!
//! Knows: what each shard has vowed, and when mail was read to its end. Must not know: events, or how
//! a cursor is resumed from.
//!
//! A client that has been sent an event has been sent all before it in the lane's log. So its id may
//! be a time T such that every publication ordered before T, anywhere, was in the logs when the event
//! was appended: then whoever comes back with T and is sent everything ordered at T or later misses
//! nothing, on whichever shard.
//!
//! Each shard *vows* a floor at the beginning of a tick: what it has yet to send to another shard was,
//! or will be, ordered at that time or later. All it ordered before is in the rings by then, but for
//! what is out at the helper, of which the oldest is the floor, and what is parked, while which the
//! floor stays where it was. Now a shard reads all floors, its own too, and then its rings until they
//! are empty. Whatever was ordered before the lowest floor was in a ring before that floor was
//! written, so before it was read, and has now been taken out; when it is appended as well, the lowest
//! floor is the cursor. Nothing here asks how long anything takes: a shard that stands still for a
//! minute holds the cursor of all others back for that minute, and no more than that. One that sleeps
//! does so too, and then the cursor is about as old as the last publication but one, which wakes all.
//!
//! Only a wall clock that is set back breaks the vow, for events sent just before; `resume` forgives
//! two seconds of that.

use uringcast_ring::Io;

use super::Shard;

/// The cursor is looked after so often at most: with many shards, reading all floors costs something.
const LOOK_NS: u64 = 1_000_000;

impl<I: Io> Shard<I> {
    /// Vows this shard's floor; at the beginning of a tick.
    pub(super) fn vow(&self) {
        let parked = self.parked.iter().take(self.shards).any(|queue| !queue.is_empty());
        if !parked {
            let now_us = self.now.utc_us;
            let floor_us = self.held.oldest_us().map_or(now_us, |held_us| held_us.min(now_us));
            self.shared.floors.vow(self.index, floor_us);
        }
    }

    /// The cursor, once the rings were seen to be empty after this, and what was in them is appended.
    /// `None` if it is not worth while yet.
    pub(super) fn next_cursor_us(&mut self) -> Option<u64> {
        if self.now.ns < self.cursor_look_ns {
            return None;
        }
        self.cursor_look_ns = self.now.ns + LOOK_NS;
        Some(self.shared.floors.lowest_us())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use crate::shared::Floors;

    /// Shards that order numbered publications, some of which are held or parked for a while.
    struct Model {
        floors: Floors,
        shards: Vec<Peer>,
        /// When each publication was ordered.
        ordered_us: Vec<u64>,
    }

    struct Peer {
        now_us: u64,
        /// By sender.
        rings: Vec<VecDeque<usize>>,
        parked: Vec<VecDeque<usize>>,
        held: VecDeque<usize>,
        appended: Vec<bool>,
        cursor_us: u64,
    }

    const SHARDS: usize = 3;
    const RING: usize = 3;
    const MAIL_PER_TICK: usize = 4;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A tick begins and vows; mail may be read in it.
        Tick { shard: usize, read: bool },
        /// A publication is ordered, with the time of the tick that goes on.
        Order { shard: usize, held: bool },
        /// The oldest that is held is published.
        Release { shard: usize },
    }

    impl Model {
        fn new() -> Self {
            let peer = || Peer {
                now_us: 0,
                rings: vec![VecDeque::new(); SHARDS],
                parked: vec![VecDeque::new(); SHARDS],
                held: VecDeque::new(),
                appended: Vec::new(),
                cursor_us: 0,
            };
            let floors = Floors::new(SHARDS);
            Self { floors, shards: (0..SHARDS).map(|_| peer()).collect(), ordered_us: Vec::new() }
        }

        fn publish(&mut self, from: usize, number: usize) {
            for to in 0..SHARDS {
                if to != from {
                    self.shards[from].parked[to].push_back(number);
                }
            }
            self.post(from);
            self.shards[from].append(number);
        }

        fn post(&mut self, from: usize) {
            for to in 0..SHARDS {
                while self.shards[to].rings[from].len() < RING
                    && let Some(number) = self.shards[from].parked[to].pop_front()
                {
                    self.shards[to].rings[from].push_back(number);
                }
            }
        }

        fn step(&mut self, step: Step, now_us: u64) {
            match step {
                Step::Tick { shard, read } => {
                    self.shards[shard].now_us = now_us;
                    let peer = &self.shards[shard];
                    if peer.parked.iter().all(VecDeque::is_empty) {
                        let held_us = peer.held.front().map(|&number| self.ordered_us[number]);
                        self.floors.vow(shard, held_us.unwrap_or(now_us).min(now_us));
                    }
                    if read {
                        let lowest_us = self.floors.lowest_us();
                        let peer = &mut self.shards[shard];
                        let mut left = MAIL_PER_TICK;
                        for from in 0..SHARDS {
                            while left > 0
                                && let Some(number) = peer.rings[from].pop_front()
                            {
                                left -= 1;
                                peer.append(number);
                            }
                        }
                        if left > 0 {
                            peer.cursor_us = lowest_us;
                        }
                    }
                    self.post(shard);
                }
                Step::Order { shard, held } => {
                    let number = self.ordered_us.len();
                    self.ordered_us.push(self.shards[shard].now_us);
                    if held {
                        self.shards[shard].held.push_back(number);
                    } else {
                        self.publish(shard, number);
                    }
                }
                Step::Release { shard } => {
                    if let Some(number) = self.shards[shard].held.pop_front() {
                        self.publish(shard, number);
                    }
                }
            }
        }
    }

    impl Peer {
        fn append(&mut self, number: usize) {
            self.appended.resize(self.appended.len().max(number + 1), false);
            self.appended[number] = true;
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        let shard = 0..SHARDS;
        prop_oneof![
            3 => (shard.clone(), prop::bool::weighted(0.8))
                .prop_map(|(shard, read)| Step::Tick { shard, read }),
            3 => (shard.clone(), prop::bool::weighted(0.2))
                .prop_map(|(shard, held)| Step::Order { shard, held }),
            1 => shard.prop_map(|shard| Step::Release { shard }),
        ]
    }

    proptest! {
        /// However the shards' ticks interleave: all that was ordered before a cursor is appended.
        #[test]
        fn nothing_before_the_cursor_is_missing(
            steps in prop::collection::vec((step(), 0..3_u64), 1..300),
        ) {
            let (mut model, mut now_us) = (Model::new(), 1);
            for (step, passed_us) in steps {
                now_us += passed_us;
                model.step(step, now_us);
                for peer in &model.shards {
                    for (number, &ordered_us) in model.ordered_us.iter().enumerate() {
                        let appended = peer.appended.get(number).copied().unwrap_or(false);
                        prop_assert!(
                            appended || ordered_us >= peer.cursor_us,
                            "number {number} of {ordered_us} with the cursor at {}",
                            peer.cursor_us
                        );
                    }
                }
            }
            // And it does not stand still: once everyone has had two turns it is the last round's.
            for _ in 0..100 {
                now_us += 1;
                for shard in 0..SHARDS {
                    model.step(Step::Release { shard }, now_us);
                    model.step(Step::Tick { shard, read: true }, now_us);
                }
            }
            prop_assert!(model.shards.iter().all(|peer| peer.cursor_us + 1 >= now_us));
        }
    }
}
