//! The run on a terminal: a screen of its own while it lasts, and nothing left of it afterwards.
//!
//! Knows: the terminal, what to draw where. Must not know: how figures come about.
//!
//! The terminal's input stays as it is: Ctrl-C is a signal as ever, and the run's to notice.

use std::io::{Stdout, stdout};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Sparkline};
use ratatui::{Frame, Terminal};

use super::histogram::{bar, buckets};
use super::wrong;
use crate::clock::NANOS_PER_MILLI;
use crate::report::words::{bytes, count, duration};
use crate::timeline::{Latencies, Row};
use crate::watch::{Figures, Stage};

/// The terminal while it is ours.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    due_ns: u64,
}

impl Screen {
    /// `None` if the terminal can't do it.
    pub(crate) fn open() -> Option<Self> {
        if std::env::var_os("TERM").is_none_or(|name| name == "dumb" || name.is_empty()) {
            return None;
        }
        let terminal = Terminal::new(CrosstermBackend::new(stdout())).ok()?;
        // From here on whatever happens is undone.
        let screen = Self { terminal, due_ns: 0 };
        execute!(stdout(), EnterAlternateScreen, Hide).ok()?;
        Some(screen)
    }

    /// Draws if it is time to.
    pub(crate) fn show(&mut self, figures: &Figures<'_>, now_ns: u64) {
        if now_ns < self.due_ns {
            return;
        }
        self.due_ns = now_ns + REDRAW_NS;
        // A terminal that has gone away is no reason to stop.
        let _ = self.terminal.draw(|frame| draw(frame, figures));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    }
}

fn draw(frame: &mut Frame<'_>, figures: &Figures<'_>) {
    let area = frame.area();
    let facts = facts(figures);
    let latency = latency(figures);
    let heights = [
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(facts.len() as u16 + 2),
        Constraint::Length(latency.len() as u16),
        Constraint::Min(0),
    ];
    let [title, progress, middle, table, charts] = Layout::vertical(heights).areas(area);
    frame.render_widget(heading(figures, title.width), title);
    frame.render_widget(gauge(figures, progress.width), progress);
    frame.render_widget(Paragraph::new(facts).block(Block::new().padding(SPACED)), middle);
    frame.render_widget(Paragraph::new(latency), table);
    if !latency_known(figures) {
        return;
    }
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).spacing(2).areas(charts);
    shape(frame, figures, left);
    let [upper, lower] = Layout::vertical([Constraint::Fill(1); 2]).areas(right);
    over_time(frame, figures, upper, "deliveries/s", Color::Green, |row| row.deliveries);
    over_time(frame, figures, lower, "p99", Color::Yellow, |row| row.latency.p99_ns);
}

fn heading(figures: &Figures<'_>, width: u16) -> Line<'static> {
    let stage = figures.stage.as_str();
    let elapsed_s = figures.elapsed_s;
    let time = match figures.lasts_s {
        Some(lasts_s) => format!("{elapsed_s:.0} s, {:.0} s left", (lasts_s - elapsed_s).max(0.0)),
        None => format!("{elapsed_s:.0} s"),
    };
    let hint = match figures.metrics {
        Some(address) => format!("metrics at {address}, Ctrl-C: report now "),
        None => "Ctrl-C: report now ".to_owned(),
    };
    let left = format!(" loadgen  {stage}  {time}");
    let gap = usize::from(width).saturating_sub(left.chars().count() + hint.chars().count());
    Line::from(vec![
        " loadgen  ".bold().cyan(),
        Span::from(stage).bold(),
        format!("  {time}").into(),
        " ".repeat(gap).into(),
        hint.dim(),
    ])
}

/// How much of the stage is over: of the connections, or of the time.
fn gauge(figures: &Figures<'_>, width: u16) -> Line<'static> {
    let share = match (figures.stage, figures.lasts_s) {
        (Stage::Connecting, _) => figures.open as f64 / figures.connections.max(1) as f64,
        (_, Some(lasts_s)) => figures.elapsed_s / lasts_s.max(0.001),
        (_, None) => return Line::default(),
    };
    let width = usize::from(width).saturating_sub(2);
    let filled = bar(share.clamp(0.0, 1.0), width);
    let rest = width.saturating_sub(filled.chars().count());
    Line::from(vec![" ".into(), filled.cyan(), "·".repeat(rest).dim()])
}

fn facts(figures: &Figures<'_>) -> Vec<Line<'static>> {
    let ended = figures.failed + figures.closed;
    let mut lines = vec![fact(
        "connections",
        format!(
            "{} of {} open, {} failed, {} ended by the server",
            count(figures.open),
            count(figures.connections),
            count(figures.failed),
            count(figures.closed)
        ),
        if ended > 0 { BAD } else { PLAIN },
    )];
    if figures.stage != Stage::Connecting {
        traffic(&mut lines, figures);
    }
    cost(&mut lines, figures);
    lines
}

fn fact(name: &'static str, text: String, style: Style) -> Line<'static> {
    Line::from(vec![Span::from(format!(" {name:<13}")).dim(), Span::styled(text, style)])
}

fn traffic(lines: &mut Vec<Line<'static>>, figures: &Figures<'_>) {
    let row = figures.recent.back().copied().unwrap_or_default();
    let publishes = figures.threads.iter().any(|&(publishes, _)| publishes);
    if !publishes && figures.received == 0 {
        return;
    }
    if publishes {
        let text = format!("{}/s, {} in all", count(row.published), count(figures.published));
        lines.push(fact("published", text, PLAIN));
    }
    lines.push(fact(
        "delivered",
        format!(
            "{}/s, {} in all, {}/s",
            count(row.deliveries),
            count(figures.received),
            bytes(row.wire_bytes)
        ),
        PLAIN,
    ));
    let wrong = wrong(figures);
    lines.push(match wrong.is_empty() {
        true => fact("lost", "nothing so far".to_owned(), GOOD),
        false => fact("wrong", wrong, BAD),
    });
}

fn cost(lines: &mut Vec<Line<'static>>, figures: &Figures<'_>) {
    if let Some(server) = &figures.server {
        let text = format!("{:.2} processors, {} resident", server.cpus, bytes(server.rss_bytes));
        lines.push(fact("server", text, PLAIN));
    }
    if figures.stage == Stage::Connecting {
        return;
    }
    let is_limit = figures.threads.iter().any(|&(_, busy)| busy > OWN_BUSY_SHARE_MAX);
    let busy = |&(publishes, busy): &(bool, f64)| {
        let what = if publishes { "publishing" } else { "receiving" };
        format!("{what} {:.0} %", busy * 100.0)
    };
    let mut own: Vec<_> = figures.threads.iter().take(THREADS_SHOWN).map(busy).collect();
    if figures.threads.len() > THREADS_SHOWN {
        own.push("…".to_owned());
    }
    lines.push(fact("own threads", own.join(", "), if is_limit { BAD } else { PLAIN }));
}

fn latency_known(figures: &Figures<'_>) -> bool {
    !figures.run.is_empty()
}

/// Percentiles of the last second and of the run.
fn latency(figures: &Figures<'_>) -> Vec<Line<'static>> {
    if !latency_known(figures) {
        return Vec::new();
    }
    let last = figures.recent.back().map_or_else(Latencies::default, |row| row.latency);
    let run = Latencies::of(figures.run, figures.run.max());
    let head = format!(" {:<13}{:>14}{:>14}", "latency", "last second", "whole run");
    let mut lines = vec![Line::from(head.bold())];
    for (name, last_ns, run_ns) in [
        ("p50", last.p50_ns, run.p50_ns),
        ("p99", last.p99_ns, run.p99_ns),
        ("p99.9", last.p99_9_ns, run.p99_9_ns),
        ("max", last.max_ns, run.max_ns),
    ] {
        let last = if last.count > 0 { duration(last_ns) } else { "–".to_owned() };
        lines.push(Line::from(vec![
            Span::from(format!("   {name:<11}")).dim(),
            format!("{last:>14}{:>14}", duration(run_ns)).into(),
        ]));
    }
    lines.push(Line::default());
    lines
}

/// How the run's latencies are spread.
fn shape(frame: &mut Frame<'_>, figures: &Figures<'_>, area: Rect) {
    let block = Block::bordered().title(" latencies of the run ").border_style(Style::new().dim());
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let found = buckets(figures.run, usize::from(inside.height));
    let most = found.iter().map(|bucket| bucket.count).max().unwrap_or(1).max(1);
    let width = usize::from(inside.width).saturating_sub(BUCKET_TEXT_WIDTH);
    let line = |bucket: &super::histogram::Bucket| {
        let filled = bar(bucket.count as f64 / most as f64, width);
        let rest = width.saturating_sub(filled.chars().count());
        let share = bucket.count as f64 * 100.0 / figures.run.len().max(1) as f64;
        Line::from(vec![
            Span::from(format!("{:>9} ", format!("< {}", bucket.below))).dim(),
            filled.cyan(),
            " ".repeat(rest).into(),
            format!("{share:>8.3} %").into(),
        ])
    };
    frame.render_widget(Paragraph::new(found.iter().map(line).collect::<Vec<_>>()), inside);
}

/// One figure of the last seconds, as many as there is room for.
fn over_time(
    frame: &mut Frame<'_>,
    figures: &Figures<'_>,
    area: Rect,
    name: &str,
    color: Color,
    figure: impl Fn(&Row) -> u64,
) {
    let width = usize::from(area.width.saturating_sub(2));
    let skipped = figures.recent.len().saturating_sub(width);
    let data: Vec<u64> = figures.recent.iter().skip(skipped).map(figure).collect();
    let most = data.iter().copied().max().unwrap_or(0);
    let most = if name == "p99" { duration(most) } else { count(most) };
    let title = format!(" {name}, highest {most} ");
    let block = Block::bordered().title(title).border_style(Style::new().dim());
    frame.render_widget(Sparkline::default().block(block).data(&data).style(color), area);
}

const PLAIN: Style = Style::new();
const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
/// Figures change once a second; time passes.
const REDRAW_NS: u64 = 200 * NANOS_PER_MILLI;
const SPACED: ratatui::widgets::Padding = ratatui::widgets::Padding::vertical(1);
/// A busier thread is the limit of what it measures.
const OWN_BUSY_SHARE_MAX: f64 = 0.95;
const THREADS_SHOWN: usize = 6;
/// Beside a bucket's bar.
const BUCKET_TEXT_WIDTH: usize = 20;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use ratatui::backend::TestBackend;

    use super::*;
    use crate::verify::Faults;

    fn drawn(figures: &Figures<'_>, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a size");
        terminal.draw(|frame| draw(frame, figures)).expect("memory");
        terminal.backend().to_string()
    }

    #[test]
    fn everything_is_there_on_a_usual_terminal_and_a_small_one_is_no_fault() {
        let mut run = crate::record::histogram();
        let mut recent = VecDeque::new();
        for second in 1..=90u64 {
            run.saturating_record(second * 100_000);
            let latency = Latencies::of(&run, run.max());
            recent.push_back(Row { deliveries: 5000, published: 20, wire_bytes: 700_000, latency });
        }
        let mut figures = Figures {
            stage: Stage::Measuring,
            elapsed_s: 12.0,
            lasts_s: Some(60.0),
            connections: 250,
            open: 250,
            opening: 0,
            failed: 0,
            closed: 0,
            published: 1800,
            received: 450_000,
            received_bytes: 60_000_000,
            faults: Faults::default(),
            gaps_open: 0,
            recent: &recent,
            run: &run,
            server: None,
            threads: vec![(true, 0.01), (false, 0.34)],
            metrics: None,
        };
        let text = drawn(&figures, 80, 24);
        for part in [
            "measuring  12 s, 48 s left",
            "250 of 250 open",
            "20/s, 1,800 in all",
            "5,000/s, 450,000 in all",
            "nothing so far",
            "publishing 1 %, receiving 34 %",
            "whole run",
            "p99.9",
            "latencies of the run",
            "deliveries/s",
            "█",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        figures.faults.lost = 3;
        let text = drawn(&figures, 80, 24);
        assert!(text.contains("3 lost") && !text.contains("nothing so far"), "{text}");
        figures.stage = Stage::Connecting;
        for (width, height) in [(1, 1), (20, 4), (40, 10), (300, 90)] {
            drawn(&figures, width, height);
        }
    }
}
