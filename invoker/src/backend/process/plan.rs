//! The plan of a sandbox's isolation, from its specification. Pure.

use std::path::{Path, PathBuf};

use hanshu_runtimes::isolation::{
    BindMount, IsolatedNetwork, IsolatedTmp, IsolationPlan, IsolationPrivileges, ProcessLimits,
};
use nix::unistd::{Gid, Uid};

use super::sandbox::ProcessSandboxParts;
use crate::backend::port::{NetworkAccess, SandboxSpec};
use crate::backend::tmp::{MEMORY_TMP_BYTES, SandboxTmp};

/// Where no control group limits memory, each process may have this much more than the function:
/// stacks of threads and an interpreter's reserve count here and not there.
const DATA_SLACK_BYTES: u64 = 256 * 1024 * 1024;
const HOSTNAME: &str = "hanshu";
const SHIM: [&str; 4] = ["/var/runtime/hanshu", "shim", "--dir", "/run/hanshu"];
/// A program that every host has and that ends at once.
const TRIAL: &str = "/usr/bin/true";

/// Folders of the host that every sandbox sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostFolders<'a> {
    /// Mounted at `/var/runtime`.
    pub(super) runtime_dir: &'a Path,
    /// Mounted at their own paths.
    pub(super) shown: &'a [PathBuf],
}

/// The plan of a sandbox.
pub(super) fn make(
    folders: &HostFolders<'_>,
    spec: &SandboxSpec,
    parts: &ProcessSandboxParts,
) -> IsolationPlan {
    let mut binds =
        vec![bind(&spec.run_dir, "/run/hanshu"), bind(folders.runtime_dir, "/var/runtime")];
    binds.extend(spec.mounts.iter().map(|mount| bind(&mount.source, &mount.target)));
    binds.extend(folders.shown.iter().map(|path| bind(path, path)));
    let view = parts.cgroup.as_ref().and_then(|cgroup| cgroup.memory_view());
    binds.extend(view.map(|(source, target)| BindMount { source, target }));
    let memory_bytes = u64::from(spec.memory_mb) * 1024 * 1024;
    IsolationPlan {
        root: parts.root.clone(),
        uid: spec.uid,
        gid: spec.uid,
        privileges: privileges(),
        network: network(spec),
        hostname: HOSTNAME.into(),
        tmp: match &parts.tmp {
            SandboxTmp::Folder(folder) => IsolatedTmp::Folder(folder.clone()),
            SandboxTmp::Memory => IsolatedTmp::Memory(MEMORY_TMP_BYTES),
        },
        binds,
        groups: parts.cgroup.as_ref().map(|cgroup| cgroup.joining_files()).unwrap_or_default(),
        limits: ProcessLimits {
            open_files: spec.open_files_max,
            processes: parts.cgroup.is_none().then_some(spec.pids_max),
            data_bytes: parts.cgroup.is_none().then_some(memory_bytes + DATA_SLACK_BYTES),
        },
        command: SHIM.map(str::to_owned).to_vec(),
    }
}

/// The plan for a program that does nothing.
pub(super) fn trial(runtime_dir: &Path, root: &Path) -> IsolationPlan {
    IsolationPlan {
        root: root.to_owned(),
        uid: Uid::effective().as_raw(),
        gid: Gid::effective().as_raw(),
        privileges: privileges(),
        network: IsolatedNetwork::Loopback,
        hostname: HOSTNAME.into(),
        tmp: IsolatedTmp::Memory(MEMORY_TMP_BYTES),
        binds: vec![bind(runtime_dir, "/var/runtime")],
        groups: Vec::new(),
        limits: ProcessLimits {
            open_files: hanshu_core::OPEN_FILES_MAX,
            processes: None,
            data_bytes: None,
        },
        command: vec![TRIAL.into()],
    }
}

/// A runtime that listens has a loopback interface of its own, whatever was asked for: two sandboxes
/// on one network would need the same port, and other hosts could connect to it.
fn network(spec: &SandboxSpec) -> IsolatedNetwork {
    match spec.network {
        NetworkAccess::Bridge if !spec.listens => IsolatedNetwork::Host,
        NetworkAccess::Bridge | NetworkAccess::None => IsolatedNetwork::Loopback,
    }
}

fn privileges() -> IsolationPrivileges {
    if Uid::effective().is_root() {
        IsolationPrivileges::Root
    } else {
        IsolationPrivileges::UserNamespace
    }
}

fn bind(source: &Path, target: impl Into<PathBuf>) -> BindMount {
    BindMount { source: source.to_owned(), target: target.into() }
}
