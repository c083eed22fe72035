//! What runs: listeners on the data plane, timers, dispatchers and sources, leases, retention.

use std::sync::Arc;
use std::time::Duration;

use hanshu_controller::Controller;
use hanshu_core::ports::{
    EventQueue, ImageBuilder, InvocationJournal, Invoke, InvokerNode, NodeRegistry, PackageStore,
};
use hanshu_core::{Clock, NodeId};
use hanshu_gateway::internal::{Balancer, Internal, InternalParts, Peers, RemoteHealthProblems};
use hanshu_gateway::{
    Answer, Api, FrontOptions, Gateway, GatewayParts, HealthProblems, HttpTriggers,
    ListHealthProblems, Options, serve,
};
use hanshu_invoker::Invoker;
use hanshu_triggers::{
    DispatcherOptions, Dispatchers, Intake, IntakeOptions, RedisSources, RetryPolicy, SourceStates,
    Stop, TimerOptions, Timers, TriggersFeed, TriggersView,
};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::assembly::Sandboxes;
use crate::config::{Config, Roles};
use crate::error::Error;
use crate::images::JoinImages;
use crate::lifecycle::Lifecycle;
use crate::readiness::Readiness;
use crate::retention::{FetchedPackages, Retention, drop_images, show_depths};

/// An invoker's lease; renewed three times in it.
const LEASE: Duration = Duration::from_secs(6);
/// Between looks at all functions of the catalog: at a change only those are looked at that it is
/// about.
const FEED_INTERVAL: Duration = Duration::from_secs(5);

/// Everything that running parts share.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) node: NodeId,
    pub(crate) lifecycle: Lifecycle,
    /// The data plane.
    pub(crate) data: Handle,
    pub(crate) controller: Controller,
    pub(crate) queue: Arc<dyn EventQueue>,
    pub(crate) journal: Arc<dyn InvocationJournal>,
    pub(crate) nodes: Arc<dyn NodeRegistry>,
    pub(crate) invoke: Arc<dyn Invoke>,
    pub(crate) images: Arc<dyn ImageBuilder>,
    pub(crate) packages: Arc<dyn PackageStore>,
    pub(crate) balancer: Option<Arc<Balancer>>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The live triggers, fed from the catalog.
pub(crate) struct Feed {
    view: TriggersView,
}

impl Feed {
    /// Hands every new snapshot of the catalog to triggers and pools.
    pub(crate) fn start(parts: &Parts, invoker: Option<Arc<Invoker>>) -> Self {
        let (feed, view) = TriggersFeed::new();
        let mut snapshots = parts.controller.catalog().watch();
        let stop = parts.lifecycle.intake.clone();
        feed.replace(snapshots.borrow_and_update().triggers.clone());
        parts.lifecycle.spawn("feed", async move {
            let mut fed = Arc::default();
            let mut looked = Instant::now();
            loop {
                let snapshot = snapshots.borrow_and_update().clone();
                feed.replace(snapshot.triggers.clone());
                // An event that names a replaced revision makes its pool anew.
                let all = FEED_INTERVAL <= looked.elapsed();
                if let Some(invoker) = &invoker {
                    let retire = |(function, keep): (&_, &[_])| invoker.retire(function, keep);
                    snapshot.revisions_since(&fed).for_each(retire);
                    if all {
                        snapshot.revisions().for_each(retire);
                    }
                    invoker.expect(snapshot.live());
                }
                if all {
                    looked = Instant::now();
                }
                fed = snapshot;
                let next = tokio::time::timeout_at(looked + FEED_INTERVAL, snapshots.changed());
                if stop.run_until_cancelled(next).await.is_none() {
                    return;
                }
            }
        });
        Self { view }
    }
}

impl Parts {
    fn intake(&self) -> Arc<Intake> {
        Arc::new(Intake {
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

    fn stop(&self) -> Stop {
        Stop { intake: self.lifecycle.intake.clone(), work: self.lifecycle.work.clone() }
    }

    /// Timers, dispatchers and users' streams.
    pub(crate) fn run_triggers(&self, feed: &Feed) -> SourceStates {
        let parts = hanshu_triggers::Parts {
            queue: self.queue.clone(),
            catalog: self.controller.catalog().clone(),
            invoke: self.invoke.clone(),
            clock: self.clock.clone(),
            node: self.node.clone(),
            data: self.data.clone(),
            policy: RetryPolicy::default(),
        };
        let in_flight_max = self.config.async_running_max;
        let options = DispatcherOptions {
            in_flight_max,
            per_function_max: in_flight_max.saturating_mul(3).div_ceil(4).max(1),
            ..DispatcherOptions::default()
        };
        let dispatchers = Dispatchers::new(parts.clone(), options);
        self.lifecycle.spawn("dispatchers", dispatchers.run(self.stop()));
        let timers = TimerOptions { zone: self.config.timezone.clone(), ..TimerOptions::default() };
        let timers = Timers::new(self.intake(), timers);
        self.lifecycle.spawn("timers", timers.run(feed.view.clone(), self.stop()));
        let states = SourceStates::default();
        let sources = RedisSources::new(parts, states.clone());
        self.lifecycle.spawn("sources", sources.run(feed.view.clone(), self.stop()));
        states
    }

    /// The API and the HTTP triggers, each on its listener.
    pub(crate) fn run_gateway(
        &self,
        api: TcpListener,
        http: TcpListener,
        feed: &Feed,
        states: Option<SourceStates>,
    ) -> Result<(), Error> {
        let address = http.local_addr().map_err(|error| Error::Broken(error.to_string()))?;
        let gateway = Gateway::new(GatewayParts {
            controller: Arc::new(self.controller.clone()),
            intake: self.intake(),
            queue: self.queue.clone(),
            journal: self.journal.clone(),
            triggers: feed.view.clone(),
            readiness: Arc::new(Readiness {
                controller: self.controller.clone(),
                queue: self.queue.clone(),
                allow_unsafe_queue: self.config.allow_unsafe_queue,
                folder: self.config.data.clone(),
                balancer: self.balancer.clone(),
            }),
            health_problems: self.health_problems(states)?,
            prometheus: crate::telemetry::recorder(),
            clock: self.clock.clone(),
            general: Handle::current(),
            tasks: TaskTracker::new(),
            options: Options {
                http_url: self
                    .config
                    .http_url
                    .clone()
                    .unwrap_or_else(|| format!("http://{address}")),
                timezone: self.config.timezone.clone(),
            },
        });
        self.listen("api", api, Arc::new(Api::new(gateway.clone())))?;
        self.listen("http triggers", http, Arc::new(HttpTriggers::new(gateway)))
    }

    /// This process' own streams, or those of the processes that read them.
    fn health_problems(
        &self,
        states: Option<SourceStates>,
    ) -> Result<Arc<dyn HealthProblems>, Error> {
        if let Some(states) = states {
            return Ok(Arc::new(states));
        }
        let token = self.config.cluster.token.clone();
        let token = token.ok_or_else(|| Error::Config("`cluster.token` is needed".into()))?;
        let peers = Peers::new(token).map_err(|error| Error::Broken(error.to_string()))?;
        let targets = self.config.cluster.triggers.clone();
        let health_problems = Arc::new(RemoteHealthProblems::new(peers, move || targets.clone()));
        let (asking, stop) = (health_problems.clone(), self.lifecycle.intake.clone());
        self.lifecycle.spawn("health_problems", async move { asking.run(stop).await });
        Ok(health_problems)
    }

    /// What sister processes ask.
    pub(crate) fn run_internal(
        &self,
        listener: TcpListener,
        roles: Roles,
        sandboxes: Option<&Sandboxes>,
        states: Option<SourceStates>,
    ) -> Result<(), Error> {
        let address = listener.local_addr().map_err(|error| Error::Broken(error.to_string()))?;
        let cluster = &self.config.cluster;
        let token = cluster.token.clone().ok_or_else(|| {
            Error::Config("`cluster.listen` without `cluster.token`: sisters must show it".into())
        })?;
        let internal = Internal::new(InternalParts {
            token,
            invoke: roles.invoker.then(|| self.invoke.clone()),
            packages: roles.controller.then(|| self.packages.clone()),
            images: sandboxes.map(|_| self.images.clone()),
            health_problems: states.map(|states| Arc::new(states) as Arc<dyn ListHealthProblems>),
            general: Handle::current(),
            tasks: TaskTracker::new(),
        });
        self.listen("internal", listener, Arc::new(internal))?;
        if roles.invoker {
            let url = cluster.advertise.clone().unwrap_or_else(|| format!("http://{address}"));
            let memory_mb = self.config.pool.memory_mb();
            self.renew_lease(InvokerNode { id: self.node.clone(), url, memory_mb });
            if roles != Roles::ALL {
                self.run_join_images();
            }
        }
        Ok(())
    }

    /// Serves on the data plane's thread.
    fn listen<A: Answer>(
        &self,
        name: &'static str,
        listener: TcpListener,
        answer: Arc<A>,
    ) -> Result<(), Error> {
        let broken = |error: std::io::Error| Error::Broken(format!("{name}: {error}"));
        // It was bound on the general runtime; its readiness must be the data plane's to see.
        let listener = listener.into_std().map_err(broken)?;
        let stop = self.lifecycle.intake.clone();
        let on_data = async move {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return warn!(%error, listener = name, "Could not listen"),
            };
            let connections = TaskTracker::new();
            serve(listener, answer, FrontOptions::default(), stop, connections.clone()).await;
            connections.close();
            connections.wait().await;
        };
        let running = self.data.spawn(on_data);
        self.lifecycle.spawn(name, async move { drop(running.await) });
        Ok(())
    }

    /// Deploys before this invoker was there made no images here.
    fn run_join_images(&self) {
        let (controller, images) = (self.controller.clone(), self.images.clone());
        let joining = JoinImages { controller, images };
        self.lifecycle.spawn("images", joining.run(self.lifecycle.intake.clone()));
    }

    fn renew_lease(&self, node: InvokerNode) {
        let (nodes, stop) = (self.nodes.clone(), self.lifecycle.intake.clone());
        self.lifecycle.spawn("lease", async move {
            loop {
                if let Err(error) = nodes.renew(&node, LEASE).await {
                    warn!(%error, "Could not renew this invoker's lease");
                }
                if stop.run_until_cancelled(tokio::time::sleep(LEASE / 3)).await.is_none() {
                    break;
                }
            }
            if let Err(error) = nodes.leave(&node.id).await {
                warn!(%error, "Could not give back this invoker's lease; it ends by itself");
            }
        });
    }

    /// Housekeeping of every process: the metrics' own, queue depths, fetched packages.
    pub(crate) fn run_upkeep(&self, roles: Roles, fetched: Arc<dyn PackageStore>) {
        let stop = self.lifecycle.intake.clone();
        self.lifecycle.spawn("metrics", crate::telemetry::upkeep(stop.clone()));
        if roles.invoker {
            self.lifecycle.spawn("images", drop_images(self.images.clone(), stop.clone()));
        }
        if roles.gateway {
            self.lifecycle.spawn("depths", show_depths(self.queue.clone(), stop.clone()));
        }
        if !roles.controller {
            let packages =
                FetchedPackages { controller: self.controller.clone(), packages: fetched };
            self.lifecycle.spawn("fetched packages", packages.run(stop));
        }
    }

    /// What is old goes.
    pub(crate) fn run_retention(&self) {
        let retention = Retention {
            controller: self.controller.clone(),
            queue: self.queue.clone(),
            journal: self.journal.clone(),
            clock: self.clock.clone(),
            keep_results: Duration::from_secs(u64::from(self.config.keep_results_days) * 86_400),
        };
        let stop: CancellationToken = self.lifecycle.intake.clone();
        self.lifecycle.spawn("retention", retention.run(stop));
    }
}
