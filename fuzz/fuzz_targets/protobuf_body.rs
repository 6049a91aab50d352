//! `cargo +nightly fuzz run --features libfuzzer protobuf_body`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("protobuf_body", data));
