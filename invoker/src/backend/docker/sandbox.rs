//! A container, from its start to its removal.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bollard::errors::Error as ClientError;
use bollard::query_parameters::{RemoveContainerOptions, WaitContainerOptions};
use futures_util::StreamExt as _;

use super::context::DockerContext;
use super::engine::EngineError;
use super::slots::{PrewarmMount, PrewarmMounts};
use crate::backend::cgroup::SandboxCgroup;
use crate::backend::port::{Sandbox, StartError};
use crate::backend::tmp::SandboxTmp;

pub(super) struct DockerSandbox {
    name: String,
    group: Option<SandboxCgroup>,
    tmp: Mutex<Option<SandboxTmp>>,
    /// Where a prewarmed sandbox's code is mounted.
    slot: Option<PrewarmMount>,
    shared: Arc<DockerContext>,
}

impl DockerSandbox {
    pub(super) fn new(
        name: String,
        group: Option<SandboxCgroup>,
        (tmp, slot): (SandboxTmp, Option<PrewarmMount>),
        shared: Arc<DockerContext>,
    ) -> Self {
        Self { name, group, tmp: Mutex::new(Some(tmp)), slot, shared }
    }

    async fn remove(&self) -> Result<(), EngineError> {
        let engine = &self.shared.engine;
        let (docker, _) = engine.client().await?;
        let options = RemoveContainerOptions { force: true, v: true, link: false };
        let removed = docker.remove_container(&self.name, Some(options));
        match engine.ask("remove a container", removed).await {
            Ok(()) | Err(EngineError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Sandbox for DockerSandbox {
    async fn stop(&self) {
        // What is frozen does not die.
        self.thaw();
        let removed = self.remove().await;
        if let Err(error) = &removed {
            let container = &self.name;
            tracing::warn!(%error, container, "Could not remove a container yet; a sweep will");
        }
        if let Some(slot) = &self.slot {
            PrewarmMounts::remove(&slot.path);
        }
        let tmp = self.tmp.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tmp) = tmp {
            self.shared.tmp.give_back(tmp).await;
        }
        self.shared.sweeper.live().remove(&self.name);
        if removed.is_err() {
            self.shared.sweeper.again();
        }
    }

    async fn give_code(&self, code_dir: &Path) -> Result<(), StartError> {
        let (Some(slot), Ok(slots)) = (&self.slot, &self.shared.slots) else {
            return Err(StartError::Unsupported("this sandbox has its code already".into()));
        };
        slots
            .show(slot, code_dir)
            .map_err(|error| StartError::failed("show a prewarmed sandbox its code", error))
    }

    async fn ended(&self) {
        if let Ok((docker, _)) = self.shared.engine.client().await {
            let mut waiting = docker.wait_container(&self.name, None::<WaitContainerOptions>);
            // An error that tells the container's status is an answer, too.
            if let Some(Ok(_) | Err(ClientError::DockerContainerWaitError { .. })) =
                waiting.next().await
            {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    fn freeze(&self) -> bool {
        self.group.as_ref().is_some_and(SandboxCgroup::freeze)
    }

    fn thaw(&self) -> bool {
        self.group.as_ref().is_some_and(SandboxCgroup::thaw)
    }

    async fn pause(&self) -> bool {
        let engine = &self.shared.engine;
        let Ok((docker, _)) = engine.client().await else { return false };
        engine.ask("pause a container", docker.pause_container(&self.name)).await.is_ok()
    }

    async fn unpause(&self) -> bool {
        let engine = &self.shared.engine;
        let Ok((docker, _)) = engine.client().await else { return false };
        engine.ask("unpause a container", docker.unpause_container(&self.name)).await.is_ok()
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.group.as_ref()?.memory_bytes()
    }

    fn oom_kills(&self) -> Option<u64> {
        self.group.as_ref()?.oom_kills()
    }
}

impl fmt::Debug for DockerSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerSandbox").field("name", &self.name).finish_non_exhaustive()
    }
}
