//! The checks behind `/readyz`: whether this process can serve.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_api::wire::NotReady;
use hanshu_cluster::Balancer;
use hanshu_controller::Controller;
use hanshu_core::ports::EventQueue;
use hanshu_gateway::CheckReadiness;
use tokio::time::timeout;

use crate::data_dir;

/// Longest wait for each check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// The parts that are checked.
pub(crate) struct ReadinessChecks {
    pub(crate) controller: Controller,
    pub(crate) queue: Arc<dyn EventQueue>,
    /// The operator accepts a queue that may lose events.
    pub(crate) allow_unsafe_queue: bool,
    pub(crate) data_dir: PathBuf,
    /// Present where sandboxes run on other nodes.
    pub(crate) balancer: Option<Arc<Balancer>>,
}

#[async_trait]
impl CheckReadiness for ReadinessChecks {
    async fn reasons(&self) -> Vec<NotReady> {
        let mut reasons = Vec::new();
        let mut not = |part: &str, reason: String| {
            reasons.push(NotReady { part: part.into(), reason });
        };
        match timeout(CHECK_TIMEOUT, self.controller.ping()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => not("database", error.to_string()),
            Err(_) => not("database", "it does not answer within 3 s".into()),
        }
        match timeout(CHECK_TIMEOUT, self.queue.durability_warnings()).await {
            Ok(_) if self.allow_unsafe_queue => {}
            Ok(durability_warnings) => {
                durability_warnings.into_iter().for_each(|warning| not("queue", warning));
            }
            Err(_) => not("queue", "it does not answer within 3 s".into()),
        }
        let path = self.data_dir.clone();
        let probe = tokio::task::spawn_blocking(move || data_dir::check_writable(&path));
        match timeout(CHECK_TIMEOUT, probe).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(reason))) => not("data", reason),
            Ok(Err(_)) | Err(_) => not("data", "the data folder does not answer".into()),
        }
        if let Some(balancer) = &self.balancer
            && balancer.nodes().is_empty()
        {
            not("invoker", "no invoker has a lease: start one with --roles invoker".into());
        }
        reasons
    }
}
