//! The head of an HTTP request. The body is in `src/head.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| uringcast_fuzz::head::check(data));
