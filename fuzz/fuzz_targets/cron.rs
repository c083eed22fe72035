//! Cron lines with a zone and a time.

#![no_main]

/// The rules of the zones that were met.
const FIXED_BYTES: usize = 4 * 1024 * 1024;
const BYTES_PER_BYTE: usize = 64;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    hanshu_fuzz::within(FIXED_BYTES, BYTES_PER_BYTE, input, hanshu_triggers::cron);
});
