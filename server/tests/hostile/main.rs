//! Hostile functions against the whole program: real sandboxes of every kind, a neighbour that is
//! called all the while, and a look at what is left afterwards. SECURITY.md's table names these
//! tests. A target of the command line's crate, since cargo tells only that one where the program is:
//! `cargo test -p hanshu-cli --test hostile`.
#![cfg(test)]
#![allow(clippy::print_stderr, reason = "the neighbour's latencies are for people")]

mod answers;
mod arena;
mod frames;
mod leftovers;
mod network;
mod others;
mod resources;
#[allow(dead_code, reason = "the end-to-end stories' server, which has more of everything")]
#[path = "../../../cli/tests/it/world.rs"]
mod world;

use arena::{Arena, Column};
