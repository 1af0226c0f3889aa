//! The fragment index finds what its naive twin finds.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::oracle::scan(data));
