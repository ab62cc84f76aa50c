//! How often something is published: so many times a second, or from one rate to another in a
//! straight line.
//!
//! Knows: rates, times, and how they are written. Must not know: what is published, or by whom.
//!
//! Everything is computed in closed form from a publication's place, so a schedule is the same
//! whoever asks and however late: nothing adds up. A line from rate a to rate b over T seconds has
//! seen `a·t + (b − a)·t²/2T` publications after t; solved for t that gives each one its time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A rate, or a ramp and what follows: first `from` for a while, then in a straight line to `to`,
/// then `to` for ever.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    /// How long it stays at the first rate, s.
    hold_s: f64,
    /// At the beginning, per second; 0 is allowed with a ramp.
    from_per_s: f64,
    /// At the end, per second.
    to_per_s: f64,
    /// How long it takes from the one to the other, s; 0 without a ramp.
    over_s: f64,
}

/// What can't be read as a rate.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "should be a number above 0, up to {RATE_MAX}, or a ramp from one to another as in 100..5000/60s"
)]
pub(crate) struct RateError;

impl Rate {
    /// Always the same.
    pub(crate) fn constant(per_s: f64) -> Self {
        Self { hold_s: 0.0, from_per_s: per_s, to_per_s: per_s, over_s: 0.0 }
    }

    /// The same ramp, begun so much later: until then its first rate.
    pub(crate) fn held_for(self, hold: Duration) -> Self {
        if self.ramp().is_none() {
            return self;
        }
        Self { hold_s: hold.as_secs_f64(), ..self }
    }

    /// How long the ramp takes; `None` if it is none.
    pub(crate) fn ramp(&self) -> Option<Duration> {
        (self.over_s > 0.0).then(|| Duration::from_secs_f64(self.over_s))
    }

    /// The lower and the higher end, per second.
    pub(crate) fn ends_per_s(&self) -> (f64, f64) {
        (self.from_per_s.min(self.to_per_s), self.from_per_s.max(self.to_per_s))
    }

    /// When the publication in this place (from 0) is due, ns after the start; [`u64::MAX`] if it
    /// never is.
    #[inline]
    pub(crate) fn offset_ns(&self, place: u64) -> u64 {
        // Exact to the nanosecond for 2^53 ns, 104 days.
        let place = place as f64;
        let held = self.hold_s * self.from_per_s;
        if place < held {
            return (place * (NANOS / self.from_per_s)) as u64;
        }
        let place = place - held;
        let rising = self.over_s * self.from_per_s.midpoint(self.to_per_s);
        let hold_ns = self.hold_s * NANOS;
        if place < rising {
            let slope = (self.to_per_s - self.from_per_s) / self.over_s;
            // The root in the form that loses no digits when the slope is small.
            let square = self.from_per_s * self.from_per_s + 2.0 * slope * place;
            let root = square.max(0.0).sqrt();
            let after_s = if place > 0.0 { 2.0 * place / (self.from_per_s + root) } else { 0.0 };
            return (hold_ns + after_s * NANOS) as u64;
        }
        let before_ns = hold_ns + self.over_s * NANOS;
        (before_ns + (place - rising) * (NANOS / self.to_per_s)) as u64
    }

    /// How many are due before `offset_ns`.
    pub(crate) fn count_before(&self, offset_ns: u64) -> u64 {
        first_not(0, |place| self.offset_ns(place) < offset_ns)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let number = |text: &str, least: f64| {
            let number = text.trim().parse::<f64>().ok();
            number.filter(|number| (least..=RATE_MAX).contains(number)).ok_or(RateError)
        };
        let Some((from, rest)) = text.split_once("..") else {
            return Ok(Self::constant(number(text, RATE_MIN)?));
        };
        let (to, over) = rest.split_once('/').ok_or(RateError)?;
        let over = humantime::parse_duration(over.trim()).map_err(|_| RateError)?;
        if over.is_zero() {
            return Err(RateError);
        }
        Ok(Self {
            hold_s: 0.0,
            from_per_s: number(from, 0.0)?,
            to_per_s: number(to, RATE_MIN)?,
            over_s: over.as_secs_f64(),
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ramp() {
            Some(over) => {
                let over = humantime::format_duration(over);
                write!(out, "{}..{}/{over}", self.from_per_s, self.to_per_s)
            }
            None => write!(out, "{}", self.to_per_s),
        }
    }
}

/// The first number from `from` on for which `is` no longer holds.
pub(crate) fn first_not(from: u64, is: impl Fn(u64) -> bool) -> u64 {
    let mut step = 1;
    while is(from + step) && step < 1 << 40 {
        step *= 2;
    }
    let (mut low, mut high) = (from, from + step);
    while low < high {
        let middle = low.midpoint(high);
        if is(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

const NANOS: f64 = 1e9;
const RATE_MAX: f64 = 10_000_000.0;
/// Once a day.
const RATE_MIN: f64 = 1.0 / 86_400.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Publications due in the first `t_s` seconds, by the integral of the rate.
    fn integral(rate: &Rate, t_s: f64) -> f64 {
        let held_s = t_s.min(rate.hold_s);
        let rising_s = (t_s - rate.hold_s).clamp(0.0, rate.over_s);
        let rest_s = (t_s - rate.hold_s - rate.over_s).max(0.0);
        let (from, to) = (rate.from_per_s, rate.to_per_s);
        let slope = if rate.over_s > 0.0 { (to - from) / rate.over_s } else { 0.0 };
        held_s * from + rising_s * from + slope * rising_s * rising_s / 2.0 + rest_s * to
    }

    proptest! {
        #[test]
        fn a_schedule_never_goes_back_and_has_as_many_as_the_integral(
            from in 0.0..20_000.0f64, to in 0.5..20_000.0f64, over_ms in 1..200_000u64,
            hold_ms in 0..3000u64, at in 0.0..2.0f64, places in proptest::collection::vec(0u64..3_000_000, 1..50),
        ) {
            let text = format!("{from}..{to}/{over_ms}ms");
            let ramp: Rate = text.parse().expect("a ramp");
            let rate = ramp.held_for(Duration::from_millis(hold_ms));
            for place in places {
                prop_assert!(rate.offset_ns(place) <= rate.offset_ns(place + 1), "{text} {place}");
            }
            let t_ns = ((hold_ms + over_ms) as f64 * 1e6 * at) as u64;
            let (count, due) = (rate.count_before(t_ns), integral(&rate, t_ns as f64 / 1e9));
            prop_assert!((count as f64 - due).abs() <= 1.000_001, "{text}: {count} for {due}");
        }

        #[test]
        fn what_is_no_rate_is_refused_and_what_is_shown_can_be_read(text in "[0-9./sm]{0,12}") {
            if let Ok(rate) = text.parse::<Rate>() {
                let shown = rate.to_string();
                prop_assert_eq!(shown.parse::<Rate>(), Ok(rate), "{}", shown);
            }
        }
    }

    #[test]
    fn a_ramp_begins_slowly_and_stays_at_its_top() {
        let rate: Rate = "100..5000/60s".parse().expect("a ramp");
        // The first interval is that of 100/s, nearly.
        assert!((9_900_000..10_000_000).contains(&rate.offset_ns(1)), "{}", rate.offset_ns(1));
        // 60 s at 2,550/s on average.
        assert_eq!(rate.count_before(60_000_000_000), 153_000);
        assert_eq!(rate.offset_ns(153_000), 60_000_000_000);
        assert_eq!(rate.offset_ns(158_000), 61_000_000_000);
        let held = rate.held_for(Duration::from_secs(2));
        assert_eq!((held.offset_ns(0), held.offset_ns(100)), (0, 1_000_000_000));
        assert_eq!(held.offset_ns(200 + 153_000), 62_000_000_000);
    }

    #[test]
    fn a_constant_rate_is_evenly_spaced() {
        let rate: Rate = "3000".parse().expect("a rate");
        assert_eq!(rate.offset_ns(1), 333_333);
        assert_eq!(rate.offset_ns(10_800_000), 3_600_000_000_000);
        assert_eq!((rate.ramp(), rate.ends_per_s()), (None, (3000.0, 3000.0)));
    }

    #[test]
    fn a_fall_is_a_ramp_too() {
        let rate: Rate = "1000..0.5/10s".parse().expect("a ramp");
        assert_eq!(rate.count_before(10_000_000_000), 5003);
        for wrong in
            ["", "0", "-1", "1e9", "5..", "5..10", "5..10/", "5..0/1s", "5..10/0s", "x..1/1s"]
        {
            assert_eq!(wrong.parse::<Rate>(), Err(RateError), "{wrong}");
        }
    }
}
