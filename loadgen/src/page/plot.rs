//! Curves as SVG, for light and dark alike: the page's style replaces the colours by name.
//!
//! Knows: points, axes, colours. Must not know: what the points are of.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use crate::report::words::count;

/// A curve.
pub(super) struct Series {
    /// In the legend, which is the page's.
    pub(super) name: String,
    /// Which of the colours.
    pub(super) color: usize,
    /// By x.
    pub(super) points: Vec<(f64, f64)>,
    /// From the lower end of each stretch to the upper, instead of through the points.
    pub(super) stretches: Vec<(f64, f64, f64)>,
}

impl Series {
    pub(super) fn line(name: &str, color: usize, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), color, points, stretches: Vec::new() }
    }
}

/// What the numbers of an axis are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// How many.
    Count,
    /// Durations, ns.
    Nanos,
    /// log10(1 / (1 - quantile)).
    Nines,
    /// Places in a list.
    Place,
    /// Times, s.
    Seconds,
}

impl Unit {
    fn label(self, value: f64) -> String {
        match self {
            Self::Count => count(value.round() as u64),
            Self::Nanos => short_duration(value),
            Self::Nines => nines(value),
            Self::Place => format!("{value:.0}"),
            Self::Seconds => format!("{value:.0} s"),
        }
    }
}

/// The plot; `None` if there is nothing to draw.
pub(super) fn svg(series: &[Series], x: Unit, y: Unit) -> Option<String> {
    let all = || {
        let ends = |&(at, low, high): &(f64, f64, f64)| [(at, low), (at, high)];
        series.iter().flat_map(move |curve| {
            curve.points.iter().copied().chain(curve.stretches.iter().flat_map(ends))
        })
    };
    let least = |value: fn((f64, f64)) -> f64| all().map(value).reduce(f64::min);
    let most = |value: fn((f64, f64)) -> f64| all().map(value).reduce(f64::max);
    let (left, right) = (least(|point| point.0)?, most(|point| point.0)?);
    let (low, high) = (least(|point| point.1)?, most(|point| point.1)?);
    let range = match x {
        Unit::Nines | Unit::Seconds => 0.0..right.max(1.0),
        _ => left..right.max(left + 1.0),
    };
    let mut out = String::new();
    let area = SVGBackend::with_string(&mut out, (WIDTH, HEIGHT)).into_drawing_area();
    // A curve over decades shows its lower part on a logarithmic axis only.
    let drawn = if y == Unit::Nanos && low > 0.0 && high / low > DECADES_FROM {
        let decade = |value: f64, round: fn(f64) -> f64| 10f64.powf(round(value.log10()));
        let from = decade(low, f64::floor);
        let to = decade(high, f64::ceil).max(from * 10.0);
        draw(&area, series, range, (from..to).log_scale(), x, y)
    } else {
        draw(&area, series, range, 0.0..(high * 1.05).max(1.0), x, y)
    };
    drawn.and_then(|()| area.present()).ok()?;
    drop(area);
    Some(out)
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw<Y>(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    series: &[Series],
    range: std::ops::Range<f64>,
    y_range: Y,
    x: Unit,
    y: Unit,
) -> Drawn
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let ticks = if x == Unit::Nines { range.end as usize + 1 } else { 10 };
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(40)
        .x_label_area_size(28)
        .y_label_area_size(76)
        .build_cartesian_2d(range, y_range)?;
    let text = ("sans-serif", 13).into_font().color(&TEXT);
    chart
        .configure_mesh()
        .x_labels(ticks)
        .y_labels(7)
        .x_label_formatter(&|value| x.label(*value))
        .y_label_formatter(&|value| y.label(*value))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .label_style(text)
        .draw()?;
    for curve in series {
        let color = COLORS[curve.color % COLORS.len()];
        let stretch = |&(at, low, high): &(f64, f64, f64)| {
            PathElement::new(vec![(at, low), (at, high)], color.stroke_width(2))
        };
        chart.draw_series(curve.stretches.iter().map(stretch))?;
        let points = curve.points.iter().copied();
        if !curve.stretches.is_empty() {
            chart.draw_series(points.map(|point| Circle::new(point, 2, TEXT.filled())))?;
            continue;
        }
        chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?;
        if curve.points.len() <= DOTS_MAX && x != Unit::Nines {
            chart.draw_series(points.map(|point| Circle::new(point, 2, color.filled())))?;
        }
    }
    Ok(())
}

/// Without digits that say nothing.
fn short_duration(ns: f64) -> String {
    let (value, unit) = match ns {
        _ if ns < 1e3 => (ns, "ns"),
        _ if ns < 1e6 => (ns / 1e3, "µs"),
        _ if ns < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let text = format!("{value:.2}");
    format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// 0 %, 90 %, 99 %, 99.9 %, …
fn nines(place: f64) -> String {
    match place.round() as usize {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat(more - 2)),
    }
}

/// Where a quantile stands on an axis of [`Unit::Nines`]; the last of `count` values, where the
/// formula has infinity, half a value before the end.
pub(super) fn place_of(quantile: f64, count: f64) -> f64 {
    let rest = (1.0 - quantile).max(0.5 / count.max(1.0));
    -rest.log10()
}

/// What a series is called, with its colour, for the legend.
pub(super) fn color_class(color: usize) -> String {
    format!("c{}", color % COLORS.len())
}

const WIDTH: u32 = 920;
const HEIGHT: u32 = 340;
/// More of them are a line already.
const DOTS_MAX: usize = 60;
/// From such a ratio of the highest to the lowest on.
const DECADES_FROM: f64 = 30.0;
const TEXT: RGBColor = RGBColor(0x44, 0x4C, 0x56);
const AXIS: RGBColor = RGBColor(0x9A, 0xA4, 0xAF);
const GRID: RGBColor = RGBColor(0xE1, 0xE5, 0xEA);
/// The page's style knows each by its number.
const COLORS: [RGBColor; 8] = [
    RGBColor(0x1F, 0x6F, 0xEB),
    RGBColor(0xD9, 0x6C, 0x06),
    RGBColor(0x0A, 0x8F, 0x6B),
    RGBColor(0xC7, 0x2C, 0x7C),
    RGBColor(0x7A, 0x4D, 0xD8),
    RGBColor(0x0B, 0x86, 0xA8),
    RGBColor(0x6B, 0x8E, 0x09),
    RGBColor(0xCF, 0x22, 0x2E),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_speak_in_percentiles_and_units() {
        let labels = [0.0, 1.0, 2.0, 3.0, 5.0].map(nines);
        assert_eq!(labels, ["0 %", "90 %", "99 %", "99.9 %", "99.999 %"]);
        assert!((place_of(0.99, 1e6) - 2.0).abs() < 1e-9);
        assert!((place_of(1.0, 500.0) - 3.0).abs() < 1e-9);
        assert_eq!(short_duration(2_500_000.0), "2.5 ms");
        assert_eq!(short_duration(100_000.0), "100 µs");
    }

    #[test]
    fn nothing_to_draw_is_no_plot_and_one_point_is() {
        assert!(svg(&[], Unit::Seconds, Unit::Count).is_none());
        let one = Series::line("a", 0, vec![(0.0, 0.0)]);
        let text = svg(&[one], Unit::Seconds, Unit::Nanos).expect("a plot");
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
        let points = vec![(0.0, 50_000.0), (1.0, 200_000_000.0)];
        let text = svg(&[Series::line("a", 1, points)], Unit::Seconds, Unit::Nanos);
        let text = text.expect("a plot");
        assert!(text.contains("#D96C06") && text.contains("1 ms"), "{text}");
    }
}
