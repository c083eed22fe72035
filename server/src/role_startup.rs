//! Starts the tasks and listeners of each role.

use std::sync::Arc;
use std::time::Duration;

use hanshu_cluster::{
    Balancer, ClusterServer, ClusterServerParts, PeerClient, RemoteTriggerHealth,
};
use hanshu_controller::Controller;
use hanshu_core::ports::{
    EndedEvents, EventQueue, ImageBuilder, InvocationHistory, InvocationJournal, Invoke,
    InvokerNode, NodeRegistry, PackageStore, TriggerHealth,
};
use hanshu_core::{Clock, NodeId};
use hanshu_gateway::{
    Gateway, GatewayOptions, GatewayParts, HttpServerOptions, RequestHandler, serve,
};
use hanshu_triggers::{
    DispatcherOptions, EventIntake, IntakeOptions, QueueDispatcher, RetryPolicy, StopSignals,
    StreamReaderSet, StreamStatusMap, TimerOptions, TimerScheduler, TriggersView,
};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::adapters::SandboxAdapters;
use crate::cluster_listener::ClusterListener;
use crate::config::{Config, Roles};
use crate::error::Error;
use crate::history_writer::HistoryWriter;
use crate::lifecycle::ServerLifecycle;
use crate::metrics::record_queue_depths;
use crate::missing_images::MissingImageBuilder;
use crate::readiness::ReadinessChecks;
use crate::retention::{FetchedPackageCleanup, RetentionJob, remove_old_images};

/// How long an invoker's lease lasts; it is renewed three times in it.
const LEASE_DURATION: Duration = Duration::from_secs(6);

/// The parts of the server that the roles' tasks share.
pub(crate) struct RoleStartup {
    pub(crate) config: Config,
    pub(crate) node: NodeId,
    pub(crate) lifecycle: ServerLifecycle,
    pub(crate) data_plane: Handle,
    pub(crate) controller: Controller,
    pub(crate) queue: Arc<dyn EventQueue>,
    pub(crate) ended: Arc<dyn EndedEvents>,
    pub(crate) history: Arc<dyn InvocationHistory>,
    pub(crate) journal: Arc<dyn InvocationJournal>,
    pub(crate) nodes: Arc<dyn NodeRegistry>,
    /// Runs invocations here or elsewhere, and cancels them everywhere.
    pub(crate) invoke: Arc<dyn Invoke>,
    /// The invoker of this process, if it has one.
    pub(crate) local_invoke: Option<Arc<dyn Invoke>>,
    pub(crate) images: Arc<dyn ImageBuilder>,
    pub(crate) packages: Arc<dyn PackageStore>,
    pub(crate) balancer: Option<Arc<Balancer>>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl RoleStartup {
    fn intake(&self) -> Arc<EventIntake> {
        Arc::new(EventIntake {
            catalog: self.controller.catalog().clone(),
            invoke: self.invoke.clone(),
            queue: self.queue.clone(),
            clock: self.clock.clone(),
            general: Handle::current(),
            options: IntakeOptions {
                wait_timeout: Duration::from_millis(self.config.wait_timeout_ms),
            },
        })
    }

    fn stop(&self) -> StopSignals {
        StopSignals {
            intake: self.lifecycle.stop_intake.clone(),
            work: self.lifecycle.stop_work.clone(),
        }
    }

    /// Starts timers, the dispatcher and the readers of users' streams.
    pub(crate) fn start_triggers(&self, triggers: &TriggersView) -> StreamStatusMap {
        let context = hanshu_triggers::DispatchContext {
            queue: self.queue.clone(),
            catalog: self.controller.catalog().clone(),
            invoke: self.invoke.clone(),
            clock: self.clock.clone(),
            node: self.node.clone(),
            data: self.data_plane.clone(),
            policy: RetryPolicy::default(),
        };
        let in_flight_max = self.config.async_running_max;
        let options = DispatcherOptions {
            in_flight_max,
            per_function_max: in_flight_max.saturating_mul(3).div_ceil(4).max(1),
            ..DispatcherOptions::default()
        };
        let dispatcher = QueueDispatcher::new(context.clone(), options);
        self.lifecycle.spawn("dispatcher", dispatcher.run(self.stop()));
        let timers = TimerOptions { zone: self.config.timezone.clone(), ..TimerOptions::default() };
        let timers = TimerScheduler::new(self.intake(), timers);
        self.lifecycle.spawn("timers", timers.run(triggers.clone(), self.stop()));
        let states = StreamStatusMap::default();
        let readers = StreamReaderSet::new(context, states.clone());
        self.lifecycle.spawn("stream readers", readers.run(triggers.clone(), self.stop()));
        states
    }

    /// What answers the API, HTTP triggers and the calls of functions. `http_url` is where this
    /// process' HTTP triggers are reached, unless the settings name another.
    pub(crate) fn gateway(
        &self,
        http_url: Option<String>,
        triggers: &TriggersView,
        trigger_health: Arc<dyn TriggerHealth>,
    ) -> Gateway {
        Gateway::new(GatewayParts {
            controller: Arc::new(self.controller.clone()),
            intake: self.intake(),
            queue: self.queue.clone(),
            history: self.history.clone(),
            journal: self.journal.clone(),
            triggers: triggers.clone(),
            readiness: Arc::new(ReadinessChecks {
                controller: self.controller.clone(),
                queue: self.queue.clone(),
                allow_unsafe_queue: self.config.allow_unsafe_queue,
                data_dir: self.config.data.clone(),
                balancer: self.balancer.clone(),
            }),
            trigger_health,
            prometheus: crate::metrics::recorder(),
            clock: self.clock.clone(),
            general: Handle::current(),
            tasks: self.lifecycle.tasks.clone(),
            options: GatewayOptions {
                http_url: self.config.http_url.clone().or(http_url).unwrap_or_default(),
                timezone: self.config.timezone.clone(),
            },
        })
    }

    /// Health problems of triggers, from this process' streams or, for a gateway without any, those
    /// of the triggers processes.
    pub(crate) fn trigger_health(
        &self,
        roles: Roles,
        states: Option<StreamStatusMap>,
    ) -> Result<Arc<dyn TriggerHealth>, Error> {
        if states.is_some() || !roles.gateway {
            return Ok(Arc::new(states.unwrap_or_default()));
        }
        let token = self.config.cluster.token.clone();
        let token = token.ok_or_else(|| Error::Config("`cluster.token` is needed".into()))?;
        let peers = PeerClient::new(token).map_err(|error| Error::Broken(error.to_string()))?;
        let targets = self.config.cluster.triggers.clone();
        let health = Arc::new(RemoteTriggerHealth::new(peers, move || targets.clone()));
        let (poller, stop) = (health.clone(), self.lifecycle.stop_intake.clone());
        self.lifecycle.spawn("trigger health", async move { poller.run(stop).await });
        Ok(health)
    }

    /// Starts the internal API, which the other processes of the cluster call.
    pub(crate) fn start_internal_api(
        &self,
        listener: TcpListener,
        roles: Roles,
        sandboxes: Option<&SandboxAdapters>,
        states: Option<StreamStatusMap>,
    ) -> Result<(), Error> {
        let address = listener.local_addr().map_err(|error| Error::Broken(error.to_string()))?;
        let cluster = &self.config.cluster;
        let token = cluster.token.clone().ok_or_else(|| {
            Error::Config(
                "`cluster.listen` without `cluster.token`: the other processes must send it".into(),
            )
        })?;
        let server = ClusterServer::new(ClusterServerParts {
            token,
            invoke: self.local_invoke.clone(),
            packages: roles.controller.then(|| self.packages.clone()),
            images: sandboxes.map(|_| self.images.clone()),
            trigger_health: states.map(|states| Arc::new(states) as Arc<dyn TriggerHealth>),
            general: Handle::current(),
            tasks: TaskTracker::new(),
        });
        self.listen("internal", listener, Arc::new(ClusterListener(server)))?;
        if roles.invoker {
            let url = cluster.advertise.clone().unwrap_or_else(|| format!("http://{address}"));
            let memory_mb = self.config.pool.memory_mb();
            self.start_lease_renewal(InvokerNode { id: self.node.clone(), url, memory_mb });
            if roles != Roles::ALL {
                self.start_missing_images();
            }
        }
        Ok(())
    }

    /// Serves a listener on the data plane.
    pub(crate) fn listen<A: RequestHandler>(
        &self,
        name: &'static str,
        listener: TcpListener,
        answer: Arc<A>,
    ) -> Result<(), Error> {
        let broken = |error: std::io::Error| Error::Broken(format!("{name}: {error}"));
        // It was registered with the general runtime; it must be polled by the data plane's.
        let listener = listener.into_std().map_err(broken)?;
        let stop = self.lifecycle.stop_intake.clone();
        let serving = async move {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return warn!(%error, listener = name, "Could not listen"),
            };
            let connections = TaskTracker::new();
            serve(listener, answer, HttpServerOptions::default(), stop, connections.clone()).await;
            connections.close();
            connections.wait().await;
        };
        let task = self.data_plane.spawn(serving);
        self.lifecycle.spawn(name, async move { drop(task.await) });
        Ok(())
    }

    fn start_missing_images(&self) {
        let (controller, images) = (self.controller.clone(), self.images.clone());
        let builder = MissingImageBuilder { controller, images };
        self.lifecycle.spawn("missing images", builder.run(self.lifecycle.stop_intake.clone()));
    }

    fn start_lease_renewal(&self, node: InvokerNode) {
        let (nodes, stop) = (self.nodes.clone(), self.lifecycle.stop_intake.clone());
        self.lifecycle.spawn("lease", async move {
            loop {
                if let Err(error) = nodes.renew(&node, LEASE_DURATION).await {
                    warn!(%error, "Could not renew this invoker's lease");
                }
                if stop.run_until_cancelled(tokio::time::sleep(LEASE_DURATION / 3)).await.is_none()
                {
                    break;
                }
            }
            if let Err(error) = nodes.leave(&node.id).await {
                warn!(%error, "Could not release this invoker's lease; it will expire");
            }
        });
    }

    /// Starts the periodic tasks of this process: metrics, old images, fetched packages.
    pub(crate) fn start_maintenance(&self, roles: Roles, fetched: Arc<dyn PackageStore>) {
        let stop = self.lifecycle.stop_intake.clone();
        self.lifecycle.spawn("metrics", crate::metrics::run_upkeep(stop.clone()));
        if roles.invoker {
            self.lifecycle
                .spawn("old images", remove_old_images(self.images.clone(), stop.clone()));
        }
        if roles.gateway {
            self.lifecycle
                .spawn("queue depths", record_queue_depths(self.queue.clone(), stop.clone()));
        }
        if !roles.controller {
            let packages =
                FetchedPackageCleanup { controller: self.controller.clone(), packages: fetched };
            self.lifecycle.spawn("fetched packages", packages.run(stop));
        }
    }

    /// Starts what fills the history of ended events.
    pub(crate) fn start_history(&self) {
        let writer = HistoryWriter { ended: self.ended.clone(), history: self.history.clone() };
        self.lifecycle.spawn("history", writer.run(self.lifecycle.stop_intake.clone()));
    }

    /// Starts the removal of what is old in the whole installation.
    pub(crate) fn start_retention(&self) {
        let retention = RetentionJob {
            controller: self.controller.clone(),
            queue: self.queue.clone(),
            journal: self.journal.clone(),
            history: self.history.clone(),
            history_bounds: self.config.history.bounds(),
            clock: self.clock.clone(),
            keep_results: Duration::from_secs(u64::from(self.config.keep_results_days) * 86_400),
        };
        let stop: CancellationToken = self.lifecycle.stop_intake.clone();
        self.lifecycle.spawn("retention", retention.run(stop));
    }
}
