//! The shim as a process, with each adapter, seen from the invoker's side.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what helpers of tests meet fails the test"
)]

mod custom;
mod direct;
mod function_calls;
mod go;

mod memory;
mod process_one;
mod shell;
mod shim_fixture;
