//! The helper thread as the simulator has it: the same work, done whenever the dice say so.
//!
//! Knows: its mail, delays, and that it may fail. Must not know: what a publication is.

use std::collections::VecDeque;

use uringcast::{helper::Helper, mail::Mail};
use uringcast_mesh::grid::{Node, Wake};
use uringcast_ring::pool::PoolOptions;

use crate::net::Net;

/// The helper.
pub(crate) struct SimHelper {
    node: Node<Mail>,
    helper: Helper,
    /// It loses mail now and then, as if it had died.
    pub(crate) loses: bool,
    /// Mail taken, and when it is answered.
    inbox: VecDeque<(usize, Mail, u64)>,
    /// Answers for rings that were full.
    parked: VecDeque<(usize, Mail)>,
    /// Answers of publications that it could compress.
    pub(crate) compressed: u64,
}

impl SimHelper {
    pub(crate) fn new(node: Node<Mail>, bytes_min: usize, bytes_max: usize, loses: bool) -> Self {
        let pool = PoolOptions { bytes_max, registered_bytes_max: 0 };
        let helper = Helper::new(bytes_min, pool);
        let (inbox, parked) = (VecDeque::new(), VecDeque::new());
        Self { node, helper, loses, inbox, parked, compressed: 0 }
    }

    /// Takes mail and answers what is due. Whether there is anything still to be done.
    pub(crate) fn turn(&mut self, net: &mut Net, now_ns: u64) -> bool {
        let Self { node, inbox, loses, .. } = self;
        let most = net.dice.scale(1, 8);
        node.receive(most, |from, mail| {
            if *loses && net.dice.chance(100) {
                return net.note(|| format!("the helper loses mail of shard {from}"));
            }
            // Long enough, at times, to be given up.
            let delay_ns = net.dice.scale(1_000, 400_000_000) as u64;
            inbox.push_back((from, mail, now_ns + delay_ns));
        });
        while self.inbox.front().is_some_and(|&(.., due_ns)| due_ns <= now_ns)
            && let Some((from, mail, _)) = self.inbox.pop_front()
        {
            let answer = self.helper.answer(mail).expect("only requests come here");
            if let Mail::Deflated { deflated: Some(_), .. } = answer {
                self.compressed += 1;
            }
            self.parked.push_back((from, answer));
        }
        while let Some((to, mail)) = self.parked.pop_front() {
            match self.node.send(to, mail) {
                Ok(Wake::Needed) => net.wake(to),
                Ok(Wake::NotNeeded) => {}
                Err(mail) => {
                    self.parked.push_front((to, mail));
                    break;
                }
            }
        }
        !self.inbox.is_empty() || !self.parked.is_empty()
    }
}
