//! `cargo +nightly fuzz run --features libfuzzer accept`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("accept", data));
