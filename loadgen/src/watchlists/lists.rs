//! The watchlists: which topics each has, drawn at random, the same for the same seed.
//!
//! Knows: numbers of topics. Must not know: their names, connections.

use std::ops::Range;

use rand::RngExt as _;
use rand_pcg::Pcg32;

use crate::failure::Failure;
use crate::flags::WatchlistsFlags;

/// All watchlists of a run.
pub(crate) struct Lists {
    /// Each without repeats; those that change come last.
    pub(crate) lists: Vec<Vec<u16>>,
    /// The topics from which those that change come.
    pub(crate) apart: Range<u16>,
}

impl Lists {
    /// Draws them.
    ///
    /// # Errors
    /// Too few topics to change among.
    pub(crate) fn new(flags: &WatchlistsFlags) -> Result<Self, Failure> {
        let (topics, watch, changing) = (flags.topics, flags.watch, flags.changing);
        // As large a part of the topics as of a list, so that each topic has as many subscribers.
        let apart = match changing {
            0 => 0,
            _ => (u32::from(topics) * u32::from(changing) / u32::from(watch)) as u16,
        };
        if changing > 0 && apart <= changing {
            let right = "more: of the topics that change there must be one that is not watched";
            return Err(Failure::usage("--topics", topics, right));
        }
        let fixed = topics - apart;
        let count = match flags.lists {
            Some(lists) => u32::from(lists).min(flags.subscribers.max(1)),
            None => flags.subscribers.max(1),
        };
        let mut random = Pcg32::new(flags.run.seed, STREAM);
        let mut list = || {
            let mut list = Vec::with_capacity(usize::from(watch));
            draw(&mut random, 0..fixed, usize::from(watch - changing), &mut list);
            draw(&mut random, fixed..topics, usize::from(watch), &mut list);
            list
        };
        Ok(Self { lists: (0..count).map(|_| list()).collect(), apart: fixed..topics })
    }
}

/// Topics out of `from` that the list does not have, until it has `length`.
fn draw(random: &mut Pcg32, from: Range<u16>, length: usize, list: &mut Vec<u16>) {
    let first = list.len();
    if length - first > from.len() / 2 {
        // Where most are wanted, few draws would be new ones: leave out some of all.
        list.extend(from);
        while list.len() > length {
            let at = random.random_range(first..list.len());
            list.swap_remove(at);
        }
        return;
    }
    while list.len() < length {
        let topic = random.random_range(from.clone());
        if !list[first..].contains(&topic) {
            list.push(topic);
        }
    }
}

/// One list for each connection at most: groups and interests have numbers of 16 bits.
pub(crate) const LISTS_MAX: u16 = 60_000;
/// Of the random numbers: others than the masks'.
const STREAM: u64 = 0x6C69_7374;

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Command, Flags};

    fn lists(arguments: &[&str]) -> Result<Lists, Failure> {
        let words = ["loadgen", "watchlists"].iter().chain(arguments);
        let Command::Watchlists(flags) = Flags::parse_from(words).command else { panic!() };
        Lists::new(&flags)
    }

    #[test]
    fn lists_have_no_topic_twice_and_as_many_changing_ones_as_asked() {
        let words = ["--topics", "200", "--watch", "20", "--changing", "4", "--format", "json"];
        let found = lists(&words).expect("lists");
        assert_eq!((found.lists.len(), found.apart.clone()), (1000, 160..200));
        let mut watched = [0; 200];
        for list in &found.lists {
            let different: std::collections::BTreeSet<_> = list.iter().collect();
            assert_eq!((list.len(), different.len()), (20, 20));
            assert!(list[..16].iter().all(|topic| !found.apart.contains(topic)));
            assert!(list[16..].iter().all(|topic| found.apart.contains(topic)));
            list.iter().for_each(|&topic| watched[usize::from(topic)] += 1);
        }
        // 100 each, give or take: no topic is left out.
        assert!(watched.iter().all(|&count| (60..140).contains(&count)), "{watched:?}");
        assert_eq!(lists(&words).expect("lists").lists, found.lists, "the same seed");
        assert_ne!(
            lists(&[&words[..], &["--seed", "2"]].concat()).expect("lists").lists,
            found.lists
        );
    }

    #[test]
    fn nearly_all_topics_can_be_watched() {
        let found = lists(&["--topics", "10", "--watch", "10", "--lists", "3"]).expect("lists");
        assert_eq!(found.lists.len(), 3);
        for mut list in found.lists {
            list.sort_unstable();
            assert_eq!(list, (0..10).collect::<Vec<_>>());
        }
        assert!(lists(&["--topics", "10", "--watch", "10", "--changing", "2"]).is_err());
    }
}
