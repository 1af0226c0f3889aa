//! A wipe overwrites exactly the bytes that it was given.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| secmem::oracle::wipe(data));
