//! Operations on segments' files, so that a test can put a disk of its own in their place.
//!
//! Knows: files. Must not know: what is in them.

use std::{
    future::Future,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use tokio_uring::{buf::BoundedBuf as _, fs::File};

use super::segment;

/// A directory of segments. Buffers go to the kernel and come back.
pub trait Disk {
    /// An open segment.
    type File;

    /// Opens a segment for writing and reading; makes it if it is not there, and then makes sure
    /// that it will be.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, number: u64) -> impl Future<Output = io::Result<Self::File>>;

    /// Writes some of `bytes`, from `from` on, at `offset` of the file; how many, and the buffer.
    fn write(
        &self,
        file: &Self::File,
        bytes: Vec<u8>,
        from: usize,
        offset: u64,
    ) -> impl Future<Output = (io::Result<usize>, Vec<u8>)>;

    /// What was written is on the disk.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self, file: &Self::File) -> impl Future<Output = io::Result<()>>;

    /// Reads all of a segment.
    ///
    /// # Errors
    /// The system's.
    fn read(&self, number: u64) -> impl Future<Output = io::Result<Vec<u8>>>;

    /// Deletes a segment.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, number: u64) -> impl Future<Output = io::Result<()>>;
}

/// Files through the io_uring of the `tokio_uring` runtime that it is used on.
#[derive(Clone, Debug)]
pub struct UringDisk {
    directory: PathBuf,
}

impl UringDisk {
    /// Segments in this directory.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }
}

impl Disk for UringDisk {
    type File = File;

    async fn open(&self, number: u64) -> io::Result<File> {
        // Opening and linking are done by the thread itself, once per segment: short, and the crate
        // can't give a new file its permissions.
        let file = open(&self.directory, number)?;
        File::from_std(std::fs::File::open(&self.directory)?).sync_all().await?;
        Ok(File::from_std(file))
    }

    async fn write(
        &self,
        file: &File,
        bytes: Vec<u8>,
        from: usize,
        offset: u64,
    ) -> (io::Result<usize>, Vec<u8>) {
        let end = bytes.len();
        let (written, slice) = file.write_at(bytes.slice(from..end), offset).submit().await;
        (written, slice.into_inner())
    }

    async fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data().await
    }

    async fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        let file = std::fs::File::open(segment::path(&self.directory, number))?;
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let file = File::from_std(file);
        let mut bytes: Vec<u8> = Vec::with_capacity(size);
        while bytes.len() < size {
            let at = bytes.len();
            let to = size.min(at + READ_BYTES);
            let (read, slice) = file.read_at(bytes.slice(at..to), at as u64).await;
            bytes = slice.into_inner();
            if read? == 0 {
                break;
            }
        }
        Ok(bytes)
    }

    async fn remove(&self, number: u64) -> io::Result<()> {
        tokio_uring::fs::remove_file(segment::path(&self.directory, number)).await
    }
}

/// Opens a segment for reading and writing, or makes it, for its owner only.
pub(super) fn open(directory: &Path, number: u64) -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(segment::path(directory, number))
}

/// Read at once, bytes.
const READ_BYTES: usize = 4 << 20;
