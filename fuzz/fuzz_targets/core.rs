//! Whatever a core dump says of itself, reading it ends, and its bytes add up.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::oracle::core(data));
