//! How two sides' figures stand to each other, and what chance may have done to that.
//!
//! Knows: numbers. Must not know: what they are of.
//!
//! With as many runs on both sides they are pairs, run one after the other: what disturbs both
//! cancels out. The interval is the percentile bootstrap's: so many times as many pairs are drawn
//! from those there are, and of each drawing the median ratio is taken. With fewer than six pairs
//! the median is outside of everything seen more often than once in twenty, so no interval can be
//! 95 % sure, and the range stands there instead.

use rand::RngExt as _;
use rand_pcg::Pcg32;
use serde::Serialize;

/// The second side's figures divided by the first's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Ratio {
    /// Of pairs: the median of their ratios; else the ratio of the medians.
    pub(super) median: f64,
    /// It is in here with 95 %, if `sure`; else all that was seen is. `None` with one run each.
    pub(super) interval: Option<[f64; 2]>,
    pub(super) sure: bool,
    pub(super) paired: bool,
    pub(super) runs: [usize; 2],
}

impl Ratio {
    pub(super) fn interval_text(&self) -> String {
        match self.interval {
            None => "unknown".to_owned(),
            Some([low, high]) if self.sure => format!("{low:.3} to {high:.3}"),
            Some([low, high]) => format!("(seen {low:.3} to {high:.3})"),
        }
    }

    pub(super) fn runs_text(&self) -> String {
        match (self.paired, self.runs) {
            (true, [1, _]) => "1 each".to_owned(),
            (true, [pairs, _]) => format!("{pairs} pairs"),
            (false, [first, second]) => format!("{first} and {second}"),
        }
    }
}

/// `None` without a figure on a side, or if the first is not above 0.
pub(super) fn ratio(first: &[f64], second: &[f64], random: &mut Pcg32) -> Option<Ratio> {
    if first.is_empty() || second.is_empty() || first.iter().any(|&value| value <= 0.0) {
        return None;
    }
    let runs = [first.len(), second.len()];
    let paired = first.len() == second.len();
    if paired {
        let ratios: Vec<f64> = first.iter().zip(second).map(|(a, b)| b / a).collect();
        let sure = ratios.len() >= SURE_PAIRS;
        let interval = match ratios.len() {
            1 => None,
            2..SURE_PAIRS => Some(range(&ratios)),
            _ => Some(interval(|| median(&drawn(&ratios, random)))),
        };
        return Some(Ratio { median: median(&ratios), interval, sure, paired, runs });
    }
    let sure = runs.iter().all(|&runs| runs >= SURE_PAIRS);
    let interval = match sure {
        true => interval(|| median(&drawn(second, random)) / median(&drawn(first, random))),
        false => {
            let ([first_low, first_high], [low, high]) = (range(first), range(second));
            [low / first_high, high / first_low]
        }
    };
    let median = median(second) / median(first);
    Some(Ratio { median, interval: Some(interval), sure, paired, runs })
}

/// What a reader should know of these, in sentences.
pub(super) fn explain(ratios: &[&Ratio]) -> Vec<String> {
    let mut lines = Vec::new();
    if ratios.iter().any(|ratio| ratio.interval.is_none()) {
        lines.push(
            "One run of each side: nothing is known of what chance does between runs, so there is no \
             confidence in these ratios."
                .to_owned(),
        );
    }
    if ratios.iter().any(|ratio| ratio.interval.is_some() && !ratio.sure) {
        lines.push(format!(
            "Fewer than {SURE_PAIRS} runs of a side: too few for an interval that is 95 % sure, so the \
             range seen stands there."
        ));
    }
    if ratios.iter().any(|ratio| ratio.sure) {
        lines.push(format!(
            "Intervals: bootstrap of {DRAWINGS} drawings. One that holds 1 is no difference shown."
        ));
    }
    lines
}

/// The one in the middle, or the mean of the two.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// As many as there are, each any of them.
fn drawn(values: &[f64], random: &mut Pcg32) -> Vec<f64> {
    (0..values.len()).map(|_| values[random.random_range(0..values.len())]).collect()
}

fn interval(mut draw: impl FnMut() -> f64) -> [f64; 2] {
    let mut found: Vec<f64> = (0..DRAWINGS).map(|_| draw()).collect();
    found.sort_by(f64::total_cmp);
    let outside = DRAWINGS / 40;
    [found[outside], found[DRAWINGS - 1 - outside]]
}

fn range(values: &[f64]) -> [f64; 2] {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [least, most]
}

const DRAWINGS: usize = 10_000;
/// Of six pairs all are on one side of the true median once in 32 times, of five once in 16.
const SURE_PAIRS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn random() -> Pcg32 {
        Pcg32::new(1, 0)
    }

    #[test]
    fn one_run_each_has_no_confidence_and_few_have_a_range() {
        let one = ratio(&[10.0], &[12.0], &mut random()).expect("figures");
        assert_eq!((one.median, one.interval, one.sure), (1.2, None, false));
        assert!(explain(&[&one])[0].contains("no confidence"));
        let few = ratio(&[10.0, 20.0, 10.0], &[11.0, 24.0, 13.0], &mut random()).expect("figures");
        assert_eq!((few.median, few.interval, few.sure), (1.2, Some([1.1, 1.3]), false));
        assert_eq!(few.runs_text(), "3 pairs");
        assert_eq!(ratio(&[], &[1.0], &mut random()), None);
        assert_eq!(ratio(&[0.0], &[1.0], &mut random()), None);
    }

    #[test]
    fn pairs_cancel_what_disturbs_both_and_the_seed_decides() {
        // Between pairs everything varies tenfold, within a pair by 2 %.
        let first: Vec<f64> = (1..=10).map(|number| f64::from(number) * 100.0).collect();
        let noise = [1.02, 0.98, 1.01, 0.99, 1.0];
        let second: Vec<f64> = first
            .iter()
            .zip(noise.iter().cycle())
            .map(|(value, noise)| value * 1.1 * noise)
            .collect();
        let found = ratio(&first, &second, &mut random()).expect("figures");
        let [low, high] = found.interval.expect("an interval");
        assert!(found.sure && (found.median - 1.1).abs() < 0.01, "{found:?}");
        assert!(low > 1.07 && high < 1.13 && low <= found.median && found.median <= high);
        assert_eq!(Some(found), ratio(&first, &second, &mut random()));
    }

    #[test]
    fn sides_of_different_length_are_no_pairs() {
        let found = ratio(&[10.0, 10.0], &[20.0, 22.0, 24.0], &mut random()).expect("figures");
        assert_eq!((found.median, found.paired, found.sure), (2.2, false, false));
        assert_eq!(found.interval, Some([2.0, 2.4]));
        assert_eq!(found.runs_text(), "2 and 3");
        let many: Vec<f64> = (0..8).map(|number| 10.0 + f64::from(number) / 10.0).collect();
        let found = ratio(&many, &many[..7], &mut random()).expect("figures");
        let [low, high] = found.interval.expect("an interval");
        assert!(found.sure && low < 1.0 && (1.0..1.08).contains(&high), "{found:?}");
    }
}
