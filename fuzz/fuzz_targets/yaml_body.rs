//! `cargo +nightly fuzz run --features libfuzzer yaml_body`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("yaml_body", data));
