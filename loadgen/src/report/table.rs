//! The report for people: loss first, then latency, then what it cost.
//!
//! Knows: how figures are written. Must not know: where they come from.

use std::fmt::Write as _;

use super::words::{bytes, duration};
use super::{Deflate, Report, books, changes, conduct, steps};
use crate::verify::Faults;

/// The whole report. Writing to a string can't fail, hence the many `let _`.
pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    let machine = &report.machine;
    let _ = writeln!(
        out,
        "loadgen {} ({} build), Linux {}, {}, {} processors\n$ {}\n",
        machine.version,
        machine.build,
        machine.kernel,
        machine.cpu,
        machine.cpus,
        machine.command.join(" ")
    );
    traffic(&mut out, report);
    if report.faults.is_clean() && report.connections.subscribers > 0 {
        let _ = writeln!(
            out,
            "lost          nothing; none doubled, reordered or damaged{}",
            skipped(&report.faults)
        );
    }
    for note in &report.notes {
        let _ = writeln!(
            out,
            "{}{note}",
            if report.clean { "note          " } else { "!             " }
        );
    }
    offenders(&mut out, report);
    if let Some(found) = &report.books {
        books::text(&mut out, found);
    }
    latency(&mut out, report);
    steps::text(&mut out, &report.steps);
    if let Some(found) = &report.find_max {
        found.text(&mut out);
    }
    cost(&mut out, report);
    out
}

/// What was wrong, in words.
pub(super) fn faults(faults: &Faults) -> String {
    let figures = [
        (faults.lost, "lost"),
        (faults.duplicated, "doubled"),
        (faults.reordered, "reordered"),
        (faults.damaged, "damaged"),
        (faults.misnamed, "under a wrong topic or number"),
        (faults.foreign, "not subscribed to"),
    ];
    let parts: Vec<_> = figures
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    parts.join(", ") + &skipped(faults)
}

fn skipped(faults: &Faults) -> String {
    match faults.skipped {
        0 => String::new(),
        skipped => format!("; {skipped} skipped on value topics, as allowed"),
    }
}

fn traffic(out: &mut String, report: &Report) {
    let connections = &report.connections;
    let mut parts = vec![format!("{} subscribers", connections.subscribers)];
    for (count, what) in [
        (connections.churning, "of them coming and going"),
        (connections.slow, "reading slowly"),
        (connections.stalled, "never reading"),
        (connections.idle, "idle"),
        (connections.publishers, "publishers"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let _ = writeln!(out, "connections   {}", parts.join(", "));
    let handshake = &report.handshake;
    let connect = &report.conduct.connect;
    let _ = writeln!(
        out,
        "connecting    {:.2} s; TCP after p50 {} p99 {} max {}, upgrade answered after p50 {} p99 {} max {}",
        connections.connecting_s,
        duration(connect.p50_ns),
        duration(connect.p99_ns),
        duration(connect.max_ns),
        duration(handshake.p50_ns),
        duration(handshake.p99_ns),
        duration(handshake.max_ns)
    );
    let deliveries = &report.deliveries;
    if report.connections.publishers == 0 {
        let counts = &deliveries.counts;
        let other = counts.messages + counts.control_messages;
        let _ = writeln!(out, "held          {:.1} s; {other} messages", deliveries.window_s);
        return;
    }
    let _ = writeln!(out, "published     {} messages", report.published.published);
    conduct::sending(out, &report.conduct);
    if connections.subscribers == 0 {
        return;
    }
    let _ = writeln!(
        out,
        "delivered     {} messages, {} of payload; in the {:.1} s measured {:.0}/s",
        deliveries.counts.messages,
        bytes(deliveries.counts.payload_bytes),
        deliveries.window_s,
        deliveries.per_s
    );
    conduct::silence(out, &report.conduct);
    if let Some(posts) = &report.posts {
        let _ = writeln!(out, "answers       {}", posts.text());
    }
    if connections.churning > 0 {
        let _ = writeln!(out, "churn         {} lives begun while running", connections.lives);
    }
    if let Some(found) = &report.changes {
        changes::text(out, found);
    }
    if let Some(deflate) = &report.deflate {
        compression(out, deflate);
    }
}

fn compression(out: &mut String, deflate: &Deflate) {
    let counts = &deflate.counts;
    let _ = write!(
        out,
        "deflate       agreed on {} of {} times; {} messages came compressed",
        deflate.agreed, deflate.offered, counts.messages
    );
    let _ = match deflate.ratio() {
        Some(ratio) => writeln!(
            out,
            ", {} for {} ({:.0} %)",
            bytes(counts.compressed_bytes),
            bytes(counts.inflated_bytes),
            ratio * 100.0
        ),
        None => writeln!(out),
    };
}

fn offenders(out: &mut String, report: &Report) {
    for missed in report.missed.iter().take(OFFENDERS_SHOWN) {
        let stream = report.streams.get(usize::from(missed.stream)).map_or("?", String::as_str);
        let _ = writeln!(
            out,
            "  connection {} missed {} to {} of {stream}",
            missed.connection, missed.from, missed.to
        );
    }
    if report.missed.len() > OFFENDERS_SHOWN {
        let more = report.missed.len() - OFFENDERS_SHOWN;
        let _ = writeln!(out, "  and {more} more, all of them in the --json file");
    }
}

fn latency(out: &mut String, report: &Report) {
    let (corrected, uncorrected) = (&report.latency.corrected, &report.latency.uncorrected);
    if corrected.count == 0 {
        return;
    }
    let _ = writeln!(out, "\nlatency       from intended time    from actual sending");
    for (name, first, second) in [
        ("p50", corrected.p50_ns, uncorrected.p50_ns),
        ("p90", corrected.p90_ns, uncorrected.p90_ns),
        ("p99", corrected.p99_ns, uncorrected.p99_ns),
        ("p99.9", corrected.p99_9_ns, uncorrected.p99_9_ns),
        ("p99.99", corrected.p99_99_ns, uncorrected.p99_99_ns),
        ("p99.999", corrected.p99_999_ns, uncorrected.p99_999_ns),
        ("max", corrected.max_ns, uncorrected.max_ns),
        ("mean", corrected.mean_ns as u64, uncorrected.mean_ns as u64),
    ] {
        let (first, second) = (duration(first), duration(second));
        let _ = writeln!(out, "  {name:<10} {first:>18} {second:>22}");
    }
    if let Some(spread) = &report.spread {
        let of = |us: u32| duration(u64::from(us) * 1000);
        let _ = writeln!(
            out,
            "\none publication reaches its first subscriber after {}, half of them after {}, the last after {}\n\
             (medians of {} publications; the slowest took {})",
            of(spread.first_us),
            of(spread.median_us),
            of(spread.last_us),
            spread.samples,
            of(spread.last_us_max)
        );
    }
    if let Some(fairness) = &report.fairness {
        let _ = writeln!(
            out,
            "mean place in the order of delivery, over {} subscribers: {:.2} to {:.2} (standard deviation {:.3})",
            fairness.subscribers,
            fairness.mean_place_min,
            fairness.mean_place_max,
            fairness.mean_place_stddev
        );
    }
}

fn cost(out: &mut String, report: &Report) {
    out.push('\n');
    if let Some(server) = &report.server {
        if report.deliveries.window_messages > 0 {
            let _ = writeln!(
                out,
                "server        {:.0} ns of processor time per delivery, {:.0} % of it in user space",
                server.cpu_ns_per_delivery,
                server.user_share * 100.0,
            );
        }
        let _ = write!(
            out,
            "server        {:.3} processors busy, {} resident",
            server.cpus,
            bytes(server.rss_bytes)
        );
        let _ = match server.rss_bytes_per_connection {
            Some(each) => writeln!(out, ", {each:.0} B more with each connection"),
            None => writeln!(out),
        };
        if let Some(each) = server.cpu_ns_per_connect {
            let _ =
                writeln!(out, "server        {each:.0} ns of processor time to open a connection");
        }
    }
    for usage in &report.threads {
        let what = if usage.publishes { "publishing" } else { "receiving" };
        let _ = writeln!(
            out,
            "loadgen       {what} thread: {:.0} % on a processor, {:.0} % waiting for one",
            usage.cpu_ns as f64 * 100.0 / usage.wall_ns.max(1) as f64,
            usage.queued_ns as f64 * 100.0 / usage.wall_ns.max(1) as f64
        );
    }
    if let Some(own) = &report.own
        && let Some(each) = own.rss_bytes_per_connection
    {
        let resident = bytes(own.rss_bytes);
        let _ = writeln!(out, "loadgen       {resident} resident, {each:.0} B for each connection");
    }
    let cpu_ns: u64 = report.threads.iter().map(|usage| usage.cpu_ns).sum();
    if report.deliveries.window_messages > 0 {
        let messages = report.deliveries.window_messages as f64;
        let _ = writeln!(out, "loadgen       {:.0} ns per delivery", cpu_ns as f64 / messages);
    }
}

/// In the table; all are in the JSON file.
const OFFENDERS_SHOWN: usize = 10;
