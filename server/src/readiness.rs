//! Can this process serve? Asked by `/readyz`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_controller::Controller;
use hanshu_core::ports::EventQueue;
use hanshu_gateway::CheckReadiness;
use hanshu_gateway::internal::Balancer;
use hanshu_gateway::wire::NotReady;
use tokio::time::timeout;

use crate::folder;

/// The longest wait for one part's answer.
const PART_TIMEOUT: Duration = Duration::from_secs(3);

/// What is asked.
pub(crate) struct Readiness {
    pub(crate) controller: Controller,
    pub(crate) queue: Arc<dyn EventQueue>,
    /// A queue that may lose events is the operator's will.
    pub(crate) allow_unsafe_queue: bool,
    /// The data folder.
    pub(crate) folder: PathBuf,
    /// Where sandboxes are on other nodes.
    pub(crate) balancer: Option<Arc<Balancer>>,
}

#[async_trait]
impl CheckReadiness for Readiness {
    async fn reasons(&self) -> Vec<NotReady> {
        let mut reasons = Vec::new();
        let mut not = |part: &str, reason: String| {
            reasons.push(NotReady { part: part.into(), reason });
        };
        match timeout(PART_TIMEOUT, self.controller.ping()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => not("database", error.to_string()),
            Err(_) => not("database", "it does not answer within 3 s".into()),
        }
        match timeout(PART_TIMEOUT, self.queue.durability_warnings()).await {
            Ok(_) if self.allow_unsafe_queue => {}
            Ok(durability_warnings) => {
                durability_warnings.into_iter().for_each(|warning| not("queue", warning))
            }
            Err(_) => not("queue", "it does not answer within 3 s".into()),
        }
        let folder = self.folder.clone();
        let probe = tokio::task::spawn_blocking(move || folder::check_writable(&folder));
        match timeout(PART_TIMEOUT, probe).await {
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
