//! See `ferrylog_fuzz::targets::schedule`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferrylog_fuzz::targets::schedule(data));
