//! A sandbox of processes, from its start to its removal.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::backend::cgroup::SandboxCgroup;
use crate::backend::port::Sandbox;
use crate::backend::tmp::{SandboxTmp, TmpPool};

/// What is killed is gone within milliseconds; this is the bound, not the rule.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the shim's own words that are logged at once.
const WORDS_BYTES: usize = 1024;

/// What a sandbox is made of, beside its processes.
#[derive(Debug)]
pub(super) struct ProcessSandboxParts {
    pub(super) root: PathBuf,
    pub(super) tmp: SandboxTmp,
    pub(super) group: Option<Arc<SandboxCgroup>>,
}

pub(super) struct ProcessSandbox {
    /// Tells whoever waits for the sandbox's end to bring it about.
    kill: Arc<Notify>,
    /// Becomes true at its end.
    ended: watch::Receiver<bool>,
    parts: Mutex<Option<ProcessSandboxParts>>,
    /// Asked without waiting for whoever removes the sandbox.
    group: Option<Arc<SandboxCgroup>>,
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
        if let Some(words) = child.stderr.take() {
            tasks.spawn(listen(words));
        }
        let kill = Arc::new(Notify::new());
        let (tell, ended) = watch::channel(false);
        tasks.spawn(reap(child, Arc::clone(&kill), tell));
        let group = parts.group.clone();
        Self { kill, ended, parts: Mutex::new(Some(parts)), group, tmp, tasks }
    }
}

#[async_trait]
impl Sandbox for ProcessSandbox {
    async fn stop(&self) {
        // Its end is that of process 1, and that of all others. What is frozen dies as it thaws.
        self.kill.notify_one();
        if let Some(group) = &self.group {
            group.kill();
            group.thaw();
        }
        if timeout(END_TIMEOUT, self.ended()).await.is_err() {
            tracing::warn!("A process sandbox does not end");
        }
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(parts) = parts {
            remove(parts, &self.tmp, &self.tasks).await;
        }
    }

    async fn ended(&self) {
        // The other end is gone only after it has told.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    fn freeze(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.freeze())
    }

    fn thaw(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.thaw())
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.group.as_ref()?.memory_bytes()
    }

    fn oom_kills(&self) -> Option<u64> {
        self.group.as_ref()?.oom_kills()
    }
}

impl fmt::Debug for ProcessSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessSandbox").field("group", &self.group).finish_non_exhaustive()
    }
}

/// Waits for the end, and brings it about when asked to.
async fn reap(mut child: Child, kill: Arc<Notify>, tell: watch::Sender<bool>) {
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
    tell.send_replace(true);
}

/// Kills what is left, and removes all that belonged to the sandbox.
pub(super) async fn remove(parts: ProcessSandboxParts, tmp: &TmpPool, tasks: &TaskTracker) {
    let ProcessSandboxParts { root, tmp: folder, group } = parts;
    let removed = tasks.spawn_blocking(move || {
        let gone = group.is_none_or(|group| group.kill_and_remove());
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

/// What the shim says when it cannot do its work. Ends with the sandbox.
async fn listen(mut words: ChildStderr) {
    let mut bytes = vec![0; WORDS_BYTES];
    while let Ok(len @ 1..) = words.read(&mut bytes).await {
        let text = String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into_owned();
        tracing::debug!(text = text.trim_end(), "A sandbox's first process speaks");
    }
}
