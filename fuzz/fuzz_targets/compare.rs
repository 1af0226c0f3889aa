//! Constant-time equality agrees with plain equality.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| secmem::oracle::compare(data));
