//! Which rate to try next: up in a geometric row until one fails, then halving what is between.
//!
//! Knows: rates that held and rates that failed. Must not know: what makes one fail.

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Narrowly: to be tried once more, for the machine may have been busy with something else.
    Failed { narrowly: bool },
    /// Easily: with room for much more.
    Held { easily: bool },
}

/// The search.
#[derive(Clone, Debug)]
pub(super) struct Search {
    least_per_s: f64,
    most_per_s: f64,
    /// It ends when the rate that failed is not further above the one that held, as a share.
    precision: f64,
    held_per_s: Option<f64>,
    failed_per_s: Option<f64>,
    next_per_s: Option<f64>,
    /// Said to fail, not yet tried: what comes after the first that holds.
    above_per_s: Option<f64>,
    /// The next one is tried for the second time.
    again: bool,
}

impl Search {
    pub(super) fn new(first_per_s: f64, least_per_s: f64, most_per_s: f64, precision: f64) -> Self {
        Self {
            least_per_s,
            most_per_s,
            precision,
            held_per_s: None,
            failed_per_s: None,
            next_per_s: Some(first_per_s.clamp(least_per_s, most_per_s)),
            above_per_s: None,
            again: false,
        }
    }

    /// If the first one holds, this one is expected to fail.
    pub(super) fn with_above(self, above_per_s: Option<f64>) -> Self {
        Self { above_per_s, ..self }
    }

    /// The rate to try; `None`: found.
    pub(super) fn next_per_s(&self) -> Option<f64> {
        self.next_per_s
    }

    /// The highest that held.
    pub(super) fn held_per_s(&self) -> Option<f64> {
        self.held_per_s
    }

    /// The lowest that failed.
    pub(super) fn failed_per_s(&self) -> Option<f64> {
        self.failed_per_s
    }

    /// What became of the one tried.
    pub(super) fn note(&mut self, verdict: Verdict) {
        let Some(tried) = self.next_per_s else { return };
        let mut factor = 2.0;
        match verdict {
            Verdict::Failed { narrowly: true } if !self.again => {
                self.again = true;
                return;
            }
            Verdict::Failed { .. } => self.failed_per_s = Some(tried),
            Verdict::Held { easily } => {
                self.held_per_s = Some(tried);
                factor = if easily { 4.0 } else { 2.0 };
            }
        }
        self.again = false;
        self.next_per_s = match (self.held_per_s, self.failed_per_s) {
            (Some(held), None) if held >= self.most_per_s => None,
            (Some(held), None) => {
                let above = self.above_per_s.take().filter(|above| *above > held);
                Some(above.unwrap_or(held * factor).min(self.most_per_s))
            }
            (None, Some(failed)) if failed <= self.least_per_s => None,
            (None, Some(failed)) => Some((failed / factor).max(self.least_per_s)),
            (Some(held), Some(failed)) if failed <= held * (1.0 + self.precision) => None,
            (Some(held), Some(failed)) => Some(between(held, failed)),
            (None, None) => None,
        };
    }
}

/// The geometric mean, in few digits if there is room.
fn between(low: f64, high: f64) -> f64 {
    let middle = (low * high).sqrt();
    let unit = 10f64.powf(middle.log10().floor() - 3.0);
    let round = (middle / unit).round() * unit;
    // Whole numbers have no dust in their last digits.
    let round = if unit >= 1.0 { round.round() } else { round };
    if low < round && round < high { round } else { middle }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_highest_rate_is_found_to_the_stated_precision(
            limit in 0.2..9_000_000.0f64, first in 0.2..100_000.0f64, precision in 0.005..0.5f64,
            above in proptest::option::of(0.2..100_000.0f64), noise: Vec<bool>,
        ) {
            let search = Search::new(first, 0.1, 10_000_000.0, precision);
            let mut search = search.with_above(above);
            let mut steps = 0;
            while let Some(rate) = search.next_per_s() {
                // A narrow failure that the second trial mends.
                let disturbed = *noise.get(steps).unwrap_or(&false) && !search.again;
                search.note(match rate <= limit {
                    true if disturbed => Verdict::Failed { narrowly: true },
                    true => Verdict::Held { easily: rate < limit / 8.0 },
                    false => Verdict::Failed { narrowly: rate < limit * 1.2 },
                });
                steps += 1;
                prop_assert!(steps < 100, "{search:?}");
            }
            let held = search.held_per_s().expect("a rate");
            let failed = search.failed_per_s().expect("a rate");
            prop_assert!(held <= limit && limit < failed, "{held} {limit} {failed}");
            prop_assert!(failed <= held * (1.0 + precision), "{held} {failed}");
        }
    }

    #[test]
    fn the_ends_bound_the_search() {
        let mut search = Search::new(100.0, 100.0, 5000.0, 0.05);
        while search.next_per_s().is_some() {
            search.note(Verdict::Held { easily: true });
        }
        assert_eq!((search.held_per_s(), search.failed_per_s()), (Some(5000.0), None));
        let mut search = Search::new(400.0, 100.0, 5000.0, 0.05);
        while search.next_per_s().is_some() {
            search.note(Verdict::Failed { narrowly: true });
        }
        assert_eq!((search.held_per_s(), search.failed_per_s()), (None, Some(100.0)));
    }

    #[test]
    fn rates_between_have_few_digits() {
        assert_eq!(between(100.0, 200.0), 141.4);
        assert_eq!(between(12_345.0, 12_347.0), 12_345.999_959_501_053);
        assert_eq!(between(1_000_000.0, 2_000_000.0), 1_414_000.0);
    }
}
