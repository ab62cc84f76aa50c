//! Where log lines go: to stderr, by a thread of their own.
//!
//! Knows: formats, filters, and that no reactor may wait for a terminal. Must not know: what is
//! logged. Between whoever logs and the writing thread stands a bounded queue; when it is full, a
//! line is dropped and counted, so that a stuck pipe costs lines and not latency.

use std::io::{self, IsTerminal, Write};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people; coloured on a terminal.
    #[default]
    Text,
}

/// Keeps logging going; dropping it writes out what is queued (waiting a second at most).
#[derive(Debug)]
pub struct Logging {
    dropped: DroppedLines,
    _writer: WorkerGuard,
}

impl Logging {
    /// The count of lines dropped, for whoever reports it.
    pub fn dropped(&self) -> DroppedLines {
        self.dropped.clone()
    }
}

/// How many lines were dropped because the queue was full.
#[derive(Clone, Debug)]
pub struct DroppedLines(ErrorCounter);

impl DroppedLines {
    /// Since the start.
    pub fn count(&self) -> u64 {
        self.0.dropped_lines() as u64
    }
}

/// Starts logging to stderr for the whole process.
///
/// # Errors
/// The filter is not one, or logging was started before.
pub fn start(format: LogFormat, filter: &str) -> Result<Logging, LoggingError> {
    let filter = EnvFilter::builder().parse(filter).map_err(|_| LoggingError::Filter)?;
    let (writer, guard) = lossy(io::stderr());
    let dropped = DroppedLines(writer.error_counter());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init(),
    }
    .map_err(|_| LoggingError::Twice)?;
    Ok(Logging { dropped, _writer: guard })
}

/// A bounded queue to this sink, and the thread that empties it.
fn lossy(sink: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .thread_name("log")
        .finish(sink)
}

/// Whether this is a level or a filter.
///
/// # Errors
/// What would be right.
pub fn check_filter(text: &str) -> Result<(), String> {
    let wanted = || {
        "wants error, warn, info, debug, trace, or a filter such as info,uringcast::control=debug"
            .to_owned()
    };
    // A bare word that is no level would be taken for the name of a module, and silence all others.
    let level = |part: &str| part.parse::<tracing::level_filters::LevelFilter>().is_ok();
    let good = |part: &str| !part.is_empty() && (level(part) || part.contains('='));
    if !text.split(',').map(str::trim).all(good) {
        return Err(wanted());
    }
    EnvFilter::builder().parse(text).map(drop).map_err(|_| wanted())
}

/// Why logging did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoggingError {
    /// Not a level, not a filter.
    #[error("the log filter is not one")]
    Filter,
    /// Only one per process.
    #[error("logging was started before")]
    Twice,
}

/// Lines that may wait for the writing thread: with 200 bytes each, 1.6 MB.
const LINES_MAX: usize = 8_192;

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    /// A pipe that nobody reads.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Until the test lets go.
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_is_stuck_costs_lines_and_nobody_waits() {
        let (release, stuck) = mpsc::channel();
        let (writer, guard) = lossy(Stuck(stuck));
        let dropped = DroppedLines(writer.error_counter());
        let (done, told) = mpsc::channel();
        let logging = thread::spawn(move || {
            tracing::subscriber::with_default(
                tracing_subscriber::fmt().with_writer(writer).finish(),
                || (0..2 * LINES_MAX).for_each(|n| tracing::warn!(n, "nobody reads this")),
            );
            let _ = done.send(());
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(()), "it did not wait");
        // One line is in the sink's hands.
        let kept = LINES_MAX as u64 + 1;
        assert!(dropped.count() >= 2 * LINES_MAX as u64 - kept, "{}", dropped.count());
        drop(release);
        logging.join().expect("it has ended");
        drop(guard);
    }

    #[test]
    fn filters() {
        for good in ["info", "WARN", "off", "info,uringcast::control=debug", "uringcast=trace"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["", "loud", "info,", "info,x=loud", "="] {
            let error = check_filter(bad).expect_err(bad);
            assert!(error.contains("wants error, warn, info"), "{bad}: {error}");
        }
    }
}
