//! Sandboxes that are processes: for one's own functions, on a machine without a Docker engine.
//! How far they are isolated is in [`guarantees`].
//!
//! The sandbox isolates itself: this program is started as `hanshu isolate`, which ends by becoming
//! the shim (`hanshu_runtimes::isolation`).

mod guarantees;
pub(crate) mod host_programs;
mod plan;
mod sandbox;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::{InstanceId, NodeId};
use hanshu_runtimes::isolation::{IsolationPlan, IsolationReport};
use nix::unistd::Uid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::backend::cgroup::{CgroupHierarchy, CgroupLimits, NodeCgroups, SandboxCgroup};
use crate::backend::guarantee::SandboxGuarantee;
use crate::backend::host::SandboxHost;
use crate::backend::port::{NetworkAccess, Sandbox, SandboxBackend, SandboxSpec, StartError};
use crate::backend::tmp::TmpPool;
use plan::HostFolders;
use sandbox::{ProcessSandbox, ProcessSandboxParts};

/// Limit of setting up the isolation, which takes some milliseconds.
const ISOLATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit of the report: two lines and an error's text.
const REPORT_BYTES_MAX: u64 = 16 * 1024;

/// Settings of the backend.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// The node whose sandboxes they are.
    pub node: NodeId,
    /// Folder of the backend alone: the sandboxes' roots and file systems for `/tmp`.
    pub dir: PathBuf,
    /// What is mounted at `/var/runtime`: from `hanshu_runtimes::runtime_dir::install`. The `hanshu` in
    /// it sets up the isolation.
    pub runtime_dir: PathBuf,
    /// Folders and files that sandboxes see at the same place beside the system's own, read-only: for
    /// an interpreter that is not below `/usr`.
    pub shown: Vec<PathBuf>,
}

/// Starts sandboxes as processes.
#[derive(Debug)]
pub struct ProcessBackend {
    options: ProcessOptions,
    /// `None` where none can be made: limits then hold for single processes only.
    cgroups: Option<NodeCgroups>,
    tmp: TmpPool,
    tasks: TaskTracker,
}

impl ProcessBackend {
    /// Makes its folders and isolates one process as a trial.
    ///
    /// # Errors
    /// [`StartError::Unavailable`] where this host does not allow the isolation, with the reason.
    pub async fn new(options: ProcessOptions, tasks: TaskTracker) -> Result<Self, StartError> {
        fs::create_dir_all(options.dir.join(ROOTS))
            .map_err(|error| StartError::failed("make the folder for sandboxes", error))?;
        let cgroups = make_cgroups(&options.node);
        let tmp_dir = options.dir.join("tmp");
        let tracker = tasks.clone();
        let tmp = tasks
            .spawn_blocking(move || TmpPool::open(&tmp_dir, Ok(SandboxHost::local()), tracker))
            .await
            .map_err(|error| StartError::failed("prepare /tmp", error))?;
        let backend = Self { options, cgroups, tmp, tasks };
        backend.try_isolation().await?;
        Ok(backend)
    }

    /// Isolates a program that does nothing.
    async fn try_isolation(&self) -> Result<(), StartError> {
        let name = format!("trial-{}", InstanceId::new());
        let root = self.make_root(&name)?;
        let plan = plan::trial(&self.options.runtime_dir, &root);
        let tried = self.isolate(&plan).await;
        let ended = match tried {
            Ok((mut child, _)) => {
                let waited = timeout(ISOLATION_TIMEOUT, child.wait()).await;
                match waited {
                    Ok(Ok(status)) if status.success() => Ok(()),
                    Ok(Ok(status)) => Err(format!("the trial ended with {status}")),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("the trial did not end".to_owned()),
                }
            }
            Err(error) => Err(error.to_string()),
        };
        let _ = fs::remove_dir(&root);
        ended.map_err(|reason| {
            StartError::Unavailable(format!(
                "process sandboxes cannot be had on this host: {reason}; use --sandbox docker"
            ))
        })
    }

    fn make_root(&self, name: &str) -> Result<PathBuf, StartError> {
        let root = self.options.dir.join(ROOTS).join(name);
        fs::create_dir_all(&root)
            .map_err(|error| StartError::failed("make the sandbox's root", error))?;
        Ok(root)
    }

    fn make_cgroup(&self, spec: &SandboxSpec) -> Result<Option<SandboxCgroup>, StartError> {
        let Some(parent) = &self.cgroups else { return Ok(None) };
        let limits = CgroupLimits {
            memory_bytes: u64::from(spec.memory_mb) * 1024 * 1024,
            pids: spec.pids_max,
            cpu_milli: spec.cpu_milli,
        };
        let made = parent.make(&spec.instance.to_string(), &limits);
        made.map(Some)
            .map_err(|error| StartError::failed("make the sandbox's control group", error))
    }

    /// Starts `hanshu isolate` and waits until it has become the shim. Returns it with the id of the
    /// sandbox's process 1.
    async fn isolate(&self, plan: &IsolationPlan) -> io::Result<(Child, u32)> {
        let program = self.options.runtime_dir.join(hanshu_runtimes::runtime_dir::PROGRAM);
        let mut child = Command::new(&program)
            .arg("isolate")
            .env_clear()
            .current_dir("/")
            // Ctrl-C is for the server, which ends its sandboxes itself.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("start {}: {error}", program.display()))
            })?;
        let reported = timeout(ISOLATION_TIMEOUT, send_plan(&mut child, plan)).await;
        match reported.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(pid) => Ok((child, pid)),
            Err(error) => {
                // It has ended already, or ends now.
                let _ = child.kill().await;
                Err(error)
            }
        }
    }
}

/// Below the backend's folder: one folder for each sandbox, which is empty outside the sandbox.
const ROOTS: &str = "roots";

#[async_trait]
impl SandboxBackend for ProcessBackend {
    fn name(&self) -> &'static str {
        "process"
    }

    fn default_network(&self, listens: bool) -> NetworkAccess {
        if listens { NetworkAccess::None } else { NetworkAccess::Bridge }
    }

    async fn start(&self, spec: &SandboxSpec) -> Result<Box<dyn Sandbox>, StartError> {
        let root = self.make_root(&spec.instance.to_string())?;
        let tmp = match self.tmp.take(spec.uid).await {
            Ok(tmp) => tmp,
            Err(error) => {
                let _ = fs::remove_dir(&root);
                return Err(StartError::failed("make /tmp", error));
            }
        };
        let mut parts = ProcessSandboxParts { root, tmp, cgroup: None };
        match self.start_process(spec, &mut parts).await {
            Ok(child) => {
                let sandbox =
                    ProcessSandbox::new(child, parts, self.tmp.clone(), self.tasks.clone());
                Ok(Box::new(sandbox))
            }
            Err(error) => {
                sandbox::remove(parts, &self.tmp, &self.tasks).await;
                Err(error)
            }
        }
    }

    async fn sweep(&self) -> Result<u32, StartError> {
        // File systems for /tmp were swept when the pool was opened.
        let cgroups = self.cgroups.as_ref().map_or(0, NodeCgroups::sweep);
        let mut roots = 0;
        for entry in fs::read_dir(self.options.dir.join(ROOTS)).into_iter().flatten().flatten() {
            // Only an empty folder is removed: mounts in it are visible to its sandbox alone.
            roots += u32::from(fs::remove_dir(entry.path()).is_ok());
        }
        Ok(cgroups.max(roots))
    }

    fn guarantees(&self) -> Vec<SandboxGuarantee> {
        guarantees::table(&guarantees::ProcessHostCapabilities {
            root: Uid::effective().is_root(),
            cgroups: self.cgroups.is_some(),
            tmp_refused: self.tmp.refused().map(str::to_owned),
        })
    }

    async fn close(&self) {
        let tmp = self.tmp.clone();
        let closed = self.tasks.spawn_blocking(move || tmp.close());
        let _ = closed.await;
        if let Some(cgroups) = &self.cgroups {
            cgroups.close();
        }
    }
}

impl ProcessBackend {
    async fn start_process(
        &self,
        spec: &SandboxSpec,
        parts: &mut ProcessSandboxParts,
    ) -> Result<Child, StartError> {
        parts.cgroup = self.make_cgroup(spec)?.map(Arc::new);
        let host_folders =
            HostFolders { runtime_dir: &self.options.runtime_dir, shown: &self.options.shown };
        let plan = plan::make(&host_folders, spec, parts);
        let (child, pid) = self
            .isolate(&plan)
            .await
            .map_err(|error| StartError::failed("isolate the sandbox", error))?;
        tracing::debug!(instance = %spec.instance, pid, "Started a process sandbox");
        Ok(child)
    }
}

fn make_cgroups(node: &NodeId) -> Option<NodeCgroups> {
    if !Uid::effective().is_root() {
        return None;
    }
    let made = CgroupHierarchy::find(&SandboxHost::local())
        .map(|found| NodeCgroups::create(found, &node.to_string()));
    match made {
        Some(Ok(parent)) => Some(parent),
        Some(Err(error)) => {
            tracing::warn!(%error, "Could not make control groups; sandboxes go without");
            None
        }
        None => None,
    }
}

/// Sends the plan and reads the whole report; returns the id of process 1.
async fn send_plan(child: &mut Child, plan: &IsolationPlan) -> io::Result<u32> {
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    stdin.write_all(&serde_json::to_vec(plan)?).await?;
    drop(stdin);
    let mut report = String::new();
    stdout.take(REPORT_BYTES_MAX).read_to_string(&mut report).await?;
    let mut pid = None;
    for line in report.lines() {
        match serde_json::from_str(line)? {
            IsolationReport::Pid(id) => pid = Some(id),
            IsolationReport::Error(text) => return Err(io::Error::other(text)),
        }
    }
    pid.ok_or_else(|| io::Error::other("`hanshu isolate` ended without a report"))
}
