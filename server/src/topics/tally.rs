//! Numbers by rule, for the few rules that one lane's topics have.
//!
//! Knows: numbers. Must not know: what they count.

use crate::rules::RuleId;

/// Numbers by rule; those of rules not named are 0. They wrap, so that a difference of two is right
/// even where what was taken away was never added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(Vec<(RuleId, u64)>);

impl Tally {
    /// A rule's number.
    pub fn of(&self, rule: RuleId) -> u64 {
        self.0.iter().find(|(other, _)| *other == rule).map_or(0, |&(_, n)| n)
    }

    /// Adds to a rule's number.
    #[inline]
    pub fn add(&mut self, rule: RuleId, n: u64) {
        match self.0.iter_mut().find(|(other, _)| *other == rule) {
            Some((_, number)) => *number = number.wrapping_add(n),
            None => self.0.push((rule, n)),
        }
    }

    /// Takes away from a rule's number.
    pub fn sub(&mut self, rule: RuleId, n: u64) {
        self.add(rule, n.wrapping_neg());
    }

    /// Takes away all of another's numbers.
    pub fn sub_all(&mut self, other: &Self) {
        other.0.iter().for_each(|&(rule, n)| self.sub(rule, n));
    }

    /// The rules named, each with its number.
    pub fn iter(&self) -> impl Iterator<Item = (RuleId, u64)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_right_whatever_was_there_before() {
        let (a, b) = (RuleId(1), RuleId(7));
        let mut before = Tally::default();
        before.sub(a, 3);
        let mut after = Tally::default();
        after.add(a, 2);
        after.add(b, 1);
        after.sub_all(&before);
        assert_eq!((after.of(a), after.of(b), after.of(RuleId(0))), (5, 1, 0));
        assert_eq!(after.iter().count(), 2);
    }
}
