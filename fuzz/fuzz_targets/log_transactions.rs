//! `cargo +nightly fuzz run --features libfuzzer log_transactions`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("log_transactions", data));
