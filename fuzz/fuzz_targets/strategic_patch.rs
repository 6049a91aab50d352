//! `cargo +nightly fuzz run --features libfuzzer strategic_patch`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("strategic_patch", data));
