//! From a revision to a runtime that waits for events: the same start for every backend.

mod failure;
mod handshake;
mod launcher;
mod prewarmed;

pub(crate) use failure::{exit_text, out_of_memory, to_failure};
pub(crate) use launcher::{LaunchedSandbox, SandboxLauncher, StartFailure};
pub(crate) use prewarmed::{PrewarmedSandbox, SpecializeError};
