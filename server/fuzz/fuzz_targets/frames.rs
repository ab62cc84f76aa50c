//! Frames, in pieces. The body is in `src/frames.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| uringcast_fuzz::frames::check(data));
