//! `cargo +nightly fuzz run --features libfuzzer certificate`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("certificate", data));
