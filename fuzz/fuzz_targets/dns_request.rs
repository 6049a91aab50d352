//! `cargo +nightly fuzz run --features libfuzzer dns_request`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("dns_request", data));
