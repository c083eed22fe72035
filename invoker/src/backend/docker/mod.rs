//! Sandboxes that are containers of a Docker engine.
//!
//! Nothing here is on the path of a warm call: the engine is asked to create, start and remove,
//! and for nothing else. What is asked often goes through the container's control group.

mod container_spec;
mod context;
mod engine;
#[cfg(test)]
mod fake_engine;
mod firewall;
mod guarantees;
pub(crate) mod images;
mod labels;
mod network;
mod sandbox;
mod slots;
mod sweep;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::query_parameters::{CreateContainerOptions, InspectContainerOptions};
use hanshu_core::{NodeId, RuntimeFamily};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::backend::cgroup::{CgroupHierarchy, SandboxCgroup};
use crate::backend::guarantee::SandboxGuarantee;
use crate::backend::host::SandboxHost;
use crate::backend::port::{
    NetworkAccess, Sandbox, SandboxBackend, SandboxOwner, SandboxSpec, StartError,
};
use crate::backend::tmp::TmpPool;
use crate::config::cores;
use container_spec::ContainerFolders;
use context::DockerContext;
use engine::{DockerEngine, EngineError};
use network::FunctionNetwork;
use sandbox::DockerSandbox;
use slots::{PrewarmMount, PrewarmMounts};
use sweep::ContainerSweeper;

/// Starts at once for each core: with more, every one takes longer and none is ready earlier.
const STARTS_PER_CORE: usize = 2;
/// Why an engine elsewhere gets no file systems and no firewall rules from us.
const FAR: &str = "the engine's machine is out of reach from here";
/// A start waits this long for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// What the backend needs to know.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// Whose containers they are.
    pub node: NodeId,
    /// `unix:///path` or `tcp://host:port`; `None` is the usual socket.
    pub engine: Option<String>,
    /// Folder of the backend alone: file systems for `/tmp`. The engine must see it at the same
    /// path, as well as the folders of code and sockets.
    pub dir: PathBuf,
    /// What is to be seen at `/var/runtime`: from `hanshu_runtimes::runtime_dir::install`.
    pub runtime_dir: PathBuf,
}

/// Starts sandboxes as containers.
#[derive(Debug)]
pub struct DockerBackend {
    options: DockerOptions,
    shared: Arc<DockerContext>,
    starts: Semaphore,
    bridge: FunctionNetwork,
    /// The host and its control groups, where they are in reach.
    groups: Option<(SandboxHost, CgroupHierarchy)>,
}

impl DockerBackend {
    /// Looks for the engine.
    ///
    /// # Errors
    /// [`StartError::Unavailable`] where none answers, within some seconds.
    pub async fn connect(options: DockerOptions, tasks: TaskTracker) -> Result<Self, StartError> {
        let engine = DockerEngine::new(options.engine.as_deref(), tasks.clone());
        engine.client().await?;
        let (tmp_dir, tracker) = (options.dir.join("tmp"), tasks.clone());
        let slots_dir = options.dir.join("prewarm");
        let asked = Arc::clone(&engine);
        let (host, tmp, slots) = tasks
            .spawn_blocking(move || {
                // The engine sees it at the same path, or is far.
                let made = fs::create_dir_all(&tmp_dir);
                let host = made.ok().and_then(|()| asked.host(&tmp_dir)).ok_or(FAR);
                let slots = PrewarmMounts::open(&slots_dir, &host);
                (host.clone(), TmpPool::open(&tmp_dir, host, tracker), slots)
            })
            .await
            .map_err(|error| StartError::failed("prepare /tmp", error))?;
        let bridge = FunctionNetwork::new(&options.node, host.clone(), tasks.clone());
        let hierarchy = host.clone().ok().and_then(|host| CgroupHierarchy::find(&host));
        let cores = cores();
        Ok(Self {
            shared: Arc::new(DockerContext {
                sweeper: ContainerSweeper::new(Arc::clone(&engine), options.node.clone(), tasks),
                engine,
                tmp,
                slots,
                swept: AtomicBool::new(false),
                images: Arc::default(),
            }),
            options,
            starts: Semaphore::new(cores * STARTS_PER_CORE),
            bridge,
            groups: host.ok().zip(hierarchy),
        })
    }

    /// Makes the images of this engine.
    pub fn images(&self) -> images::DockerImages {
        let options = &self.options;
        let dir = options.dir.join("images");
        let (engine, states) = (Arc::clone(&self.shared.engine), Arc::clone(&self.shared.images));
        images::DockerImages::new(engine, options.node.clone(), dir, states)
    }

    /// The engine, with everything in order that it may have lost while it was away.
    async fn client(&self) -> Result<Docker, EngineError> {
        let (docker, fresh) = self.shared.engine.client().await?;
        if fresh && self.shared.swept.load(Ordering::Acquire) {
            tracing::info!("The Docker engine is back");
            self.bridge.forget().await;
            self.shared.sweeper.again();
        }
        Ok(docker)
    }

    async fn start_in(
        &self,
        docker: &Docker,
        spec: &SandboxSpec,
        places: ContainerFolders<'_>,
    ) -> Result<(Option<SandboxCgroup>, Option<u32>), EngineError> {
        let engine = &self.shared.engine;
        let network = match spec.network {
            NetworkAccess::None => container_spec::NO_NETWORK,
            NetworkAccess::Bridge => self.bridge.ensure(engine, docker).await?,
        };
        let body = container_spec::container(spec, network, places);
        let name = labels::container_name(spec.instance);
        let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
        engine.ask("create a container", docker.create_container(Some(options), body)).await?;
        let started = docker.start_container(&name, None);
        if let Err(error) = engine.ask("start a container", started).await {
            // A network that is gone is made again the next time.
            self.bridge.forget().await;
            return Err(error);
        }
        let inspected = docker.inspect_container(&name, None::<InspectContainerOptions>);
        let found = engine.ask("look at a container", inspected).await?;
        let pid = found.state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok());
        let group =
            self.groups.as_ref().zip(pid).zip(found.id).and_then(|(((host, groups), pid), id)| {
                SandboxCgroup::of_process(host, groups, pid, &id)
            });
        Ok((group, pid))
    }
}

impl DockerBackend {
    /// Where a prewarmed sandbox's code will be; none for others.
    fn slot(&self, spec: &SandboxSpec) -> Result<Option<PathBuf>, StartError> {
        match (&spec.whose, &self.shared.slots) {
            (SandboxOwner::Function { .. }, _) => Ok(None),
            (SandboxOwner::Unassigned, Ok(slots)) => {
                let made = slots.make(spec.instance);
                made.map(Some)
                    .map_err(|error| StartError::failed("make a prewarmed sandbox's folder", error))
            }
            (SandboxOwner::Unassigned, Err(reason)) => Err(StartError::Unsupported(reason.clone())),
        }
    }
}

#[async_trait]
impl SandboxBackend for DockerBackend {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn default_network(&self, _family: RuntimeFamily) -> NetworkAccess {
        NetworkAccess::Bridge
    }

    async fn start(&self, spec: &SandboxSpec) -> Result<Box<dyn Sandbox>, StartError> {
        let _turn = timeout(TURN_TIMEOUT, self.starts.acquire()).await.map_err(|_| {
            StartError::Unavailable("the Docker engine is busy starting other sandboxes".into())
        })?;
        let docker = self.client().await?;
        let tmp = self.shared.tmp.take(spec.uid).await;
        let tmp = tmp.map_err(|error| StartError::failed("make /tmp", error))?;
        let slot = match self.slot(spec) {
            Ok(slot) => slot,
            Err(error) => {
                self.shared.tmp.give_back(tmp).await;
                return Err(error);
            }
        };
        let name = labels::container_name(spec.instance);
        self.shared.sweeper.live().insert(name.clone());
        let places = ContainerFolders {
            runtime_dir: &self.options.runtime_dir,
            tmp: &tmp,
            slot: slot.as_deref(),
        };
        let started = self.start_in(&docker, spec, places).await;
        let ((group, pid), error) = match started {
            Ok(found) => (found, None),
            Err(error) => ((None, None), Some(error)),
        };
        tracing::debug!(instance = %spec.instance, group = group.is_some(), "Started a container");
        let slot = slot.map(|path| PrewarmMount { path, pid });
        let sandbox = DockerSandbox::new(name, group, (tmp, slot), Arc::clone(&self.shared));
        match error {
            None => Ok(Box::new(sandbox)),
            Some(error) => {
                sandbox.stop().await;
                Err(self.shared.explained(error, spec.family))
            }
        }
    }

    fn prewarming(&self) -> Result<(), String> {
        if self.groups.is_none() {
            return Err("control groups are out of reach".into());
        }
        self.shared.slots.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    async fn sweep(&self) -> Result<u32, StartError> {
        let docker = self.client().await?;
        let swept = self.shared.sweeper.containers(&docker).await?;
        if 0 < swept.left {
            self.shared.sweeper.again();
        }
        self.shared.sweeper.networks(&docker).await?;
        self.bridge.clear_firewall().await;
        self.shared.swept.store(true, Ordering::Release);
        Ok(swept.found)
    }

    fn guarantees(&self) -> Vec<SandboxGuarantee> {
        let root = nix::unistd::Uid::effective().is_root();
        guarantees::table(&guarantees::DockerHostCapabilities {
            groups: root && self.groups.is_some(),
            firewall_refused: self.bridge.firewall_refused(),
            tmp_refused: self.shared.tmp.refused().map(str::to_owned),
            root,
        })
    }

    async fn close(&self) {
        self.shared.sweeper.close();
        self.shared.engine.close();
        if let Ok((docker, _)) = self.shared.engine.client().await
            && let Err(error) = self.shared.sweeper.networks(&docker).await
        {
            tracing::warn!(%error, "Could not remove the network of functions");
        }
        self.bridge.clear_firewall().await;
        let shared = Arc::clone(&self.shared);
        let closed = tokio::task::spawn_blocking(move || {
            shared.tmp.close();
            if let Ok(slots) = &shared.slots {
                slots.clear();
            }
        });
        let _ = closed.await;
    }
}
