//! Sandboxes that are containers of a Docker engine.
//!
//! Nothing here is on the path of a warm call: the engine creates, starts and removes containers
//! and does nothing else. What is asked often goes through the container's control group.

mod container_spec;
mod context;
mod engine;
mod firewall;
mod function_network;
mod guarantees;
pub(crate) mod images;
mod labels;
mod prewarm_mounts;
mod sandbox;
#[cfg(test)]
mod scripted_engine;
mod sweep;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::query_parameters::{CreateContainerOptions, InspectContainerOptions};
use hanshu_core::NodeId;
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
use function_network::FunctionNetwork;
use images::DockerImages;
use prewarm_mounts::{PrewarmMount, PrewarmMounts};
use sandbox::{ContainerParts, DockerSandbox};
use sweep::ContainerSweeper;

/// Starts at once for each core: with more, each takes longer and none is ready earlier.
const STARTS_PER_CORE: usize = 2;
/// Why a distant engine gets no file systems and no firewall rules from this node.
const DISTANT: &str = "the engine's machine cannot be reached from here";
/// How long a start waits for one of the [`STARTS_PER_CORE`].
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// Settings of the backend.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// The node whose containers they are.
    pub node: NodeId,
    /// `unix:///path` or `tcp://host:port`; `None` is the usual socket.
    pub engine: Option<String>,
    /// Folder of the backend alone, for file systems for `/tmp`. The engine must see it at the same
    /// path, as well as the folders of code and sockets.
    pub dir: PathBuf,
    /// What is mounted at `/var/runtime`: from `hanshu_runtimes::runtime_dir::install`.
    pub runtime_dir: PathBuf,
}

/// Starts sandboxes as containers.
#[derive(Debug)]
pub struct DockerBackend {
    options: DockerOptions,
    context: Arc<DockerContext>,
    start_slots: Semaphore,
    network: FunctionNetwork,
    /// The host and its control groups, where they can be reached.
    cgroups: Option<(SandboxHost, CgroupHierarchy)>,
}

/// What is known of a container that was started.
#[derive(Debug, Default)]
struct StartedContainer {
    cgroup: Option<SandboxCgroup>,
    /// Process 1, by its id on this node.
    pid: Option<u32>,
}

impl DockerBackend {
    /// Connects to the engine.
    ///
    /// # Errors
    /// [`StartError::Unavailable`] where none answers, within some seconds.
    pub async fn connect(options: DockerOptions, tasks: TaskTracker) -> Result<Self, StartError> {
        let engine = DockerEngine::new(options.engine.as_deref(), tasks.clone());
        engine.client().await?;
        let (tmp_dir, tracker) = (options.dir.join("tmp"), tasks.clone());
        let mounts_dir = options.dir.join("prewarm");
        let asked = Arc::clone(&engine);
        let (host, tmp, prewarm_mounts) = tasks
            .spawn_blocking(move || {
                // The engine sees the folder at the same path, or is on another machine.
                let made = fs::create_dir_all(&tmp_dir);
                let host = made.ok().and_then(|()| asked.host(&tmp_dir)).ok_or(DISTANT);
                let mounts = PrewarmMounts::open(&mounts_dir, &host);
                (host.clone(), TmpPool::open(&tmp_dir, host, tracker), mounts)
            })
            .await
            .map_err(|error| StartError::failed("prepare /tmp", error))?;
        let network = FunctionNetwork::new(&options.node, host.clone(), tasks.clone());
        let hierarchy = host.clone().ok().and_then(|host| CgroupHierarchy::find(&host));
        Ok(Self {
            context: Arc::new(DockerContext {
                sweeper: ContainerSweeper::new(Arc::clone(&engine), options.node.clone(), tasks),
                engine,
                tmp,
                prewarm_mounts,
                swept: AtomicBool::new(false),
                image_states: Arc::default(),
            }),
            options,
            start_slots: Semaphore::new(cores() * STARTS_PER_CORE),
            network,
            cgroups: host.ok().zip(hierarchy),
        })
    }

    /// What makes the images of this engine.
    pub fn images(&self) -> DockerImages {
        let dir = self.options.dir.join("images");
        let engine = Arc::clone(&self.context.engine);
        let states = Arc::clone(&self.context.image_states);
        DockerImages::new(engine, self.options.node.clone(), dir, states)
    }

    /// The engine, after everything was put in order that it may have lost while it was unavailable.
    async fn client(&self) -> Result<Docker, EngineError> {
        let (docker, fresh) = self.context.engine.client().await?;
        if fresh && self.context.swept.load(Ordering::Acquire) {
            tracing::info!("The Docker engine is back");
            self.network.forget().await;
            self.context.sweeper.again();
        }
        Ok(docker)
    }

    async fn start_container(
        &self,
        docker: &Docker,
        spec: &SandboxSpec,
        folders: ContainerFolders<'_>,
    ) -> Result<StartedContainer, EngineError> {
        let engine = &self.context.engine;
        let network = match spec.network {
            NetworkAccess::None => container_spec::NO_NETWORK,
            NetworkAccess::Bridge => self.network.ensure(engine, docker).await?,
        };
        let body = container_spec::container(spec, network, folders);
        let name = labels::container_name(spec.instance);
        let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
        let created = docker.create_container(Some(options), body);
        engine.ask(context::CREATE_CONTAINER, created).await?;
        let started = docker.start_container(&name, None);
        if let Err(error) = engine.ask("start a container", started).await {
            // A network that is gone is made again the next time.
            self.network.forget().await;
            return Err(error);
        }
        let inspected = docker.inspect_container(&name, None::<InspectContainerOptions>);
        let found = engine.ask("inspect a container", inspected).await?;
        let pid = found.state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok());
        let cgroup = self.cgroups.as_ref().zip(pid).zip(found.id).and_then(
            |(((host, hierarchy), pid), id)| SandboxCgroup::of_process(host, hierarchy, pid, &id),
        );
        Ok(StartedContainer { cgroup, pid })
    }

    /// The folder through which a prewarmed sandbox will get its code; none for others.
    fn prewarm_folder(&self, spec: &SandboxSpec) -> Result<Option<PathBuf>, StartError> {
        match (&spec.owner, &self.context.prewarm_mounts) {
            (SandboxOwner::Function { .. }, _) => Ok(None),
            (SandboxOwner::Unassigned, Ok(mounts)) => {
                let made = mounts.make(spec.instance);
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

    fn default_network(&self, _listens: bool) -> NetworkAccess {
        NetworkAccess::Bridge
    }

    async fn start(&self, spec: &SandboxSpec) -> Result<Box<dyn Sandbox>, StartError> {
        let _turn = timeout(TURN_TIMEOUT, self.start_slots.acquire()).await.map_err(|_| {
            StartError::Unavailable("the Docker engine is busy starting other sandboxes".into())
        })?;
        let docker = self.client().await?;
        let tmp = self.context.tmp.take(spec.uid).await;
        let tmp = tmp.map_err(|error| StartError::failed("make /tmp", error))?;
        let prewarm_folder = match self.prewarm_folder(spec) {
            Ok(folder) => folder,
            Err(error) => {
                self.context.tmp.give_back(tmp).await;
                return Err(error);
            }
        };
        let name = labels::container_name(spec.instance);
        self.context.sweeper.live().insert(name.clone());
        let folders = ContainerFolders {
            runtime_dir: &self.options.runtime_dir,
            tmp: &tmp,
            prewarm: prewarm_folder.as_deref(),
        };
        let (started, error) = match self.start_container(&docker, spec, folders).await {
            Ok(started) => (started, None),
            Err(error) => (StartedContainer::default(), Some(error)),
        };
        let StartedContainer { cgroup, pid } = started;
        tracing::debug!(instance = %spec.instance, cgroup = cgroup.is_some(), "Started a container");
        let prewarm_mount = prewarm_folder.map(|path| PrewarmMount { path, pid });
        let parts = ContainerParts { name, cgroup, tmp, prewarm_mount };
        let sandbox = DockerSandbox::new(parts, Arc::clone(&self.context));
        match error {
            None => Ok(Box::new(sandbox)),
            Some(error) => {
                sandbox.stop().await;
                Err(self.context.to_start_error(error, &spec.image))
            }
        }
    }

    fn prewarming(&self) -> Result<(), String> {
        if self.cgroups.is_none() {
            return Err("control groups cannot be reached".into());
        }
        self.context.prewarm_mounts.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    async fn sweep(&self) -> Result<u32, StartError> {
        let docker = self.client().await?;
        let swept = self.context.sweeper.containers(&docker).await?;
        if 0 < swept.left {
            self.context.sweeper.again();
        }
        self.context.sweeper.networks(&docker).await?;
        self.network.clear_firewall().await;
        self.context.swept.store(true, Ordering::Release);
        Ok(swept.found)
    }

    fn guarantees(&self) -> Vec<SandboxGuarantee> {
        let root = nix::unistd::Uid::effective().is_root();
        guarantees::table(&guarantees::DockerHostCapabilities {
            cgroups: root && self.cgroups.is_some(),
            firewall_refused: self.network.firewall_refused(),
            tmp_refused: self.context.tmp.refused().map(str::to_owned),
            root,
        })
    }

    async fn close(&self) {
        self.context.sweeper.close();
        self.context.engine.close();
        if let Ok((docker, _)) = self.context.engine.client().await
            && let Err(error) = self.context.sweeper.networks(&docker).await
        {
            tracing::warn!(%error, "Could not remove the network of functions");
        }
        self.network.clear_firewall().await;
        let context = Arc::clone(&self.context);
        let closed = tokio::task::spawn_blocking(move || {
            context.tmp.close();
            if let Ok(mounts) = &context.prewarm_mounts {
                mounts.clear();
            }
        });
        let _ = closed.await;
    }
}
