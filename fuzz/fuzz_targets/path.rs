//! `cargo +nightly fuzz run --features libfuzzer path`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("path", data));
