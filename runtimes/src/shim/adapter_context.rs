//! What every adapter works with: the sandbox's folder, its `START`, and its processes.

use std::path::PathBuf;

use super::oom_kills::OomKillCounter;
use super::processes::SandboxProcesses;
use crate::wire::StartMessage;

/// What an adapter is given of its sandbox.
#[derive(Debug)]
pub(super) struct AdapterContext {
    /// The folder with the sockets.
    pub(super) dir: PathBuf,
    pub(super) start: StartMessage,
    pub(super) processes: SandboxProcesses,
    pub(super) oom_kills: OomKillCounter,
}
