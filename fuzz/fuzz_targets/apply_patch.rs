//! The target `apply_patch` for libFuzzer; `fuzz/README.md` says how to run it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("apply_patch", data));
