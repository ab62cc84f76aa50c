//! Which curves a page has: of one run, or of several on the same axes.
//!
//! Knows: what of a report is drawn, and what a reader should know of it. Must not know: how a
//! curve is drawn.

use super::plot::{Series, Unit, color_class, place_of, svg};
use super::run::Run;

/// A plot with what stands around it.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) caption: String,
    /// Names and classes of colours.
    pub(super) legend: Vec<(String, String)>,
    pub(super) svg: String,
}

/// All that there is something to draw for.
pub(super) fn plots(runs: &[Run]) -> Vec<Plot> {
    let found = match runs {
        [run] => vec![percentiles(run), latency(run), deliveries(run), published(run), spread(run)],
        _ => several(runs),
    };
    found.into_iter().flatten().collect()
}

fn plot(title: &'static str, caption: &str, series: &[Series], x: Unit, y: Unit) -> Option<Plot> {
    let svg = svg(series, x, y)?;
    let legend = series.iter().map(|curve| (curve.name.clone(), color_class(curve.color)));
    let mut legend: Vec<_> = legend.collect();
    // Runs of one side share name and colour.
    legend.dedup();
    Some(Plot { title, caption: caption.to_owned(), legend, svg })
}

fn percentiles(run: &Run) -> Option<Plot> {
    let caption = "Corrected counts from the time at which a message should have been published, \
                   uncorrected from when it was: where they part, something stalled.";
    let series = [
        Series::line("uncorrected", 1, curve(run, "uncorrected")),
        Series::line("corrected", 0, curve(run, "corrected")),
    ];
    plot("Latency by percentile", caption, &series, Unit::Nines, Unit::Nanos)
}

fn latency(run: &Run) -> Option<Plot> {
    let line = |name, color, field| Series::line(name, color, latencies(run, field));
    let series = [line("max", 7, "max_ns"), line("p99", 0, "p99_ns"), line("p50", 2, "p50_ns")];
    let caption = warmup(run, "Corrected, of what came in each second");
    plot("Latency over time", &caption, &series, Unit::Seconds, Unit::Nanos)
}

fn deliveries(run: &Run) -> Option<Plot> {
    run.number("/deliveries/messages").filter(|&messages| messages > 0.0)?;
    let series = [Series::line("deliveries/s", 0, rates(run, "deliveries"))];
    let caption = warmup(run, "Messages received, by second");
    plot("Deliveries over time", &caption, &series, Unit::Seconds, Unit::Count)
}

fn published(run: &Run) -> Option<Plot> {
    run.number("/published/published").filter(|&messages| messages > 0.0)?;
    let series = [Series::line("publications/s", 3, rates(run, "published"))];
    let caption = "Given to the kernel by the publishers, by second.";
    plot("Publications over time", caption, &series, Unit::Seconds, Unit::Count)
}

fn spread(run: &Run) -> Option<Plot> {
    let ns = |field| {
        let points = run.points("/spread_samples", "number", field).into_iter();
        points.map(|(_, us)| us * 1000.0).collect::<Vec<_>>()
    };
    let (first, median, last) = (ns("first_us"), ns("median_us"), ns("last_us"));
    let mut series = Series::line("first to last", 5, Vec::new());
    for (at, ((first, median), last)) in first.iter().zip(median).zip(last).enumerate() {
        series.points.push((at as f64, median));
        series.stretches.push((at as f64, *first, last));
    }
    let caption = "Sampled publications in their order: each line goes from the latency of its first \
                   delivery to that of its last, the dot is the median.";
    let title = "From the first to the last subscriber";
    plot(title, caption, &[series], Unit::Place, Unit::Nanos)
}

fn several(runs: &[Run]) -> Vec<Option<Plot>> {
    let all = |points: &dyn Fn(&Run) -> Vec<(f64, f64)>| {
        let series = |run: &Run| Series::line(&run.side_name, run.side, points(run));
        runs.iter().map(series).collect::<Vec<_>>()
    };
    let curves = all(&|run| curve(run, "corrected"));
    let p99s = all(&|run| latencies(run, "p99_ns"));
    let deliveries = all(&|run| rates(run, "deliveries"));
    let intended = "Corrected: from the time at which a message should have been published.";
    vec![
        plot("Latency by percentile", intended, &curves, Unit::Nines, Unit::Nanos),
        plot("p99 over time", "Corrected, by second.", &p99s, Unit::Seconds, Unit::Nanos),
        plot("Deliveries over time", "Per second.", &deliveries, Unit::Seconds, Unit::Count),
    ]
}

fn curve(run: &Run, which: &str) -> Vec<(f64, f64)> {
    let total = run.number(&format!("/latency/{which}/count")).unwrap_or(1.0);
    let points = run.points(&format!("/curves/{which}"), "quantile", "ns").into_iter();
    points.map(|(quantile, ns)| (place_of(quantile, total), ns)).collect()
}

/// By step of the timeline, where there is one.
fn latencies(run: &Run, field: &str) -> Vec<(f64, f64)> {
    let points = run.points("/timeline/steps", "at_s", field).into_iter();
    points.filter(|&(_, ns)| ns > 0.0).collect()
}

/// The same as a rate. The last step is seldom a whole one: what it has is no rate.
fn rates(run: &Run, field: &str) -> Vec<(f64, f64)> {
    let step_s = run.number("/timeline/step_s").unwrap_or(1.0).max(1.0);
    let mut points = run.points("/timeline/steps", "at_s", field);
    if points.len() > 1 {
        points.pop();
    }
    points.into_iter().map(|(at, count)| (at, count / step_s)).collect()
}

/// The caption of a plot over time.
fn warmup(run: &Run, what: &str) -> String {
    match run.number("/timeline/warmup_s").filter(|&warmup_s| warmup_s > 0.0) {
        Some(warmup_s) => {
            format!("{what}. The first {warmup_s} s are the warm-up, which is not measured.")
        }
        None => format!("{what}."),
    }
}
