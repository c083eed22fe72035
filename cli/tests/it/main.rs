#![cfg(test)]
//! Stories about the program itself: a real server process, the real command line, real sandboxes.

mod async_calls;
mod bad_input;
mod cluster;
mod command_line;
mod conformance;
mod examples;
mod http_triggers;
mod recovery;
mod server_start;
mod sync_calls;
mod timers;
mod world;
