//! What triggers cannot do now, asked of the nodes that run them.

use std::collections::BTreeMap;
use std::time::Duration;

use arc_swap::ArcSwap;
use hanshu_core::TriggerId;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Peers;
use crate::state::HealthProblems;

/// Where they are asked for.
pub(super) const HEALTH_PROBLEMS_PATH: &str = "/internal/v1/health-problems";
/// How old an answer may be.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// For a question.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// One trigger that does not work.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TriggerHealthProblem {
    pub(super) trigger: TriggerId,
    pub(super) health_problem: String,
}

/// The base URLs of the nodes that run triggers, as they are now.
type Targets = dyn Fn() -> Vec<String> + Send + Sync;

/// What triggers cannot do now, on other nodes.
pub struct RemoteHealthProblems {
    peers: Peers,
    targets: Box<Targets>,
    known: ArcSwap<BTreeMap<TriggerId, String>>,
}

impl RemoteHealthProblems {
    /// Knows nothing yet: [`RemoteHealthProblems::run`] asks each of `targets` (`http://host:port`).
    pub fn new(peers: Peers, targets: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        Self { peers, targets: Box::new(targets), known: ArcSwap::default() }
    }

    /// Keeps asking until `stop`. A node that is away has no health problems to tell of.
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

impl HealthProblems for RemoteHealthProblems {
    fn of(&self, trigger: &TriggerId) -> Option<String> {
        self.known.load().get(trigger).cloned()
    }
}

impl std::fmt::Debug for RemoteHealthProblems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteHealthProblems")
            .field("known", &self.known.load())
            .finish_non_exhaustive()
    }
}
