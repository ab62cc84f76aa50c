//! permessage-deflate: messages inflated and compressed, offers answered. The body is in `src/deflate.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| uringcast_fuzz::deflate::check(data));
