//! `cargo +nightly fuzz run --features libfuzzer checkpoint`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("checkpoint", data));
