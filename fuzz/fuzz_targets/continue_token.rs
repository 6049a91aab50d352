//! `cargo +nightly fuzz run --features libfuzzer continue_token`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("continue_token", data));
