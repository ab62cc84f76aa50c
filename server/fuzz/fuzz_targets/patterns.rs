//! Topic names and patterns. The body is in `src/patterns.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| uringcast_fuzz::patterns::check(data));
