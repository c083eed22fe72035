//! Starts everything that the process' roles need, and shuts it down in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hanshu_cluster::{Balancer, ClusterInvoker, PeerClient, RemoteImages, RemotePackages};
use hanshu_controller::{AccessKeys, Controller, MasterKey, SecretKey};
use hanshu_core::ports::{ImageBuilder, Invoke, PackageStore};
use hanshu_core::{Clock, SystemClock};
use hanshu_gateway::{Api, FunctionApi, HttpTriggers};
use hanshu_invoker::{Invoker, InvokerPorts};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::adapters::{SandboxAdapters, StorageAdapters};
use crate::catalog_feed;
use crate::config::{Config, Roles};
use crate::data_dir::DataDir;
use crate::data_plane::DataPlane;
use crate::error::Error;
use crate::function_calls::FunctionCallRelay;
use crate::lifecycle::ServerLifecycle;
use crate::listeners::BoundListeners;
use crate::process_signals::ProcessSignals;
use crate::role_startup::RoleStartup;

/// Longest time for each step after all work has ended: removing sandboxes, closing stores.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that runs in this process.
pub struct Server {
    config: Config,
    data_dir: DataDir,
    lifecycle: ServerLifecycle,
    data_plane: DataPlane,
    stores: StorageAdapters,
    invoker: Option<Arc<Invoker>>,
    sandboxes: Option<SandboxAdapters>,
    backend_tasks: TaskTracker,
    listeners: BoundListeners,
    credentials: Option<PathBuf>,
    function_calls: Arc<FunctionCallRelay>,
    signals: ProcessSignals,
}

/// The ports that run invocations, in this process or on other nodes.
struct ExecutionPorts {
    invoke: Arc<dyn Invoke>,
    images: Arc<dyn ImageBuilder>,
    packages: Arc<dyn PackageStore>,
    balancer: Option<Arc<Balancer>>,
}

impl Server {
    /// Starts everything that the roles need. When this returns, it serves.
    ///
    /// # Errors
    /// [`Error`]; nothing is left running then.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let signals = ProcessSignals::register()?;
        let roles = config.roles()?;
        let data_dir = DataDir::open(&config.data)?;
        let listeners = BoundListeners::bind(&config, roles).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        // The parts look their metrics up when they are made.
        crate::metrics::recorder();
        let lifecycle = ServerLifecycle::new(Handle::current());
        let data_plane = DataPlane::start()?;
        let stores = StorageAdapters::open(&config, data_dir.path(), &clock).await?;
        let backend_tasks = TaskTracker::new();
        let mut server = Self {
            config,
            data_dir,
            lifecycle,
            data_plane,
            stores,
            invoker: None,
            sandboxes: None,
            backend_tasks,
            listeners,
            credentials: None,
            function_calls: Arc::default(),
            signals,
        };
        match server.start_parts(roles, clock).await {
            Ok(()) => Ok(server),
            Err(error) => {
                server.shutdown().await;
                Err(error)
            }
        }
    }

    async fn start_parts(&mut self, roles: Roles, clock: Arc<dyn Clock>) -> Result<(), Error> {
        let access = self.open_access(roles, &*clock).await?;
        let ports = self.open_execution(roles, &clock).await?;
        let ExecutionPorts { invoke, images, packages, balancer } = ports;
        let registry = self.stores.registry.clone();
        let controller = Controller::new(
            registry,
            packages.clone(),
            images.clone(),
            access.clone(),
            clock.clone(),
        );
        controller
            .catalog()
            .refresh()
            .await
            .map_err(|error| Error::Store(format!("the catalog cannot be read: {error}")))?;
        let catalog = controller.catalog().clone();
        let stop = self.lifecycle.stop_intake.clone();
        self.lifecycle.spawn("catalog", async move { catalog.run(stop).await });

        let startup = RoleStartup {
            config: self.config.clone(),
            node: self.data_dir.node().clone(),
            lifecycle: self.lifecycle.clone(),
            data_plane: self.data_plane.handle().clone(),
            controller,
            queue: self.stores.queue.clone(),
            ended: self.stores.ended.clone(),
            history: self.stores.history.clone(),
            journal: self.stores.journal.clone(),
            nodes: self.stores.nodes.clone(),
            invoke,
            local_invoke: self.invoker.clone().map(|invoker| invoker as Arc<dyn Invoke>),
            images,
            packages,
            balancer,
            clock,
        };
        let catalog = startup.controller.catalog();
        let triggers = catalog_feed::start(catalog, self.invoker.clone(), &self.lifecycle);
        let states = roles.triggers.then(|| startup.start_triggers(&triggers));
        let http_url = self.listeners.http_address.map(|address| format!("http://{address}"));
        let trigger_health = startup.trigger_health(roles, states.clone())?;
        let gateway = startup.gateway(http_url, &triggers, trigger_health);
        self.function_calls.connect(Arc::new(FunctionApi::new(gateway.clone())));
        if let (Some(api), Some(http)) = (self.listeners.api.take(), self.listeners.http.take()) {
            startup.listen("api", api, Arc::new(Api::new(gateway.clone())))?;
            startup.listen("http triggers", http, Arc::new(HttpTriggers::new(gateway)))?;
        }
        if let Some(listener) = self.listeners.internal.take() {
            startup.start_internal_api(listener, roles, self.sandboxes.as_ref(), states)?;
        }
        if roles.controller {
            startup.start_history();
            startup.start_retention();
        }
        startup.start_maintenance(roles, self.stores.packages.clone());
        if let (Some(api), Some(http)) = (self.listeners.api_address, self.listeners.http_address) {
            let key = access.any_key().ok_or_else(|| Error::Broken("no access key".into()))?;
            self.credentials = Some(self.data_dir.write_credentials(api, http, &key)?);
        }
        Ok(())
    }

    /// Opens the access keys. A gateway that finds none makes the first one.
    async fn open_access(&self, roles: Roles, clock: &dyn Clock) -> Result<Arc<AccessKeys>, Error> {
        let cluster = &self.config.cluster;
        let master = match &cluster.master_key {
            None => self.data_dir.master_key()?,
            Some(key) => MasterKey::from_hex(key.expose()).ok_or_else(|| {
                Error::Config("`cluster.master_key` is not 64 hexadecimal characters".into())
            })?,
        };
        let access = Arc::new(AccessKeys::new(master));
        let registry = &*self.stores.registry;
        let to_error = |error: hanshu_controller::ControllerError| Error::Store(error.to_string());
        access.refresh(registry).await.map_err(to_error)?;
        if !access.is_empty() || !roles.gateway {
            return Ok(access);
        }
        let wanted = match (&cluster.first_secret_id, &cluster.first_secret_key) {
            (Some(id), Some(secret)) => Some(SecretKey { id: id.clone(), secret: secret.clone() }),
            _ => None,
        };
        match access.create(registry, clock, wanted).await {
            Ok(_) => {}
            // Another gateway made the first key meanwhile.
            Err(error) if error.kind() == hanshu_core::ErrorKind::Conflict => {
                access.refresh(registry).await.map_err(to_error)?;
            }
            Err(error) => return Err(to_error(error)),
        }
        Ok(access)
    }

    /// Makes the ports that run invocations: with sandboxes here, or with those of other nodes.
    async fn open_execution(
        &mut self,
        roles: Roles,
        clock: &Arc<dyn Clock>,
    ) -> Result<ExecutionPorts, Error> {
        let local: Arc<dyn PackageStore> = self.stores.packages.clone();
        let peers = self.peers(roles)?;
        let packages = match (&peers, roles.controller) {
            (Some(peers), false) => {
                let url = self.config.cluster.controller.as_deref().unwrap_or_default();
                Arc::new(RemotePackages::new(peers.clone(), url, local))
            }
            _ => local,
        };
        if roles.invoker {
            let (node, folder) = (self.data_dir.node().clone(), self.data_dir.path().to_owned());
            let sandboxes =
                SandboxAdapters::choose(&self.config, &node, &folder, &self.backend_tasks).await?;
            let ports = InvokerPorts {
                backend: sandboxes.backend.clone(),
                packages: packages.clone(),
                journal: self.stores.journal.clone(),
                clock: clock.clone(),
                calls: self.function_calls.clone(),
            };
            let invoker = Invoker::new(self.config.pool.clone(), ports, node, Handle::current());
            let images = sandboxes.images.clone();
            self.invoker = Some(invoker.clone());
            self.sandboxes = Some(sandboxes);
            invoker.recover().await.map_err(|error| Error::Sandbox(error.to_string()))?;
            let invoke: Arc<dyn Invoke> = match peers {
                None => invoker,
                Some(peers) => Arc::new(ClusterInvoker {
                    local: invoker,
                    node: self.data_dir.node().clone(),
                    nodes: self.stores.nodes.clone(),
                    peers,
                }),
            };
            return Ok(ExecutionPorts { invoke, images, packages, balancer: None });
        }
        let Some(peers) = peers else {
            return Err(Error::Config("without the invoker role `cluster.token` is needed".into()));
        };
        let balancer = Arc::new(Balancer::new(peers.clone(), clock.clone()));
        let (nodes, stop, each) =
            (self.stores.nodes.clone(), self.lifecycle.stop_intake.clone(), balancer.clone());
        self.lifecycle.spawn("balancer", async move { each.run(nodes, stop).await });
        let targets = balancer.clone();
        let images = RemoteImages::new(peers, move || {
            targets.nodes().iter().map(|node| node.url.clone()).collect()
        });
        let invoke = balancer.clone();
        Ok(ExecutionPorts { invoke, images: Arc::new(images), packages, balancer: Some(balancer) })
    }

    /// The client for the other processes of a cluster; `None` if this one has all roles.
    fn peers(&self, roles: Roles) -> Result<Option<PeerClient>, Error> {
        if roles == Roles::ALL {
            return Ok(None);
        }
        let cluster = &self.config.cluster;
        let token = cluster.token.clone().filter(|token| 32 <= token.expose().len());
        let token = token.ok_or_else(|| {
            Error::Config(
                "with some roles only, `cluster.token` (HANSHU_CLUSTER__TOKEN) is needed: the same \
                 32 or more characters in all processes"
                    .into(),
            )
        })?;
        if !roles.controller && cluster.controller.is_none() {
            return Err(Error::Config(
                "without the controller role, `cluster.controller` (HANSHU_CLUSTER__CONTROLLER) is \
                 needed: http://host:port of the controller's internal listener"
                    .into(),
            ));
        }
        let peers = PeerClient::new(token).map_err(|error| Error::Broken(error.to_string()))?;
        Ok(Some(peers))
    }

    /// The text that the program prints when it is ready: addresses, data folder, sandboxes.
    pub fn welcome(&self) -> String {
        let mut text =
            format!("hanshu {} is ready ({})\n", env!("CARGO_PKG_VERSION"), self.config.roles);
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            text += &format!("  {name:<14}{value}\n");
        };
        if let Some(address) = self.listeners.api_address {
            line("API", &format_args!("http://{address}"));
        }
        if let Some(address) = self.listeners.http_address {
            line("HTTP triggers", &format_args!("http://{address}"));
        }
        line("data", &self.data_dir.path().display());
        if let Some(path) = &self.credentials {
            line("credentials", &path.display());
        }
        if let Some(sandboxes) = &self.sandboxes {
            line("sandboxes", &sandboxes.backend.name());
            for guarantee in sandboxes.backend.guarantees() {
                if guarantee.level != hanshu_invoker::GuaranteeLevel::Full {
                    line("", &guarantee);
                }
            }
        }
        text
    }

    /// Serves until SIGTERM or SIGINT, then shuts down.
    ///
    /// # Errors
    /// [`Error::Broken`]: a task ended that must run until the stop.
    pub async fn run(mut self) -> Result<(), Error> {
        let task_failed = self.lifecycle.task_failed.clone();
        let failed = tokio::select! {
            () = self.signals.recv() => false,
            () = task_failed.cancelled() => true,
        };
        info!("Stopping: no new work");
        self.shutdown().await;
        match failed {
            false => Ok(()),
            true => Err(Error::Broken("a part of the server ended; its log says which".into())),
        }
    }

    /// Shuts down in order: no new work is taken, running events get the grace period, all sandboxes
    /// are removed, records are written, the stores are closed.
    pub async fn shutdown(self) {
        let grace = self.config.grace();
        self.lifecycle.stop_intake.cancel();
        let sandboxes_stopped = async {
            if let Some(invoker) = &self.invoker {
                invoker.stop(grace).await;
            }
        };
        let (drained, ()) = tokio::join!(self.lifecycle.drain(grace), sandboxes_stopped);
        if !drained {
            warn!("Some work was cancelled at the end of the grace period");
        }
        if let Some(sandboxes) = &self.sandboxes {
            sandboxes.backend.close().await;
        }
        self.backend_tasks.close();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.backend_tasks.wait()).await.is_err() {
            warn!("Some sandboxes were still being removed");
        }
        self.data_plane.close().await;
        self.stores.close(CLOSE_TIMEOUT).await;
        info!("Stopped");
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}
