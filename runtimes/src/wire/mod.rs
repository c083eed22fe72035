//! The frames between the invoker and a sandbox, as `PROTOCOL.md` has them: pure encoding, no I/O.
//!
//! Both sides use this module; nothing here allocates except the JSON bodies.

mod failure;
mod frame;
mod invoke_head;
mod messages;
#[cfg(test)]
mod tests;

pub use failure::{RuntimeFailure, status};
pub use frame::{FrameError, FrameHeader, FrameKind};
pub use invoke_head::{EventOrigin, InvokeHead};
pub use messages::{
    ExitedMessage, HelloMessage, InitMessage, PrewarmedInit, RuntimeAdapter, StartMessage,
};

/// The version of the protocol that `HELLO` announces.
pub const PROTOCOL_VERSION: u32 = 1;
/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 16;
/// Bytes of the head of an `INVOKE`.
pub const INVOKE_HEAD_LEN: usize = 41;
/// Bytes of a request id in the head of an `INVOKE`.
pub const REQUEST_ID_LEN: usize = 36;
/// The most bytes that a body may have, in both directions (scf.md §8: 6 MB events and answers).
pub const BODY_BYTES_MAX: usize = 6_291_456;
/// Bit 0 of an answer's flags: the runtime can take no further event.
pub const FLAG_LAST: u8 = 1;

/// Default path of the sandbox's folder in the sandbox, for the shim.
pub const RUN_DIR: &str = "/run/hanshu";
/// In [`RUN_DIR`]: the shim's connection.
pub const CONTROL_SOCKET: &str = "control.sock";
/// In [`RUN_DIR`]: the connection for events.
pub const DATA_SOCKET: &str = "data.sock";
/// In [`RUN_DIR`]: the FIFO for the output of everything in the sandbox.
pub const OUTPUT_FIFO: &str = "out";
/// In [`RUN_DIR`]: where the invoker serves the calls of the sandbox's function; not unlinked.
pub const CALLS_SOCKET: &str = "calls.sock";
/// The most calls of one sandbox that are served at a time; more wait.
pub const CALLS_MAX: usize = 16;
/// The environment variable with the URL of the sandbox's call endpoint.
pub const ENDPOINT_VARIABLE: &str = "HANSHU_ENDPOINT";
/// The environment variable with the token of the sandbox's call endpoint.
pub const TOKEN_VARIABLE: &str = "HANSHU_TOKEN";
/// Names the data socket to a runtime that connects by itself (adapter *direct*).
pub const SOCKET_VARIABLE: &str = "HANSHU_SOCKET";
/// The environment of process 1: makes the C library give large events and answers back at once.
/// The runtime does not inherit it.
pub const SHIM_ENV: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "131072");
