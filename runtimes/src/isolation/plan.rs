//! The input of `hanshu isolate`, and its report to the invoker.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How one sandbox is to be isolated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationPlan {
    /// An empty folder of this sandbox, on which its root is mounted, in its own mount namespace.
    pub root: PathBuf,
    /// The user of everything in the sandbox.
    pub uid: u32,
    /// The group of everything in the sandbox.
    pub gid: u32,
    /// Which privileges the isolation is built with.
    pub privileges: IsolationPrivileges,
    /// The network that the sandbox uses.
    pub network: IsolatedNetwork,
    /// At most 64 bytes.
    pub hostname: String,
    /// What is mounted at `/tmp`.
    pub tmp: IsolatedTmp,
    /// Read-only bind mounts, the platform's three folders among them.
    pub binds: Vec<BindMount>,
    /// `cgroup.procs` files of the control groups to join.
    pub groups: Vec<PathBuf>,
    /// Resource limits of each process.
    pub limits: ProcessLimits,
    /// The program to execute at the end, and its arguments, as seen in the sandbox.
    pub command: Vec<String>,
}

/// With which privileges a sandbox is isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolationPrivileges {
    /// As root: the sandbox gets a user of its own.
    Root,
    /// As any user, in a user namespace: the sandbox keeps the caller's user.
    UserNamespace,
}

/// The network of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolatedNetwork {
    /// The host's network.
    Host,
    /// A network namespace with a loopback device only.
    Loopback,
}

/// The kinds of a sandbox's `/tmp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolatedTmp {
    /// A folder that the sandbox's user owns.
    Folder(PathBuf),
    /// A tmpfs of at most this many bytes.
    Memory(u64),
}

/// A read-only bind mount of a folder or file of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Path on the host.
    pub source: PathBuf,
    /// Absolute path in the sandbox.
    pub target: PathBuf,
}

/// Resource limits of each process. Limits of the sandbox as a whole are set by control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimits {
    /// Open files a process may have.
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
    /// A step failed, and nothing runs.
    Error(String),
}
