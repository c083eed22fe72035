//! The platform: everything that a process' roles need, started in order and stopped in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hanshu_controller::{Access, Controller, MasterKey, SecretKey};
use hanshu_core::ports::{ImageBuilder, Invoke, PackageStore};
use hanshu_core::{Clock, SystemClock};
use hanshu_gateway::internal::{Balancer, Peers, RemoteImages, RemotePackages};
use hanshu_invoker::{Invoker, Ports};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::assembly::{Sandboxes, Stores};
use crate::config::{Config, Roles};
use crate::data_plane::DataPlane;
use crate::error::Error;
use crate::folder::DataFolder;
use crate::lifecycle::Lifecycle;
use crate::running::{Feed, Parts};

/// What is left to do when everything has ended may take so long.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// A running platform.
pub struct Platform {
    config: Config,
    folder: DataFolder,
    lifecycle: Lifecycle,
    data: DataPlane,
    stores: Stores,
    invoker: Option<Arc<Invoker>>,
    sandboxes: Option<Sandboxes>,
    backend_tasks: TaskTracker,
    listeners: Listeners,
    credentials: Option<PathBuf>,
    signals: Signals,
}

/// What tells the process to stop. Heard from the very start: one that comes before everything
/// runs is heeded as soon as it does.
#[derive(Debug)]
struct Signals {
    term: Signal,
    int: Signal,
}

/// Where it listens; bound before anything runs.
#[derive(Debug, Default)]
struct Listeners {
    api: Option<TcpListener>,
    http: Option<TcpListener>,
    internal: Option<TcpListener>,
    api_address: Option<SocketAddr>,
    http_address: Option<SocketAddr>,
}

/// Where invocations run and what that takes.
struct Running {
    invoke: Arc<dyn Invoke>,
    images: Arc<dyn ImageBuilder>,
    packages: Arc<dyn PackageStore>,
    balancer: Option<Arc<Balancer>>,
}

impl Platform {
    /// Starts everything that the roles need. When this returns, it serves.
    ///
    /// # Errors
    /// [`Error`], in one sentence; nothing is left running then.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let signals = Signals::listen()?;
        let roles = config.roles()?;
        let folder = DataFolder::open(&config.data)?;
        let listeners = Listeners::bind(&config, roles).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        // Before any part looks its metrics up.
        crate::telemetry::recorder();
        let lifecycle = Lifecycle::new(Handle::current());
        let data = DataPlane::start()?;
        let stores = Stores::open(&config, folder.path(), &clock).await?;
        let backend_tasks = TaskTracker::new();
        let mut platform = Self {
            config,
            folder,
            lifecycle,
            data,
            stores,
            invoker: None,
            sandboxes: None,
            backend_tasks,
            listeners,
            credentials: None,
            signals,
        };
        match platform.run_parts(roles, clock).await {
            Ok(()) => Ok(platform),
            Err(error) => {
                platform.stop().await;
                Err(error)
            }
        }
    }

    async fn run_parts(&mut self, roles: Roles, clock: Arc<dyn Clock>) -> Result<(), Error> {
        let access = self.open_access(roles, &*clock).await?;
        let running = self.open_running(roles, &clock).await?;
        let Running { invoke, images, packages, balancer } = running;
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
        let stop = self.lifecycle.intake.clone();
        self.lifecycle.spawn("catalog", async move { catalog.run(stop).await });

        let parts = Parts {
            config: self.config.clone(),
            node: self.folder.node().clone(),
            lifecycle: self.lifecycle.clone(),
            data: self.data.handle().clone(),
            controller,
            queue: self.stores.queue.clone(),
            journal: self.stores.journal.clone(),
            nodes: self.stores.nodes.clone(),
            invoke,
            images,
            packages,
            balancer,
            clock,
        };
        let feed = Feed::start(&parts, self.invoker.clone());
        let states = roles.triggers.then(|| parts.run_triggers(&feed));
        if let (Some(api), Some(http)) = (self.listeners.api.take(), self.listeners.http.take()) {
            parts.run_gateway(api, http, &feed, states.clone())?;
        }
        if let Some(listener) = self.listeners.internal.take() {
            parts.run_internal(listener, roles, self.sandboxes.as_ref(), states)?;
        }
        if roles.controller {
            parts.run_retention();
        }
        parts.run_upkeep(roles, self.stores.packages.clone());
        if let (Some(api), Some(http)) = (self.listeners.api_address, self.listeners.http_address) {
            let key = access.reveal_first().ok_or_else(|| Error::Broken("no access key".into()))?;
            self.credentials = Some(self.folder.write_credentials(api, http, &key)?);
        }
        Ok(())
    }

    /// The access keys; a gateway's first start makes one.
    async fn open_access(&self, roles: Roles, clock: &dyn Clock) -> Result<Arc<Access>, Error> {
        let cluster = &self.config.cluster;
        let master = match &cluster.master_key {
            None => self.folder.master_key()?,
            Some(key) => MasterKey::from_hex(key.expose()).ok_or_else(|| {
                Error::Config("`cluster.master_key` is not 64 hexadecimal characters".into())
            })?,
        };
        let access = Arc::new(Access::new(master));
        let registry = &*self.stores.registry;
        let said = |error: hanshu_controller::Error| Error::Store(error.to_string());
        access.refresh(registry).await.map_err(said)?;
        if !access.is_empty() || !roles.gateway {
            return Ok(access);
        }
        let wanted = match (&cluster.first_secret_id, &cluster.first_secret_key) {
            (Some(id), Some(secret)) => Some(SecretKey { id: id.clone(), secret: secret.clone() }),
            _ => None,
        };
        match access.create(registry, clock, wanted).await {
            Ok(_) => {}
            // Another gateway was faster: its key is everybody's.
            Err(error) if error.kind() == hanshu_core::ErrorKind::Conflict => {
                access.refresh(registry).await.map_err(said)?;
            }
            Err(error) => return Err(said(error)),
        }
        Ok(access)
    }

    /// Sandboxes here, or other nodes'.
    async fn open_running(
        &mut self,
        roles: Roles,
        clock: &Arc<dyn Clock>,
    ) -> Result<Running, Error> {
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
            let (node, folder) = (self.folder.node().clone(), self.folder.path().to_owned());
            let sandboxes =
                Sandboxes::choose(&self.config, &node, &folder, &self.backend_tasks).await?;
            let ports = Ports {
                backend: sandboxes.backend.clone(),
                packages: packages.clone(),
                journal: self.stores.journal.clone(),
                clock: clock.clone(),
            };
            let invoker = Invoker::new(self.config.pool.clone(), ports, node, Handle::current());
            let images = sandboxes.images.clone();
            self.invoker = Some(invoker.clone());
            self.sandboxes = Some(sandboxes);
            invoker.recover().await.map_err(|error| Error::Sandbox(error.to_string()))?;
            return Ok(Running { invoke: invoker, images, packages, balancer: None });
        }
        let Some(peers) = peers else {
            return Err(Error::Config("without the invoker role `cluster.token` is needed".into()));
        };
        let balancer = Arc::new(Balancer::new(peers.clone(), clock.clone()));
        let (nodes, stop, each) =
            (self.stores.nodes.clone(), self.lifecycle.intake.clone(), balancer.clone());
        self.lifecycle.spawn("balancer", async move { each.run(nodes, stop).await });
        let targets = balancer.clone();
        let images = RemoteImages::new(peers, move || {
            targets.nodes().iter().map(|node| node.url.clone()).collect()
        });
        let invoke = balancer.clone();
        Ok(Running { invoke, images: Arc::new(images), packages, balancer: Some(balancer) })
    }

    /// Connections to sister processes, where there are any.
    fn peers(&self, roles: Roles) -> Result<Option<Peers>, Error> {
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
        let peers = Peers::new(token).map_err(|error| Error::Broken(error.to_string()))?;
        Ok(Some(peers))
    }

    /// What an operator wants to know at the start.
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
        line("data", &self.folder.path().display());
        if let Some(path) = &self.credentials {
            line("credentials", &path.display());
        }
        if let Some(sandboxes) = &self.sandboxes {
            line("sandboxes", &sandboxes.backend.name());
            for guarantee in sandboxes.backend.guarantees() {
                if guarantee.held != hanshu_invoker::Held::Held {
                    line("", &guarantee);
                }
            }
        }
        text
    }

    /// Serves until SIGTERM or SIGINT, then stops in order.
    ///
    /// # Errors
    /// [`Error::Broken`]: a part ended that must not.
    pub async fn run(mut self) -> Result<(), Error> {
        let broken = self.lifecycle.broken.clone();
        let was_broken = tokio::select! {
            _ = self.signals.term.recv() => false,
            _ = self.signals.int.recv() => false,
            () = broken.cancelled() => true,
        };
        info!("Stopping: no new work");
        self.stop().await;
        match was_broken {
            false => Ok(()),
            true => Err(Error::Broken("a part of the server ended; its log says which".into())),
        }
    }

    /// No new work; running events get their grace; all sandboxes are removed.
    pub async fn stop(self) {
        let grace = self.config.grace();
        self.lifecycle.intake.cancel();
        let sandboxes_gone = async {
            if let Some(invoker) = &self.invoker {
                invoker.stop(grace).await;
            }
        };
        let (drained, ()) = tokio::join!(self.lifecycle.wind_down(grace), sandboxes_gone);
        if !drained {
            warn!("Some work was cut off at the end of the grace");
        }
        if let Some(sandboxes) = &self.sandboxes {
            sandboxes.backend.close().await;
        }
        self.backend_tasks.close();
        if tokio::time::timeout(CLOSE_PATIENCE, self.backend_tasks.wait()).await.is_err() {
            warn!("Some sandboxes were still being removed");
        }
        self.data.close().await;
        self.stores.close(CLOSE_PATIENCE).await;
        info!("Stopped");
    }
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl Signals {
    fn listen() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(|error| Error::Broken(error.to_string()));
        Ok(Self { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? })
    }
}

impl Listeners {
    async fn bind(config: &Config, roles: Roles) -> Result<Self, Error> {
        let mut bound = Self::default();
        if roles.gateway {
            let (api, address) = bind("listen", config.listen).await?;
            (bound.api, bound.api_address) = (Some(api), Some(address));
            let (http, address) = bind("http_listen", config.http_listen).await?;
            (bound.http, bound.http_address) = (Some(http), Some(address));
        }
        if let Some(address) = config.cluster.listen
            && (roles.invoker || roles.controller || roles.triggers)
        {
            bound.internal = Some(bind("cluster.listen", address).await?.0);
        }
        Ok(bound)
    }
}

async fn bind(name: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |error: std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "the port is in use by another program: stop it, or choose another port (0 takes \
                 any free one)"
                    .into()
            }
            _ => error.to_string(),
        };
        Error::Listen { name, address: address.to_string(), reason }
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
