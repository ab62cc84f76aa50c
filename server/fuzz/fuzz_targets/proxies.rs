//! PROXY lines and forwarding headers. The body is in `src/proxies.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| uringcast_fuzz::proxies::check(data));
