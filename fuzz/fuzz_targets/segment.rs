//! See `ferrylog_fuzz::targets::segment`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferrylog_fuzz::targets::segment(data));
