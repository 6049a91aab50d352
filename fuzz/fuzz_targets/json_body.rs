//! `cargo +nightly fuzz run --features libfuzzer json_body`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("json_body", data));
