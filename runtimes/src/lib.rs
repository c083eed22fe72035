//! What runs inside a sandbox, and the wire it speaks.
//!
//! [`wire`] is the protocol of `PROTOCOL.md`, for both of its sides. The rest stands for one side:
//! the sandbox's.

pub mod isolation;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
pub mod runtime_dir;
pub mod shim;
pub mod wire;

/// The small Go library with which functions of the `go` runtime can be written without any
/// dependency: one file, copied into new projects.
pub const GO_LIBRARY: &str = include_str!("../go/scf/scf.go");
