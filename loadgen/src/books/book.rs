//! One order book as a subscriber keeps it: two sorted lists of levels and the last update's id.
//!
//! Knows: prices, sizes, the chain of update ids. Must not know: JSON, who keeps it.

use std::fmt::Write as _;

/// Price and size in units of 10^-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) price: u64,
    /// 0 in an update: the level goes.
    pub(crate) size: u64,
}

/// A change of a book.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update<'a> {
    /// `U`, the first event in it.
    pub(crate) first: u64,
    /// `u`, the last.
    pub(crate) last: u64,
    /// `pu`, the last of the update before, where the exchange says so (futures).
    pub(crate) previous: Option<u64>,
    pub(crate) bids: &'a [Level],
    pub(crate) asks: &'a [Level],
}

/// How an update fits a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// It is the next one.
    Holds,
    /// The snapshot that the book began with has it already.
    Covered,
    /// Something is missing in between, or it is older than what came before.
    Broken,
}

/// Levels by rising price; of each price one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Book {
    /// The last event in it.
    pub(crate) update_id: u64,
    /// No update has been applied since the snapshot.
    fresh: bool,
    pub(crate) bids: Vec<Level>,
    pub(crate) asks: Vec<Level>,
}

impl Book {
    /// The state after all events up to `update_id`.
    pub(crate) fn of_snapshot(update_id: u64, mut bids: Vec<Level>, mut asks: Vec<Level>) -> Self {
        for side in [&mut bids, &mut asks] {
            side.sort_unstable_by_key(|level| level.price);
        }
        Self { update_id, fresh: true, bids, asks }
    }

    /// Applies an update, unless the snapshot has it. A broken link is told and applied all the
    /// same: the difference shall show.
    pub(crate) fn apply(&mut self, update: &Update<'_>) -> Link {
        if update.last <= self.update_id {
            return if self.fresh { Link::Covered } else { Link::Broken };
        }
        let holds = match (update.previous, self.fresh) {
            (Some(previous), false) => previous == self.update_id,
            (None, false) => update.first == self.update_id + 1,
            // A snapshot may be of a moment within the first update.
            (Some(previous), true) => previous <= self.update_id,
            (None, true) => update.first <= self.update_id + 1,
        };
        for (side, changes) in [(&mut self.bids, update.bids), (&mut self.asks, update.asks)] {
            for change in changes {
                match side.binary_search_by_key(&change.price, |level| level.price) {
                    Ok(at) if change.size == 0 => drop(side.remove(at)),
                    Ok(at) => side[at].size = change.size,
                    Err(_) if change.size == 0 => {}
                    Err(at) => side.insert(at, *change),
                }
            }
        }
        self.update_id = update.last;
        self.fresh = false;
        if holds { Link::Holds } else { Link::Broken }
    }
}

/// Where two sides differ first: in words, `None` if they are equal. `ours` is the subscriber's.
pub(crate) fn difference(side: &str, ours: &[Level], theirs: &[Level]) -> Option<String> {
    let equal = ours.iter().zip(theirs).take_while(|(ours, theirs)| ours == theirs).count();
    let text = |level: &Level| format!("{} of {}", decimal(level.size), decimal(level.price));
    match (ours.get(equal), theirs.get(equal)) {
        (None, None) => None,
        (ours, theirs) => Some(format!(
            "{side} number {equal} is {} at the subscriber's and {} at the publisher's",
            ours.map_or_else(|| "missing".to_owned(), text),
            theirs.map_or_else(|| "missing".to_owned(), text)
        )),
    }
}

/// Reads a decimal number; `None` if it is none, or has over eight decimals or is too large.
pub(crate) fn units(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = DECIMALS.checked_sub(fraction.len() as u32)?;
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()? };
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(10u64.pow(DECIMALS))?
        .checked_add(fraction * 10u64.pow(zeros))
}

/// Writes it, always with eight decimals.
pub(crate) fn decimal(units: u64) -> String {
    let mut out = String::with_capacity(24);
    let one = 10u64.pow(DECIMALS);
    // Writing to a string can't fail.
    let _ = write!(out, "{}.{:08}", units / one, units % one);
    out
}

const DECIMALS: u32 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn level(price: u64, size: u64) -> Level {
        Level { price, size }
    }

    const BIDS: &[Level] = &[level(5, 0), level(3, 7)];
    const ASKS: &[Level] = &[level(9, 0)];

    fn book() -> Book {
        Book::of_snapshot(10, vec![level(5, 1), level(4, 1)], vec![level(6, 1)])
    }

    fn update(first: u64, last: u64, previous: Option<u64>) -> Update<'static> {
        Update { first, last, previous, bids: BIDS, asks: ASKS }
    }

    #[test]
    fn levels_come_change_and_go() {
        let mut book = book();
        assert_eq!(book.apply(&update(11, 12, None)), Link::Holds);
        assert_eq!(book.bids, [level(3, 7), level(4, 1)]);
        assert_eq!((book.asks.as_slice(), book.update_id), (&[level(6, 1)][..], 12));
        let told = difference("bid", &book.bids, &[level(3, 7), level(4, 2)]).expect("one");
        assert!(told.contains("0.00000001 of 0.00000004 at the subscriber's"), "{told}");
        assert_eq!(difference("bid", &book.bids, &book.bids), None);
        assert!(difference("bid", &book.bids, &[level(3, 7)]).is_some());
    }

    #[test]
    fn the_first_update_may_overlap_the_snapshot_and_the_others_may_not() {
        for (first, previous) in [(8, None), (11, None), (11, Some(10)), (13, Some(9))] {
            let mut book = book();
            assert_eq!(book.apply(&update(7, 10, previous)), Link::Covered);
            assert_eq!(book.apply(&update(first, 14, previous)), Link::Holds, "{first}");
            assert_eq!(book.apply(&update(15, 16, previous.map(|_| 14))), Link::Holds);
            assert_eq!(book.apply(&update(15, 16, previous.map(|_| 14))), Link::Broken, "again");
            assert_eq!(book.apply(&update(18, 19, previous.map(|_| 17))), Link::Broken, "a hole");
        }
        assert_eq!(book().apply(&update(12, 14, None)), Link::Broken);
        assert_eq!(book().apply(&update(12, 14, Some(11))), Link::Broken);
    }

    proptest! {
        #[test]
        fn decimals_come_back(units_in in 0..u64::MAX / 2, text: String) {
            prop_assert_eq!(units(&decimal(units_in)), Some(units_in));
            let _ = units(&text);
        }
    }

    #[test]
    fn what_is_no_decimal_is_refused() {
        assert_eq!(units("61837.63000000"), Some(6_183_763_000_000));
        assert_eq!(units("20"), Some(2_000_000_000));
        for wrong in ["", ".5", "-1", "1.123456789", "1e5", "999999999999999999999", "1.+5"] {
            assert_eq!(units(wrong), None, "{wrong}");
        }
    }
}
