//! What runs inside a sandbox, and the protocol that it speaks.
//!
//! [`wire`] is the protocol of `PROTOCOL.md`, used by the invoker and by the sandbox. Everything else
//! is the sandbox's side.

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
