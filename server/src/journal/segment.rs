//! Segments: what a file of records is called, how it begins, and reading it record by record.
//!
//! Knows: names, the header, torn and damaged ends. Must not know: what records mean.

use std::path::{Path, PathBuf};

use super::record::{MAGIC, Record, RecordError};

/// What stands before a segment's first record, bytes.
pub(super) const HEADER_BYTES: usize = 24;
/// The format that this program writes and reads.
const VERSION: u32 = 1;
const FILE_MAGIC: [u8; 8] = *b"uringjnl";
const SUFFIX: &str = ".segment";

/// Where a segment lies.
pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016}{SUFFIX}"))
}

/// The number of the segment of this file name; `None` for other files.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let right = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| right)
}

/// Magic, version, number of the segment, checksum.
pub(super) fn header(number: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&FILE_MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c(&header[..20]);
    header[20..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// What a segment's beginning is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    Right,
    /// Shorter than a header, as a crash at its creation leaves it.
    Torn,
    /// Not what was written, or another segment's.
    Damaged,
    /// Of another version of the format.
    Version(u32),
}

pub(super) fn beginning(bytes: &[u8], number: u64) -> Beginning {
    let Some(found) = bytes.first_chunk::<HEADER_BYTES>() else { return Beginning::Torn };
    if *found == header(number) {
        return Beginning::Right;
    }
    let crc = crc32c::crc32c(&found[..20]).to_le_bytes();
    let version = u32::from_le_bytes([found[8], found[9], found[10], found[11]]);
    if found[..8] == FILE_MAGIC && found[20..] == crc && version != VERSION {
        return Beginning::Version(version);
    }
    // A file whose size was written and whose bytes were not (power failure).
    if bytes.iter().all(|&byte| byte == 0) { Beginning::Torn } else { Beginning::Damaged }
}

/// Why reading a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With its last record.
    Whole,
    /// In a record that was not written to its end; nothing readable follows.
    Torn,
    /// In bytes that are not what was written; readable records follow, which can't be trusted to
    /// be all.
    Damaged,
}

/// Reads records one after the other.
#[derive(Debug)]
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    /// Where the next record begins.
    at: usize,
}

impl<'a> Records<'a> {
    /// From `at` on, which is where a record begins.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    /// Up to here everything is right.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next record, whether it is a copy, and its size in bytes.
    pub(super) fn next(&mut self) -> Result<(Record<'a>, bool, usize), RecordError> {
        let read = Record::read(&self.bytes[self.at..])?;
        self.at += read.2;
        Ok(read)
    }

    /// What the end is, where [`next`](Self::next) found no record.
    pub(super) fn end(&self) -> End {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return End::Whole;
        }
        let mut budget = SEARCH_BYTES_MAX;
        for found in memchr::memmem::find_iter(rest, &MAGIC) {
            let here = &rest[found..];
            let Some(length) = here.get(4..8) else { break };
            let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
            if found > 0 && length < here.len() {
                if Record::read(here).is_ok() {
                    return End::Damaged;
                }
                // Payloads may hold whatever looks like a record; what is spent on them is bounded.
                budget = budget.saturating_sub(length);
                if budget == 0 {
                    return End::Damaged;
                }
            }
        }
        End::Torn
    }
}

/// Bytes whose checksum is computed at most in looking for records behind damage.
const SEARCH_BYTES_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers_and_nothing_else() {
        let name = |number| {
            let path = path(Path::new("/d"), number);
            path.file_name().and_then(|name| name.to_str()).map(str::to_owned).expect("a name")
        };
        for of in [0, 7, 1 << 40] {
            assert_eq!(number(&name(of)), Some(of));
        }
        for other in ["lock", "1.segment", "000000000000000x.segment", "+000000000000001.segment"] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn a_beginning_is_right_torn_damaged_or_of_another_version() {
        let right = header(5);
        assert_eq!(beginning(&right, 5), Beginning::Right);
        assert_eq!(beginning(&right, 6), Beginning::Damaged);
        assert_eq!(beginning(&[0; 4_096], 5), Beginning::Torn);
        for cut in 0..HEADER_BYTES {
            assert_eq!(beginning(&right[..cut], 5), Beginning::Torn);
        }
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = right;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(beginning(&flipped, 5), Beginning::Damaged);
        }
        let mut newer = right;
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..20]).to_le_bytes();
        newer[20..].copy_from_slice(&crc);
        assert_eq!(beginning(&newer, 5), Beginning::Version(2));
    }

    #[test]
    fn the_end_tells_a_torn_record_from_damage_before_others() {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for topic in ["a", "b", "c"] {
            Record::Forget { topic }.write(&mut bytes, false);
            ends.push(bytes.len());
        }
        let read = |bytes: &[u8]| {
            let mut records = Records::new(bytes, 0);
            while records.next().is_ok() {}
            (records.at(), records.end())
        };
        assert_eq!(read(&bytes), (ends[2], End::Whole));
        for cut in ends[1] + 1..ends[2] {
            assert_eq!(read(&bytes[..cut]), (ends[1], End::Torn));
        }
        for byte in ends[0]..ends[1] {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 4;
            assert_eq!(read(&damaged), (ends[0], End::Damaged), "byte {byte}");
        }
        bytes.extend_from_slice(&[0; 100]);
        assert_eq!(read(&bytes), (ends[2], End::Torn));
    }
}
