//! A container, from its start to its removal.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bollard::errors::Error as ClientError;
use bollard::query_parameters::{RemoveContainerOptions, WaitContainerOptions};
use futures_util::StreamExt as _;
use hanshu_core::lock;

use super::context::DockerContext;
use super::engine::EngineError;
use super::prewarm_mounts::{PrewarmMount, PrewarmMounts};
use crate::backend::cgroup::SandboxCgroup;
use crate::backend::port::{Sandbox, StartError};
use crate::backend::tmp::SandboxTmp;

/// What belongs to one container.
#[derive(Debug)]
pub(super) struct ContainerParts {
    pub(super) name: String,
    pub(super) cgroup: Option<SandboxCgroup>,
    pub(super) tmp: SandboxTmp,
    /// Where a prewarmed sandbox's code is mounted.
    pub(super) prewarm_mount: Option<PrewarmMount>,
}

pub(super) struct DockerSandbox {
    name: String,
    cgroup: Option<SandboxCgroup>,
    /// Taken when it is removed.
    tmp: Mutex<Option<SandboxTmp>>,
    prewarm_mount: Option<PrewarmMount>,
    context: Arc<DockerContext>,
}

impl DockerSandbox {
    pub(super) fn new(parts: ContainerParts, context: Arc<DockerContext>) -> Self {
        let ContainerParts { name, cgroup, tmp, prewarm_mount } = parts;
        Self { name, cgroup, tmp: Mutex::new(Some(tmp)), prewarm_mount, context }
    }

    async fn remove(&self) -> Result<(), EngineError> {
        let engine = &self.context.engine;
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
        // A frozen process does not die.
        self.thaw();
        let removed = self.remove().await;
        if let Err(error) = &removed {
            let container = &self.name;
            tracing::warn!(%error, container, "Could not remove a container yet; a sweep will");
        }
        if let Some(mount) = &self.prewarm_mount {
            PrewarmMounts::remove(&mount.path);
        }
        let tmp = lock(&self.tmp).take();
        if let Some(tmp) = tmp {
            self.context.tmp.give_back(tmp).await;
        }
        self.context.sweeper.live().remove(&self.name);
        if removed.is_err() {
            self.context.sweeper.again();
        }
    }

    async fn give_code(&self, code_dir: &Path) -> Result<(), StartError> {
        let (Some(mount), Ok(mounts)) = (&self.prewarm_mount, &self.context.prewarm_mounts) else {
            return Err(StartError::Unsupported("this sandbox has its code already".into()));
        };
        mounts
            .show(mount, code_dir)
            .map_err(|error| StartError::failed("give a prewarmed sandbox its code", error))
    }

    async fn ended(&self) {
        if let Ok((docker, _)) = self.context.engine.client().await {
            let mut waiting = docker.wait_container(&self.name, None::<WaitContainerOptions>);
            // The client reports an exit status other than 0 as an error.
            if let Some(Ok(_) | Err(ClientError::DockerContainerWaitError { .. })) =
                waiting.next().await
            {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    fn freeze(&self) -> bool {
        self.cgroup.as_ref().is_some_and(SandboxCgroup::freeze)
    }

    fn thaw(&self) -> bool {
        self.cgroup.as_ref().is_some_and(SandboxCgroup::thaw)
    }

    async fn pause(&self) -> bool {
        let engine = &self.context.engine;
        let Ok((docker, _)) = engine.client().await else { return false };
        engine.ask("pause a container", docker.pause_container(&self.name)).await.is_ok()
    }

    async fn unpause(&self) -> bool {
        let engine = &self.context.engine;
        let Ok((docker, _)) = engine.client().await else { return false };
        engine.ask("unpause a container", docker.unpause_container(&self.name)).await.is_ok()
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.cgroup.as_ref()?.memory_bytes()
    }

    fn oom_kills(&self) -> Option<u64> {
        self.cgroup.as_ref()?.oom_kills()
    }
}

impl fmt::Debug for DockerSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerSandbox").field("name", &self.name).finish_non_exhaustive()
    }
}
