//! The run's figures as Prometheus text, for whoever asks while it runs.
//!
//! Knows: the text format, HTTP's simplest form. Must not know: how figures come about.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};

use hdrhistogram::Histogram;
use tiny_http::{Header, Method, Response, Server};

use crate::failure::Failure;
use crate::watch::Figures;

/// Its server: bound at first, serving later.
pub(crate) struct Metrics {
    address: SocketAddr,
    listener: Option<TcpListener>,
    /// Connections are accepted by a thread of the library's; answers are written when
    /// [`Self::answer`] is called.
    server: Option<Server>,
}

impl Metrics {
    /// # Errors
    /// The address is not ours to have: the flag's mistake.
    pub(crate) fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let refused = |error: std::io::Error| {
            let right = format!("a free address of this machine ({error})");
            Failure::usage("--metrics", address, &right)
        };
        let listener = TcpListener::bind(address).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { address, listener: Some(listener), server: None })
    }

    /// Begins to serve. To be called when signals are held back: the library's threads inherit it.
    pub(crate) fn serve(&mut self) {
        if let Some(listener) = self.listener.take() {
            // A run without metrics is still a run.
            self.server = Server::from_listener(listener, None).ok();
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers those who have asked since.
    pub(crate) fn answer(&self, figures: &Figures<'_>) {
        for _ in 0..ANSWERS_MAX {
            let Some(server) = &self.server else { return };
            let Ok(Some(request)) = server.try_recv() else { return };
            let path = request.url().split('?').next().unwrap_or_default();
            // Who has gone meanwhile misses nothing.
            let _ = match (request.method(), path) {
                (Method::Get | Method::Head, "/metrics" | "/") => {
                    let content_type = Header::from_bytes("Content-Type", CONTENT_TYPE)
                        .expect("a constant that is a legal field");
                    let page = Response::from_string(text(figures)).with_header(content_type);
                    request.respond(page)
                }
                (Method::Get | Method::Head, _) => {
                    let page = Response::from_string("the figures are at /metrics\n");
                    request.respond(page.with_status_code(404))
                }
                _ => request.respond(Response::empty(405)),
            };
        }
    }
}

/// The figures in the text format, version 0.0.4.
fn text(figures: &Figures<'_>) -> String {
    let mut out = String::with_capacity(4096);
    let faults = &figures.faults;
    for (name, shape, value, help) in [
        ("published_total", "counter", figures.published, "Publications given to the kernel."),
        ("deliveries_total", "counter", figures.received, "Messages received."),
        ("received_bytes_total", "counter", figures.received_bytes, "Bytes received."),
        ("lost_total", "counter", faults.lost, "Deliveries that can no longer come."),
        ("duplicated_total", "counter", faults.duplicated, "Publications delivered again."),
        ("reordered_total", "counter", faults.reordered, "Delivered after a later one."),
        ("damaged_total", "counter", faults.damaged, "Payloads that are none of those published."),
        ("gaps_open", "gauge", figures.gaps_open, "Ranges skipped that may still come."),
        ("connections_open", "gauge", figures.open, "Connections open."),
        ("connections_opening", "gauge", figures.opening, "Connections still to be opened."),
        ("connections_failed_total", "counter", figures.failed, "Connections that never opened."),
        ("connections_closed_total", "counter", figures.closed, "Ended by the server."),
    ] {
        head(&mut out, name, shape, help);
        // Writing to a string can't fail.
        let _ = writeln!(out, "loadgen_{name} {value}");
    }
    latency(&mut out, figures.run);
    head(&mut out, "thread_busy_ratio", "gauge", "Share of the last second with work, by thread.");
    for (number, &(publishes, busy)) in figures.threads.iter().enumerate() {
        let role = if publishes { "publishing" } else { "receiving" };
        let _ = writeln!(
            out,
            "loadgen_thread_busy_ratio{{thread=\"{number}\",role=\"{role}\"}} {busy:.4}"
        );
    }
    if let Some(server) = &figures.server {
        head(&mut out, "server_cpus", "gauge", "Processors busy with the server's process.");
        let _ = writeln!(out, "loadgen_server_cpus {:.4}", server.cpus);
        head(&mut out, "server_resident_bytes", "gauge", "Its resident memory.");
        let _ = writeln!(out, "loadgen_server_resident_bytes {}", server.rss_bytes);
    }
    out
}

fn head(out: &mut String, name: &str, shape: &str, help: &str) {
    let _ = writeln!(out, "# HELP loadgen_{name} {help}\n# TYPE loadgen_{name} {shape}");
}

/// Buckets at 1, 2.5 and 5 of every power of ten.
fn latency(out: &mut String, run: &Histogram<u64>) {
    let name = "latency_seconds";
    head(out, name, "histogram", "From the intended time of publishing, of the measured window.");
    let mut recorded = run.iter_recorded().peekable();
    let (mut count, mut sum) = (0, 0.0);
    for bound_ns in BOUNDS_NS {
        while let Some(step) = recorded.next_if(|step| step.value_iterated_to() <= bound_ns) {
            count += step.count_at_value();
            sum += step.value_iterated_to() as f64 / 1e9 * step.count_at_value() as f64;
        }
        let bound_s = bound_ns as f64 / 1e9;
        let _ = writeln!(out, "loadgen_{name}_bucket{{le=\"{bound_s}\"}} {count}");
    }
    for step in recorded {
        sum += step.value_iterated_to() as f64 / 1e9 * step.count_at_value() as f64;
    }
    let _ = writeln!(
        out,
        "loadgen_{name}_bucket{{le=\"+Inf\"}} {count}\n\
         loadgen_{name}_sum {sum:.9}\n\
         loadgen_{name}_count {count}",
        count = run.len()
    );
}

const BOUNDS_NS: [u64; 18] = [
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Answered at a time: nobody can keep the run from going on.
const ANSWERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let mut run = crate::record::histogram();
        for value_ns in [90_000, 900_000, 900_000, 20_000_000_000] {
            run.saturating_record(value_ns);
        }
        let mut out = String::new();
        latency(&mut out, &run);
        let value = |name: &str| {
            let line = out.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.trim().parse::<f64>().expect("a number")
        };
        assert_eq!(value("loadgen_latency_seconds_bucket{le=\"0.00005\"}"), 0.0);
        assert_eq!(value("loadgen_latency_seconds_bucket{le=\"0.0001\"}"), 1.0);
        assert_eq!(value("loadgen_latency_seconds_bucket{le=\"0.001\"}"), 3.0);
        assert_eq!(value("loadgen_latency_seconds_bucket{le=\"10\"}"), 3.0);
        assert_eq!(value("loadgen_latency_seconds_bucket{le=\"+Inf\"}"), 4.0);
        assert_eq!(value("loadgen_latency_seconds_count"), 4.0);
        assert!((value("loadgen_latency_seconds_sum") - 20.00189).abs() < 0.03, "{out}");
    }
}
