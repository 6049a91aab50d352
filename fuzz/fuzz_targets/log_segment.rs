//! `cargo +nightly fuzz run --features libfuzzer log_segment`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("log_segment", data));
