//! `cargo +nightly fuzz run --features libfuzzer selector`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("selector", data));
