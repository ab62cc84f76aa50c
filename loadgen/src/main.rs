//! The process: its allocator, and its exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Hundreds of thousands of small connections take half as much memory in small pages. Where that is
    // refused, memory is all it costs.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    uringcast_loadgen::main()
}
