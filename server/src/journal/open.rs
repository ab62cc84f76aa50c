//! Opening a journal: its directory, its lock, and all that is in it.
//!
//! Knows: directories, files. Must not know: what is done with what is found.

use std::{
    fs,
    future::Future,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::{FlockOperation, flock};
use tracing::{info, warn};

use super::{
    Keep, KeepOf, Options,
    core::Core,
    disk::{self, Disk},
    figures::Figures,
    ledger::Ledger,
    restore::{Damage, Reading, Restored},
    segment::{self, Beginning, End, Records},
    shelf::{Segment, Shelf},
    writer::{self, Intake},
};
use crate::{clock, mail::JournalEntry};

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("--journal {}: another server uses it", directory.display())]
    Locked {
        /// The journal's directory.
        directory: PathBuf,
    },
    /// There is no room on the disk to begin a segment.
    #[error("--journal {}: the disk is full ({source})", directory.display())]
    Full {
        /// The journal's directory.
        directory: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A segment was written by another version.
    #[error("{}: written in format {version}, which this version does not know", path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// The directory or a file can't be used.
    #[error("{}: {source}", path.display())]
    System {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl OpenError {
    /// The user named what can't be used, in contrast to the system's failing.
    pub fn is_wrong_use(&self) -> bool {
        matches!(self, Self::Locked { .. } | Self::Version { .. })
    }
}

/// An open journal that is not running yet.
pub struct Journal {
    core: Core,
    /// Held for as long as the writer lives.
    lock: fs::File,
    /// From this time on (µs UTC) the journal has all that was published, if it has what is to come.
    complete_from_us: u64,
}

impl Journal {
    /// Opens a journal, or begins one, and reads all that is in it; of each topic as much as `keep`
    /// says. Cuts off a torn end. Takes as long as reading its files; shows its progress on a
    /// terminal.
    ///
    /// # Errors
    /// It is in use, its files can't be used, or there is no room. What its files hold is never an
    /// error, but for another version's format.
    pub fn open(options: Options, keep: KeepOf) -> Result<(Self, Restored), OpenError> {
        let directory = &options.directory;
        let lock = lock(directory)?;
        let numbers = list(directory)?;
        let complete_from_us = take_mark(directory)?;
        let (ledger, mut shelf, mut restored) = read_all(directory, &numbers, &keep)?;
        let whole = restored.torn_bytes == 0 && restored.damaged.is_empty();
        restored.complete_from_us = complete_from_us.filter(|_| whole);
        begin(directory, &mut shelf, numbers.last().map_or(1, |last| last + 1))?;
        info!(
            directory = %directory.display(),
            segments = shelf.segments.len() - 1,
            records = restored.records,
            topics = restored.topics.len(),
            torn_bytes = restored.torn_bytes,
            damaged = restored.damaged.len(),
            "the journal is open"
        );
        let core = Core::new(options, keep, ledger, shelf);
        let complete_from_us = restored.complete_from_us.unwrap_or_else(|| clock::now().utc_us);
        Ok((Self { core, lock, complete_from_us }, restored))
    }

    /// Takes an entry in before it runs.
    pub fn note(&mut self, entry: &JournalEntry) {
        self.core.take(entry);
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.core.options.directory
    }

    /// Its figures, for whoever shows them.
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.core.figures)
    }

    /// Where entries go in, and the task that writes them, to be run on the thread that takes them.
    pub fn start(self, disk: impl Disk) -> (Intake, impl Future<Output = ()>) {
        let Self { core, lock, complete_from_us } = self;
        let directory = core.options.directory.clone();
        let (intake, writer) = writer::pair(core, disk);
        let at_end = intake.clone();
        let task = async move {
            writer.await;
            if at_end.is_complete()
                && let Err(error) = leave_mark(&directory, complete_from_us)
            {
                warn!(%error, "the journal's end is not marked: resume_from will not reach behind it");
            }
            drop(lock);
        };
        (intake, task)
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("options", &self.core.options).finish_non_exhaustive()
    }
}

fn system(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::System { path: path.to_owned(), source }
}

fn lock(directory: &Path) -> Result<fs::File, OpenError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(system(directory))?;
    let path = directory.join(LOCK_NAME);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(|source| full_or_system(directory, &path, source))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(OpenError::Locked { directory: directory.to_owned() })
        }
        Err(error) => Err(system(&path)(error.into())),
    }
}

/// From when on the journal has all that was published, if its last process ended so that this is
/// known. Whoever opens it takes that away: it holds again only if this process ends well too.
fn take_mark(directory: &Path) -> Result<Option<u64>, OpenError> {
    let path = directory.join(MARK_NAME);
    let said = match fs::read_to_string(&path) {
        Ok(said) => said,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(system(&path)(source)),
    };
    // The directory is synced where the first segment of this process begins.
    fs::remove_file(&path).map_err(system(&path))?;
    Ok(said.strip_suffix('\n').and_then(|said| said.parse().ok()))
}

/// Nothing that was published since this time is missing.
fn leave_mark(directory: &Path, complete_from_us: u64) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(directory.join(MARK_NAME))?;
    file.write_all(format!("{complete_from_us}\n").as_bytes())?;
    file.sync_all()?;
    fs::File::open(directory)?.sync_all()
}

/// The segments' numbers, rising.
fn list(directory: &Path) -> Result<Vec<u64>, OpenError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).map_err(system(directory))? {
        let name = entry.map_err(system(directory))?.file_name();
        numbers.extend(name.to_str().and_then(segment::number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn read_all(
    directory: &Path,
    numbers: &[u64],
    keep: &dyn Fn(&str) -> Keep,
) -> Result<(Ledger, Shelf, Restored), OpenError> {
    let mut reading = Reading::new(keep);
    let (mut shelf, mut restored) = (Shelf::default(), Restored::default());
    let mut progress = Progress::new(directory, numbers);
    let mut bytes = Vec::new();
    for &number in numbers {
        let path = segment::path(directory, number);
        let mut segment = Segment::new(number);
        let mut file = fs::File::open(&path).map_err(system(&path))?;
        bytes.clear();
        if let Err(error) = file.read_to_end(&mut bytes) {
            warn!(path = %path.display(), %error, "a segment of the journal can't be read to its end");
            let at = bytes.len() as u64;
            let rest = file.metadata().map_or(0, |data| data.len().saturating_sub(at));
            restored.damaged.push(Damage { segment: number, at, bytes: rest });
            segment.unreadable = true;
        }
        let right = read_one(&path, &bytes, &mut segment, &mut reading, &mut restored)?;
        segment.bytes = right;
        restored.bytes += right;
        if right <= segment::HEADER_BYTES as u64 && !restored.damages(number) {
            fs::remove_file(&path).map_err(system(&path))?;
        } else {
            shelf.segments.push_back(segment);
        }
        progress.read(bytes.len());
    }
    progress.end();
    let (ledger, topics) = reading.finish(clock::now().utc_us);
    restored.topics = topics;
    Ok((ledger, shelf, restored))
}

/// Reads one segment's records, and cuts off what was not written to its end; how many bytes are
/// right.
fn read_one(
    path: &Path,
    bytes: &[u8],
    segment: &mut Segment,
    reading: &mut Reading<'_>,
    restored: &mut Restored,
) -> Result<u64, OpenError> {
    let number = segment.number;
    let damage =
        |at: usize| Damage { segment: number, at: at as u64, bytes: (bytes.len() - at) as u64 };
    match segment::beginning(bytes, number) {
        Beginning::Right => {}
        Beginning::Torn => {
            restored.torn_bytes += bytes.len() as u64;
            return Ok(0);
        }
        Beginning::Damaged => {
            warn!(path = %path.display(), "a segment of the journal is damaged from its beginning");
            restored.damaged.push(damage(0));
            return Ok(0);
        }
        Beginning::Version(version) => {
            return Err(OpenError::Version { path: path.to_owned(), version });
        }
    }
    let mut records = Records::new(bytes, segment::HEADER_BYTES);
    while let Ok((record, copied, size)) = records.next() {
        reading.record(record, copied, size, segment);
        restored.records += 1;
    }
    let at = records.at();
    match records.end() {
        End::Whole => {}
        End::Torn if segment.unreadable => {}
        End::Torn => {
            warn!(
                path = %path.display(), at, bytes = bytes.len() - at,
                "the journal's end was not written whole, and is cut off"
            );
            restored.torn_bytes += (bytes.len() - at) as u64;
            let file = fs::OpenOptions::new().write(true).open(path).map_err(system(path))?;
            file.set_len(at as u64).and_then(|()| file.sync_all()).map_err(system(path))?;
        }
        End::Damaged => {
            warn!(
                path = %path.display(), at, bytes = bytes.len() - at,
                "a segment of the journal is damaged; its rest is not used"
            );
            restored.damaged.push(damage(at));
        }
    }
    Ok(at as u64)
}

/// Begins the segment that this process adds to.
fn begin(directory: &Path, shelf: &mut Shelf, number: u64) -> Result<(), OpenError> {
    let path = segment::path(directory, number);
    let made = disk::open(directory, number).and_then(|mut file| {
        file.write_all(&segment::header(number))?;
        file.sync_all()?;
        fs::File::open(directory)?.sync_all()
    });
    if let Err(source) = made {
        // An empty one would be in nobody's way, so it does not matter if it stays.
        let _ = fs::remove_file(&path);
        return Err(full_or_system(directory, &path, source));
    }
    shelf.segments.push_back(Segment::new(number));
    Ok(())
}

fn full_or_system(directory: &Path, path: &Path, source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            OpenError::Full { directory: directory.to_owned(), source }
        }
        _ => system(path)(source),
    }
}

impl Restored {
    fn damages(&self, segment: u64) -> bool {
        self.damaged.iter().any(|damage| damage.segment == segment)
    }
}

/// A bar on a terminal, if it takes long.
struct Progress {
    bar: Option<ProgressBar>,
    total_bytes: u64,
    done_bytes: u64,
    begun_ns: u64,
}

impl Progress {
    fn new(directory: &Path, numbers: &[u64]) -> Self {
        let size =
            |&number: &u64| fs::metadata(segment::path(directory, number)).map(|of| of.len());
        let total_bytes = numbers.iter().filter_map(|number| size(number).ok()).sum();
        Self { bar: None, total_bytes, done_bytes: 0, begun_ns: clock::now().ns }
    }

    fn read(&mut self, bytes: usize) {
        self.done_bytes += bytes as u64;
        let taken_ns = clock::now().ns.saturating_sub(self.begun_ns);
        if self.bar.is_none() && u128::from(taken_ns) > PROGRESS_AFTER.as_nanos() {
            let bar = ProgressBar::new(self.total_bytes);
            let style = ProgressStyle::with_template(PROGRESS_STYLE);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done_bytes);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

const LOCK_NAME: &str = "lock";
const MARK_NAME: &str = "complete";
const PROGRESS_AFTER: Duration = Duration::from_secs(2);
const PROGRESS_STYLE: &str = "reading the journal {bar:40} {bytes}/{total_bytes} {eta}";
