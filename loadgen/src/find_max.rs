//! `--find-max`: the highest rate at which nothing is lost and latency stays under a bound.
//!
//! Knows: steps at one rate each, and what makes one hold. Must not know: how a step is run.
//!
//! Each step is a run of its own, with its own connections, warm-up and window: an overloaded
//! server that closes who lags, or still has a backlog, spoils no other step. The report is that of
//! the best step that held, with all steps in `find_max`.

mod bound;
mod search;

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

pub(crate) use self::bound::Bound;
use self::search::{Search, Verdict};
use crate::failure::Failure;
use crate::flags::FanoutFlags;
use crate::rate::Rate;
use crate::report::{Report, Step, duration};

/// What was found, and how.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(crate) struct FindMax {
    /// As asked for, each with nothing lost.
    bounds: Vec<String>,
    /// The highest rate that held; `None` if none did.
    rate_per_s: Option<f64>,
    /// The lowest rate above it that did not.
    failed_per_s: Option<f64>,
    /// The true rate may be higher: the load generator itself was the limit of what failed, or
    /// the top was reached or the search interrupted before anything failed.
    at_least: bool,
    /// How close the two shall be, as a share.
    precision: f64,
    /// With a ramp: what it said, which is where the search begins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ramp: Vec<Step>,
    /// In the order of trying.
    steps: Vec<Tried>,
}

/// One step.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct Tried {
    /// Publications per second, as intended.
    rate_per_s: f64,
    /// Publications sent.
    published: u64,
    /// Deliveries per second.
    delivered_per_s: f64,
    /// Deliveries that should have been and were not.
    lost: u64,
    /// Corrected latency: half of the deliveries took no longer, ns.
    p50_ns: u64,
    /// 99 % took no longer, ns.
    p99_ns: u64,
    /// 99.9 % took no longer, ns.
    p99_9_ns: u64,
    /// The longest, ns.
    max_ns: u64,
    /// Of the busiest thread of the load generator.
    own_busy_share: f64,
    /// It was itself the limit.
    own_limit: bool,
    /// Clean, and within the bounds.
    held: bool,
    /// Why not.
    why: Option<String>,
}

/// Searches; `run` runs a step with the flags as they are.
///
/// # Errors
/// [`Failure`] of a step; losing something or being late is none.
pub(crate) fn find(
    flags: &FanoutFlags,
    run: impl Fn(&FanoutFlags) -> Result<Report, Failure>,
) -> Result<Report, Failure> {
    let precision = flags.search.precision / 100.0;
    let bounds = &flags.search.find_max;
    let (mut best, mut last, mut interrupted) = (None, None, false);
    let mut ramp = Vec::new();
    let mut search = match flags.rate.ramp() {
        Some(_) => {
            // Its --duration is for the steps of the search.
            let mut report = run(&FanoutFlags { duration: None, ..flags.clone() })?;
            ramp = std::mem::take(&mut report.steps);
            let (least, most) = flags.rate.ends_per_s();
            let least = least.max(RATE_LEAST);
            let (held, failed) = bracket(bounds, &report, &ramp);
            interrupted = report.conduct.interrupted;
            last = Some(report);
            let end = if failed.is_some() { least } else { most };
            let first = held.unwrap_or(end);
            Search::new(first, least, most, precision).with_above(failed)
        }
        None => Search::new(flags.rate.ends_per_s().0, RATE_LEAST, RATE_MOST, precision),
    };
    let mut steps: Vec<Tried> = Vec::new();
    while let Some(rate_per_s) = search.next_per_s().filter(|_| steps.len() < STEPS_MAX) {
        if interrupted {
            break;
        }
        let step = FanoutFlags {
            rate: Rate::constant(rate_per_s),
            duration: Some(flags.duration.unwrap_or(STEP)),
            ..flags.clone()
        };
        let report = run(&step)?;
        interrupted = report.conduct.interrupted;
        if interrupted {
            last = Some(report);
            break;
        }
        let (verdict, tried) = judge(bounds, rate_per_s, &report);
        if !flags.run.quiet {
            eprintln!("find-max      {}", tried.line());
        }
        steps.push(tried);
        search.note(verdict);
        *(if matches!(verdict, Verdict::Held { .. }) { &mut best } else { &mut last }) =
            Some(report);
    }
    let held_per_s = search.held_per_s();
    let failed_per_s = search.failed_per_s();
    let limited = |rate| steps.iter().any(|step| step.rate_per_s == rate && step.own_limit);
    let found = FindMax {
        bounds: bounds.iter().map(ToString::to_string).collect(),
        rate_per_s: held_per_s,
        failed_per_s,
        at_least: held_per_s.is_some() && (interrupted || failed_per_s.is_none_or(limited)),
        precision,
        ramp,
        steps,
    };
    // There is at least one step, unless interrupted in the first.
    let mut report = best.or(last).ok_or_else(|| nothing(flags))?;
    report.conduct.interrupted = interrupted;
    if interrupted {
        report.notes.push("interrupted: the search had not ended".to_owned());
    }
    if found.rate_per_s.is_none() {
        report.clean = false;
        report.notes.insert(0, format!("no rate held {}", found.bounds.join(", ")));
    }
    report.find_max = Some(found);
    Ok(report)
}

fn nothing(flags: &FanoutFlags) -> Failure {
    Failure::usage("--rate", flags.rate, "a rate to begin with, or a ramp whose ends differ")
}

/// Between which rates of a ramp's steps the limit seems to be: the last before the first that
/// fails, and that one.
fn bracket(bounds: &[Bound], report: &Report, ramp: &[Step]) -> (Option<f64>, Option<f64>) {
    let Some(steps) = &report.latencies.steps else { return (None, None) };
    let fails = |(step, histogram): (&Step, &Histogram<u64>)| {
        step.lost + step.unsent > 0 || bounds.iter().any(|bound| bound.share_of(histogram) > 1.0)
    };
    let failed = ramp.iter().zip(steps.histograms()).position(fails);
    let rate = |step: usize| ramp.get(step).map(|step| step.rate_per_s);
    match failed {
        Some(failed) => (failed.checked_sub(1).and_then(rate), rate(failed)),
        None => (None, None),
    }
}

fn judge(bounds: &[Bound], rate_per_s: f64, report: &Report) -> (Verdict, Tried) {
    let corrected = &report.latencies.corrected;
    let worst = bounds
        .iter()
        .map(|bound| (bound.share_of(corrected), bound))
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    let (share, over) = worst.map_or((0.0, None), |(share, bound)| (share, Some(bound)));
    let why = if !report.clean {
        report.notes.first().cloned()
    } else if corrected.is_empty() {
        Some("nothing was delivered".to_owned())
    } else {
        over.filter(|_| share > 1.0).map(|bound| bound.told(corrected))
    };
    let verdict = match why {
        None => Verdict::Held { easily: share < EASILY },
        // Something else on the machine may have done that.
        Some(_) => Verdict::Failed { narrowly: report.clean && share < NARROWLY },
    };
    let latency = &report.latency.corrected;
    let busy = report.threads.iter().map(|usage| usage.busy_share);
    let tried = Tried {
        rate_per_s,
        published: report.published.published,
        delivered_per_s: report.deliveries.per_s,
        lost: report.faults.lost,
        p50_ns: latency.p50_ns,
        p99_ns: latency.p99_ns,
        p99_9_ns: latency.p99_9_ns,
        max_ns: latency.max_ns,
        own_busy_share: busy.fold(0.0, f64::max),
        own_limit: report.conduct.own_limit,
        held: why.is_none(),
        why,
    };
    (verdict, tried)
}

impl Tried {
    fn line(&self) -> String {
        let mark = if self.own_limit { "!" } else { " " };
        format!(
            "{:>10.1}/s {:>12.0} {:>11} {:>11} {:>11} {:>11} {:>8} {:>5.0} %{mark} {}",
            self.rate_per_s,
            self.delivered_per_s,
            duration(self.p50_ns),
            duration(self.p99_ns),
            duration(self.p99_9_ns),
            duration(self.max_ns),
            self.lost,
            self.own_busy_share * 100.0,
            self.why.as_deref().unwrap_or("held"),
        )
    }
}

impl FindMax {
    /// The table. Writing to a string can't fail, hence the `let _`.
    pub(crate) fn text(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\nfind-max          rate  delivered/s         p50         p99       p99.9         max     lost  own busy"
        );
        for step in &self.steps {
            let _ = writeln!(out, "          {}", step.line());
        }
        let bounds = self.bounds.join(", ");
        let least = if self.at_least { "at least " } else { "" };
        let _ = match (self.rate_per_s, self.failed_per_s) {
            (Some(held), Some(failed)) => writeln!(
                out,
                "{bounds} and nothing lost: {least}{held} publications/s ({failed} were too many)"
            ),
            (Some(held), None) => {
                writeln!(out, "{bounds} and nothing lost: {least}{held} publications/s")
            }
            (None, _) => writeln!(out, "{bounds} and nothing lost: at no rate that was tried"),
        };
        if self.steps.iter().any(|step| step.own_limit) {
            out.push_str("! the load generator itself was the limit of such a step\n");
        }
    }
}

const STEP: std::time::Duration = std::time::Duration::from_secs(5);
/// More than any search takes: 2^24 by doubling, and bisection to half a percent.
const STEPS_MAX: usize = 100;
/// Per second.
const RATE_LEAST: f64 = 0.1;
const RATE_MOST: f64 = 10_000_000.0;
/// Up to this share of the bound there is room for much more.
const EASILY: f64 = 0.25;
/// Over the bound by less than this factor a step is tried again.
const NARROWLY: f64 = 2.0;
