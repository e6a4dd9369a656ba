//! See `ferrylog_fuzz::targets::directory`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferrylog_fuzz::targets::directory(data));
