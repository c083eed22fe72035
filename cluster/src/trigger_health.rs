//! The health of triggers that other nodes run.

use std::collections::BTreeMap;
use std::time::Duration;

use arc_swap::ArcSwap;
use hanshu_core::TriggerId;
use hanshu_core::ports::TriggerHealth;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::peer_client::{NodeUrls, PeerClient};

/// Path of the request for health problems.
pub(crate) const HEALTH_PROBLEMS_PATH: &str = "/internal/v1/health-problems";
/// How old an answer may be.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The longest wait for the answer of one node.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// One trigger that does not work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TriggerHealthProblem {
    pub(crate) trigger: TriggerId,
    pub(crate) health_problem: String,
}

/// The health of triggers that other nodes run, as of the last poll.
pub struct RemoteTriggerHealth {
    peers: PeerClient,
    targets: Box<NodeUrls>,
    known: ArcSwap<BTreeMap<TriggerId, String>>,
}

impl RemoteTriggerHealth {
    /// Knows nothing yet: [`RemoteTriggerHealth::run`] asks each of `targets` (`http://host:port`).
    pub fn new(
        peers: PeerClient,
        targets: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        Self { peers, targets: Box::new(targets), known: ArcSwap::default() }
    }

    /// Keeps asking until `stop`. A node that cannot be reached has no health problems to report.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            self.ask().await;
            if stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    /// Asks every node once.
    pub async fn ask(&self) {
        let mut known = BTreeMap::new();
        for url in (self.targets)() {
            let health_problems = self.ask_at(&url).await.unwrap_or_default();
            known.extend(
                health_problems.into_iter().map(|each| (each.trigger, each.health_problem)),
            );
        }
        self.known.store(known.into());
    }

    async fn ask_at(&self, url: &str) -> Option<Vec<TriggerHealthProblem>> {
        let url = format!("{}{HEALTH_PROBLEMS_PATH}", url.trim_end_matches('/'));
        let request = self.peers.request(Method::GET, &url).timeout(ASK_TIMEOUT);
        let response = request.send().await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        response.json().await.ok()
    }
}

impl TriggerHealth for RemoteTriggerHealth {
    fn problem(&self, trigger: &TriggerId) -> Option<String> {
        self.known.load().get(trigger).cloned()
    }

    fn problems(&self) -> Vec<(TriggerId, String)> {
        let known = self.known.load();
        known.iter().map(|(id, problem)| (id.clone(), problem.clone())).collect()
    }
}

impl std::fmt::Debug for RemoteTriggerHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteTriggerHealth")
            .field("known", &self.known.load())
            .finish_non_exhaustive()
    }
}
