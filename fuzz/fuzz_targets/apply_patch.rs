//! `cargo +nightly fuzz run --features libfuzzer apply_patch`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("apply_patch", data));
