//! `cargo +nightly fuzz run --features libfuzzer archive`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("archive", data));
