//! `cargo +nightly fuzz run --features libfuzzer jwt`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("jwt", data));
