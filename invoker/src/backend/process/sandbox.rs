//! A sandbox of processes, from its start to its removal.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::lock;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::backend::cgroup::SandboxCgroup;
use crate::backend::port::Sandbox;
use crate::backend::tmp::{SandboxTmp, TmpPool};

/// Limit of waiting for the end of a killed sandbox, which takes milliseconds.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the shim's own output that are logged as one entry.
const OUTPUT_BYTES: usize = 1024;

/// What belongs to a sandbox beside its processes.
#[derive(Debug)]
pub(super) struct ProcessSandboxParts {
    pub(super) root: PathBuf,
    pub(super) tmp: SandboxTmp,
    pub(super) cgroup: Option<Arc<SandboxCgroup>>,
}

pub(super) struct ProcessSandbox {
    /// Notifies the task that waits for the sandbox's end to cause it.
    kill: Arc<Notify>,
    /// Becomes true at its end.
    ended: watch::Receiver<bool>,
    parts: Mutex<Option<ProcessSandboxParts>>,
    /// Used without waiting for the removal of the sandbox.
    cgroup: Option<Arc<SandboxCgroup>>,
    tmp: TmpPool,
    tasks: TaskTracker,
}

impl ProcessSandbox {
    /// `child` is the outer half of `hanshu isolate`: its end is the sandbox's.
    pub(super) fn new(
        mut child: Child,
        parts: ProcessSandboxParts,
        tmp: TmpPool,
        tasks: TaskTracker,
    ) -> Self {
        if let Some(output) = child.stderr.take() {
            tasks.spawn(log_output(output));
        }
        let kill = Arc::new(Notify::new());
        let (end, ended) = watch::channel(false);
        tasks.spawn(reap(child, Arc::clone(&kill), end));
        let cgroup = parts.cgroup.clone();
        Self { kill, ended, parts: Mutex::new(Some(parts)), cgroup, tmp, tasks }
    }
}

#[async_trait]
impl Sandbox for ProcessSandbox {
    async fn stop(&self) {
        // The end of process 1 ends all others. A frozen process dies when it thaws.
        self.kill.notify_one();
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
            cgroup.thaw();
        }
        if timeout(END_TIMEOUT, self.ended()).await.is_err() {
            tracing::warn!("A process sandbox does not end");
        }
        let parts = lock(&self.parts).take();
        if let Some(parts) = parts {
            remove(parts, &self.tmp, &self.tasks).await;
        }
    }

    async fn ended(&self) {
        // The sender is dropped only after it has sent.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    fn freeze(&self) -> bool {
        self.cgroup.as_ref().is_some_and(|cgroup| cgroup.freeze())
    }

    fn thaw(&self) -> bool {
        self.cgroup.as_ref().is_some_and(|cgroup| cgroup.thaw())
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.cgroup.as_ref()?.memory_bytes()
    }

    fn oom_kills(&self) -> Option<u64> {
        self.cgroup.as_ref()?.oom_kills()
    }
}

impl fmt::Debug for ProcessSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessSandbox").field("cgroup", &self.cgroup).finish_non_exhaustive()
    }
}

/// Waits for the end of process 1, and kills it when asked to.
async fn reap(mut child: Child, kill: Arc<Notify>, end: watch::Sender<bool>) {
    let ended = tokio::select! {
        ended = child.wait() => ended,
        () = kill.notified() => match child.start_kill() {
            Ok(()) => child.wait().await,
            Err(error) => Err(error),
        },
    };
    if let Err(error) = ended {
        tracing::warn!(%error, "Could not wait for the end of a sandbox");
    }
    end.send_replace(true);
}

/// Kills the remaining processes and removes everything that belonged to the sandbox.
pub(super) async fn remove(parts: ProcessSandboxParts, tmp: &TmpPool, tasks: &TaskTracker) {
    let ProcessSandboxParts { root, tmp: folder, cgroup } = parts;
    let removed = tasks.spawn_blocking(move || {
        let gone = cgroup.is_none_or(|cgroup| cgroup.kill_and_remove());
        (gone, fs::remove_dir(&root))
    });
    match removed.await {
        Ok((true, Ok(()))) => {}
        Ok((false, _)) => tracing::warn!("A sandbox's control group could not be removed"),
        Ok((true, Err(error))) => tracing::warn!(%error, "A sandbox's root could not be removed"),
        Err(error) => tracing::error!(%error, "Removing a sandbox failed"),
    }
    tmp.give_back(folder).await;
}

/// Logs what the shim writes when it cannot do its work. Ends with the sandbox.
async fn log_output(mut output: ChildStderr) {
    let mut bytes = vec![0; OUTPUT_BYTES];
    while let Ok(len @ 1..) = output.read(&mut bytes).await {
        let text = String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into_owned();
        tracing::debug!(text = text.trim_end(), "Output of a sandbox's first process");
    }
}
