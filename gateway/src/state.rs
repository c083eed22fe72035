//! The ports and settings that the gateway works with.

use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use hanshu_api::wire::NotReady;
use hanshu_controller::Controller;
use hanshu_core::Clock;
use hanshu_core::ports::{EventQueue, InvocationHistory, InvocationJournal, TriggerHealth};
use hanshu_triggers::{EventIntake, TriggersView};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::metrics::GatewayMetrics;

/// Packages that are held in memory at once, 256 MiB each at most.
const UPLOADS_MAX: usize = 2;

/// Settings of the gateway.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Where HTTP triggers are reached: `http://host:port`, shown by a deploy.
    pub http_url: String,
    /// The zone of timers that name none.
    pub timezone: String,
}

/// The ports and settings that the gateway works with.
#[derive(Clone)]
pub struct GatewayParts {
    /// The use-cases of deploying, the catalog, the access keys.
    pub controller: Arc<Controller>,
    /// The entry point of all events.
    pub intake: Arc<EventIntake>,
    /// The state of queued events.
    pub queue: Arc<dyn EventQueue>,
    /// Ended asynchronous invocations.
    pub history: Arc<dyn InvocationHistory>,
    /// Records of invocations, and logs.
    pub journal: Arc<dyn InvocationJournal>,
    /// The live triggers with their routes.
    pub triggers: TriggersView,
    /// What `/readyz` is answered from.
    pub readiness: Arc<dyn CheckReadiness>,
    /// Health problems of triggers.
    pub trigger_health: Arc<dyn TriggerHealth>,
    /// Renders `/metrics`; `None` where no recorder is installed.
    pub prometheus: Option<PrometheusHandle>,
    /// For times in responses.
    pub clock: Arc<dyn Clock>,
    /// The general runtime: everything but invocations runs there.
    pub general: Handle,
    /// Deploys that stream their progress are tasks of it.
    pub tasks: TaskTracker,
    /// Addresses and defaults that responses show.
    pub options: GatewayOptions,
}

/// Whether the process can serve.
#[async_trait]
pub trait CheckReadiness: Send + Sync {
    /// Why not; empty if it can. Answers within seconds.
    async fn reasons(&self) -> Vec<NotReady>;
}

/// The gateway's parts, cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<GatewayState>);

pub(crate) struct GatewayState {
    pub(crate) parts: GatewayParts,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) uploads: Semaphore,
}

impl Gateway {
    /// Puts it together. Metrics go to the recorder that is installed by now.
    pub fn new(parts: GatewayParts) -> Self {
        Self(Arc::new(GatewayState {
            parts,
            metrics: GatewayMetrics::new(),
            uploads: Semaphore::new(UPLOADS_MAX),
        }))
    }

    pub(crate) fn metrics(&self) -> &GatewayMetrics {
        &self.0.metrics
    }

    /// A permit for each package that is held in memory.
    pub(crate) fn uploads(&self) -> &Semaphore {
        &self.0.uploads
    }
}

impl Deref for Gateway {
    type Target = GatewayParts;

    fn deref(&self) -> &GatewayParts {
        &self.0.parts
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("options", &self.options).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for GatewayParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayParts").field("options", &self.options).finish_non_exhaustive()
    }
}
