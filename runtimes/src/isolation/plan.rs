//! What the invoker says to `hanshu isolate`, and what it hears back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One sandbox to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationPlan {
    /// An empty folder of this sandbox; its root is put together on it, invisibly for others.
    pub root: PathBuf,
    /// User and group of everything in the sandbox.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// What the caller may do.
    pub privileges: IsolationPrivileges,
    /// What the sandbox can reach.
    pub network: IsolatedNetwork,
    /// At most 64 bytes.
    pub hostname: String,
    /// `/tmp`.
    pub tmp: IsolatedTmp,
    /// What else is to be seen, read-only; the platform's three folders are among them.
    pub binds: Vec<BindMount>,
    /// Files of the groups to join: whatever writes 0 to them is in.
    pub groups: Vec<PathBuf>,
    /// What the sandbox may use.
    pub limits: ProcessLimits,
    /// What to execute in the end: path and arguments, as seen in the sandbox.
    pub command: Vec<String>,
}

/// How the walls can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolationPrivileges {
    /// By root: the sandbox gets a user of its own.
    Root,
    /// By anybody, in a user namespace: the sandbox keeps the caller's user.
    UserNamespace,
}

/// What a sandbox can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolatedNetwork {
    /// All that the host can.
    Host,
    /// Itself: a loopback of its own.
    Loopback,
}

/// What is mounted at `/tmp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolatedTmp {
    /// A folder that the sandbox's user owns.
    Folder(PathBuf),
    /// Memory, this many bytes of it at most.
    Memory(u64),
}

/// A folder or file of the host that is seen in the sandbox, read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// On the host.
    pub source: PathBuf,
    /// In the sandbox, absolute.
    pub target: PathBuf,
}

/// What each process of a sandbox may use. The bounds of the sandbox as a whole are its groups'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimits {
    /// Open files.
    pub open_files: u64,
    /// Processes and threads of the sandbox's user; `None` where a group bounds them.
    pub processes: Option<u64>,
    /// Bytes of private writable memory; `None` where a group bounds memory.
    pub data_bytes: Option<u64>,
}

/// One line of the report on standard output, JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolationReport {
    /// The sandbox's process 1, by its id on the host.
    Pid(u32),
    /// A wall could not be built; nothing runs.
    Error(String),
}
