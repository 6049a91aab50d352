//! `cargo +nightly fuzz run --features libfuzzer dns_answer`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("dns_answer", data));
