//! Lines of the publish socket, and what their payloads count as. The body is in `src/publish_lines.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| uringcast_fuzz::publish_lines::check(data));
