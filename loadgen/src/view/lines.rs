//! Progress as plain lines, for logs.
//!
//! Knows: which figures belong in a line. Must not know: terminals.

use crate::clock::NANOS_PER_SECOND;
use crate::report::words::{bytes, count, duration};
use crate::watch::{Figures, Stage};

/// What has been written so far.
#[derive(Default)]
pub(crate) struct Lines {
    stage: Option<Stage>,
    due_ns: u64,
    /// Of the present stage.
    lines: u32,
    metrics_told: bool,
}

impl Lines {
    /// Writes a line if it is time to.
    pub(crate) fn show(&mut self, figures: &Figures<'_>, now_ns: u64) {
        if let Some(address) = figures.metrics.filter(|_| !self.metrics_told) {
            self.metrics_told = true;
            eprintln!("metrics at http://{address}/metrics");
        }
        if self.stage != Some(figures.stage) {
            (self.stage, self.lines) = (Some(figures.stage), 0);
            self.due_ns = now_ns + NANOS_PER_SECOND;
            return;
        }
        if now_ns < self.due_ns {
            return;
        }
        // Often at first, when one wants to know whether it is right, then seldom.
        self.lines += 1;
        let seconds = if self.lines < OFTEN { 1 } else { SELDOM_S };
        self.due_ns += seconds * NANOS_PER_SECOND;
        eprintln!("{}", line(figures));
    }
}

fn line(figures: &Figures<'_>) -> String {
    let stage = figures.stage.as_str();
    let mut parts = vec![format!("{stage} {:.0} s", figures.elapsed_s)];
    if let Some(lasts_s) = figures.lasts_s {
        parts = vec![format!("{stage} {:.0} of {lasts_s:.0} s", figures.elapsed_s)];
    }
    let open = count(figures.open);
    if figures.stage == Stage::Connecting {
        parts.push(format!("{open} of {} connections open", count(figures.connections)));
    } else {
        parts.push(format!("{open} connections"));
    }
    for (number, what) in [(figures.failed, "failed"), (figures.closed, "closed")] {
        if number > 0 {
            parts.push(format!("{} {what}", count(number)));
        }
    }
    if let Some(row) = figures.recent.back().filter(|_| figures.stage != Stage::Connecting) {
        parts.push(format!(
            "{} published, {} delivered/s, {}/s",
            count(figures.published),
            count(row.deliveries),
            bytes(row.wire_bytes)
        ));
        let latency = &row.latency;
        if latency.count > 0 {
            parts.push(format!(
                "p50 {} p99 {} max {}",
                duration(latency.p50_ns),
                duration(latency.p99_ns),
                duration(latency.max_ns)
            ));
        }
    }
    let wrong = super::wrong(figures);
    if !wrong.is_empty() {
        parts.push(wrong);
    }
    if let Some(server) = &figures.server {
        parts.push(format!("server {:.2} cpus {}", server.cpus, bytes(server.rss_bytes)));
    }
    parts.join("; ")
}

/// So many lines of a stage come a second apart,
const OFTEN: u32 = 10;
/// and the others so far, s.
const SELDOM_S: u64 = 10;
