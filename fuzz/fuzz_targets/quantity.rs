//! `cargo +nightly fuzz run --features libfuzzer quantity`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("quantity", data));
