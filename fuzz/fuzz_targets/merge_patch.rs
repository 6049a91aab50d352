//! `cargo +nightly fuzz run --features libfuzzer merge_patch`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("merge_patch", data));
