//! A sandbox of processes, from its start to its removal.

use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::Parts;
use crate::backend::Sandbox;
use crate::cgroup::Group;
use crate::tmp::TmpPool;

/// What is killed is gone within milliseconds; this is the bound, not the rule.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the shim's own words that are logged at once.
const WORDS_BYTES: usize = 1024;

pub(super) struct ProcessSandbox {
    /// The outer half of `hanshu confine`: its end is the sandbox's.
    child: Mutex<Option<Child>>,
    parts: Mutex<Option<Parts>>,
    /// Asked without waiting for whoever removes the sandbox.
    group: Option<Arc<Group>>,
    tmp: TmpPool,
    tasks: TaskTracker,
}

impl ProcessSandbox {
    pub(super) fn new(mut child: Child, parts: Parts, tmp: TmpPool, tasks: TaskTracker) -> Self {
        if let Some(words) = child.stderr.take() {
            tasks.spawn(listen(words));
        }
        let group = parts.group.clone();
        Self { child: Mutex::new(Some(child)), parts: Mutex::new(Some(parts)), group, tmp, tasks }
    }
}

#[async_trait]
impl Sandbox for ProcessSandbox {
    async fn stop(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            // Its end is that of process 1, and that of all others. A frozen one ends below.
            if let Err(error) = child.start_kill() {
                tracing::debug!(%error, "A sandbox had ended before it was stopped");
            }
            if timeout(END_TIMEOUT, child.wait()).await.is_err() {
                tracing::warn!("A process sandbox does not end");
            }
        }
        if let Some(parts) = parts {
            remove(parts, &self.tmp, &self.tasks).await;
        }
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

/// Kills what is left, and removes all that belonged to the sandbox.
pub(super) async fn remove(parts: Parts, tmp: &TmpPool, tasks: &TaskTracker) {
    let Parts { root, tmp: folder, group } = parts;
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
