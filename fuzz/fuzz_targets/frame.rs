//! Whatever a packet holds, it is a frame or an error, and a frame says the same when it is written again.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| secmem::oracle::frame(data));
