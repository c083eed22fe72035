//! HTTP requests, the triggers that they meet, and the events that they become.

#![no_main]

/// A tree of the event, whose bytes may be six to one, and the encodings of paths.
const FIXED_BYTES: usize = 1024 * 1024;
const BYTES_PER_BYTE: usize = 256;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    hanshu_fuzz::within(
        FIXED_BYTES,
        BYTES_PER_BYTE,
        input,
        hanshu_triggers::http::properties::http_event,
    );
});
