//! Reads any bytes as a `hanshu.toml`.

#![no_main]

#[path = "../../cli/src/error.rs"]
#[allow(dead_code, reason = "the command line's errors; a manifest has the first alone")]
mod error;
#[path = "../../cli/src/manifest/mod.rs"]
#[allow(dead_code, reason = "the command line reads files, the fuzzer text")]
mod manifest;

/// A tree of the file, with the place of each value.
const FIXED_BYTES: usize = 1024 * 1024;
const BYTES_PER_BYTE: usize = 1024;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    hanshu_fuzz::within(FIXED_BYTES, BYTES_PER_BYTE, input, manifest::properties::manifest);
});
