//! Zip packages, as they are uploaded.

#![no_main]

/// Threads that sync, and the window of each file that is unpacked.
const FIXED_BYTES: usize = 4 * 1024 * 1024;
const BYTES_PER_BYTE: usize = 64;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    hanshu_fuzz::within(FIXED_BYTES, BYTES_PER_BYTE, input, hanshu_store::package);
});
