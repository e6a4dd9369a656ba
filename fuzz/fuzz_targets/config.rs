//! See `ferrylog_fuzz::config::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferrylog_fuzz::config::config(data));
