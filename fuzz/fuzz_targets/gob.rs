//! Gob and `net/rpc`, as a Go function may speak them.

#![no_main]

/// A value takes 40 bytes for the one that it is written in, and vectors grow by doubling.
const FIXED_BYTES: usize = 1024 * 1024;
const BYTES_PER_BYTE: usize = 512;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    hanshu_fuzz::within(FIXED_BYTES, BYTES_PER_BYTE, input, hanshu_runtimes::shim::properties::gob);
});
