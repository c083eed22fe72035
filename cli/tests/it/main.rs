//! Stories about the program itself: a real server process, the real command line, real sandboxes.
#![cfg(test)]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "stories say what they could not run, and print their tables"
)]

mod async_calls;
mod bad_input;
mod bad_luck;
mod cancel;
mod cluster;
mod command_line;
mod conformance;
mod examples;
mod http_triggers;
mod recovery;
mod redis_stream;
mod runs;
mod server_start;
mod services;
mod sync_calls;
mod timers;
mod world;
