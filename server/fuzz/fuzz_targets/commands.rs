//! Commands of the JSON protocol. The body is in `src/commands.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| uringcast_fuzz::commands::check(data));
