//! Two sessions and what may happen to them. The body is in `src/session.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| uringcast_fuzz::session::check(data));
