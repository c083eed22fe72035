//! Frames, as process 1 of a sandbox reads them from anybody.

#![no_main]

/// Two bodies of 6 MB: one announced and one being checked.
const FIXED_BYTES: usize = 13 * 1024 * 1024;
const BYTES_PER_BYTE: usize = 16;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    hanshu_fuzz::within(
        FIXED_BYTES,
        BYTES_PER_BYTE,
        input,
        hanshu_runtimes::shim::properties::frames,
    );
});
