//! What one deflate library saves and costs on single messages, without context between them, as
//! `server_no_context_takeover` (RFC 7692 section 7.1.1.1) wants it.
//!
//! Prints one line of JSON for each level and group of messages, and a round. `compare.py` beside it
//! builds every candidate, lets them take turns, and makes the tables.

#![forbid(unsafe_code)]

mod codec;
mod groups;
mod made_up;
mod recorded;

use std::{hint::black_box, path::PathBuf, process::ExitCode};

use clap::Parser;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    codec::{CANDIDATE, Codec, LEVELS},
    groups::Group,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Flags {
    /// Recorded messages, `<ns> {"stream":…,"data":…}` a line, gzip; without any, made-up ones.
    files: Vec<PathBuf>,
    /// Messages taken of each group, evenly over the recording.
    #[arg(long, default_value_t = 1_000)]
    per_group: usize,
    /// Only these levels, and of those only what the library has.
    #[arg(long, value_delimiter = ',', default_values_t = 1..=9_u32)]
    levels: Vec<u32>,
    /// Window of the compressor, bits; libdeflate and miniz_oxide have only 15.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u8).range(9..=15))]
    window_bits: u8,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let messages = match recorded::load(&flags.files) {
        Ok(messages) => messages,
        Err((path, error)) => {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    };
    let groups = groups::cut(messages, flags.per_group.max(1));
    for level in flags.levels.iter().copied().filter(|level| LEVELS.contains(level)) {
        let Some(mut codec) = Codec::new(level, flags.window_bits) else { continue };
        for group in &groups {
            if let Err(message) = measure(&mut codec, level, group) {
                eprintln!("{CANDIDATE} {level}: {message:?} does not come back");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Compresses and inflates every message of the group and prints what it took.
///
/// # Errors
/// The message that was not the same after both.
fn measure(codec: &mut Codec, level: u32, group: &Group) -> Result<(), String> {
    let mut packed = vec![0; codec::packed_bytes_max(group.message_bytes_max())];
    let mut unpacked = vec![0; group.message_bytes_max()];
    // Once for the sizes, for the proof that it is right, and to warm up.
    let (mut ends, mut all) = (Vec::new(), Vec::new());
    for message in &group.messages {
        let bytes = codec.compress(message, &mut packed);
        let back = codec.inflate(&mut packed, bytes, &mut unpacked);
        if back != Some(message.len()) || unpacked[..message.len()] != **message {
            return Err(String::from_utf8_lossy(message).into_owned());
        }
        all.extend_from_slice(&packed[..bytes]);
        ends.push(all.len());
    }
    let started_ns = thread_cpu_ns();
    for message in &group.messages {
        black_box(codec.compress(black_box(message), &mut packed));
    }
    let compressed_ns = thread_cpu_ns();
    let mut start = 0;
    for &end in &ends {
        let bytes = end - start;
        packed[..bytes].copy_from_slice(&all[start..end]);
        black_box(codec.inflate(black_box(&mut packed), bytes, &mut unpacked));
        start = end;
    }
    let inflated_ns = thread_cpu_ns();
    let Group { kind, form, class, total, messages } = group;
    let bytes_in: usize = messages.iter().map(|message| message.len()).sum();
    println!(
        "{{\"candidate\":\"{CANDIDATE}\",\"level\":{level},\"kind\":\"{kind}\",\"form\":\"{form}\",\
         \"class\":{class},\"total\":{total},\"messages\":{},\"bytes_in\":{bytes_in},\
         \"bytes_out\":{},\"compress_ns\":{},\"inflate_ns\":{}}}",
        messages.len(),
        all.len(),
        compressed_ns - started_ns,
        inflated_ns - compressed_ns,
    );
    Ok(())
}

/// What this thread has spent on a processor, ns: other work on the machine shows in it only
/// through the caches.
fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Never negative.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
