//! The configuration file. The body is in `src/config.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| uringcast_fuzz::config::check(data));
