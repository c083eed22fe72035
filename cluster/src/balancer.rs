//! Spreads invocations over the live invoker nodes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use hanshu_core::ports::{CancelReach, Invoke, InvokerNode, NodeRegistry};
use hanshu_core::{Clock, Digest, Invocation, NodeId, Outcome, Refusal, RequestId, Verdict};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::peer_client::PeerClient;
use crate::placement::Placement;
use crate::remote_cancel::cancel_on;
use crate::remote_invoker::{RemoteCallError, RemoteInvoker, refused};

/// How often the live nodes are asked for.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// A registry that takes longer is taken to be unavailable.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);
/// After the registry's return the nodes known before stay for so long: a lease.
const RENEWAL_TIME: Duration = Duration::from_secs(6);
/// Nodes that are asked for one invocation, at most.
const NODES_TRIED_MAX: usize = 3;

/// Runs invocations on other nodes.
pub struct Balancer {
    peers: PeerClient,
    clock: Arc<dyn Clock>,
    live: ArcSwap<Vec<InvokerNode>>,
    placement: Mutex<Placement>,
}

/// A call on its way: counted until dropped.
struct CallInFlight<'a> {
    balancer: &'a Balancer,
    node: &'a NodeId,
    revision: &'a Digest,
}

impl Balancer {
    /// No nodes yet: [`Balancer::set_nodes`] or [`Balancer::run`] adds them.
    pub fn new(peers: PeerClient, clock: Arc<dyn Clock>) -> Self {
        Self { peers, clock, live: ArcSwap::default(), placement: Mutex::default() }
    }

    /// Replaces the nodes.
    pub fn set_nodes(&self, live: Vec<InvokerNode>) {
        self.placement().forget(Instant::now(), &live);
        self.live.store(Arc::new(live));
    }

    /// The nodes that were set last.
    pub fn nodes(&self) -> Arc<Vec<InvokerNode>> {
        self.live.load_full()
    }

    /// Keeps asking for the live nodes until `stop`. If the registry cannot be read, the known nodes stay.
    pub async fn run(&self, nodes: Arc<dyn NodeRegistry>, stop: CancellationToken) {
        let (mut unavailable, mut back) = (false, None);
        loop {
            match timeout(REFRESH_TIMEOUT, nodes.live()).await {
                Ok(Ok(live)) => {
                    if std::mem::take(&mut unavailable) {
                        back = Some(Instant::now());
                    }
                    // Leases ran out while nobody could renew them: give the nodes time to.
                    let early = back.is_some_and(|at: Instant| at.elapsed() < RENEWAL_TIME);
                    self.set_nodes(if early { self.with_known(live) } else { live });
                }
                Ok(Err(_)) | Err(_) if unavailable => {}
                Ok(Err(_)) | Err(_) => {
                    unavailable = true;
                    warn!("Could not ask for the live nodes; those known stay in use");
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(REFRESH_INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    /// These, and those known that are not among them.
    fn with_known(&self, mut live: Vec<InvokerNode>) -> Vec<InvokerNode> {
        let known = self.live.load();
        let missing = known.iter().filter(|node| live.iter().all(|each| each.id != node.id));
        let missing: Vec<_> = missing.cloned().collect();
        live.extend(missing);
        live
    }

    // Nothing is awaited under it, and nothing in it can fail half-way.
    fn placement(&self) -> MutexGuard<'_, Placement> {
        self.placement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin<'a>(&'a self, node: &'a NodeId, revision: &'a Digest) -> CallInFlight<'a> {
        self.placement().begin(Instant::now(), node, revision);
        CallInFlight { balancer: self, node, revision }
    }
}

#[async_trait]
impl Invoke for Balancer {
    async fn invoke(&self, invocation: Invocation) -> Outcome {
        let live = self.live.load_full();
        let order = self.placement().order(Instant::now(), &live, &invocation.function);
        let reason = "no node takes invocations; is an invoker running?".into();
        let mut last = refused(Refusal::Unavailable { reason }, &*self.clock);
        for node in order.into_iter().take(NODES_TRIED_MAX) {
            let remote = RemoteInvoker::new(self.peers.clone(), node, self.clock.clone());
            let flight = self.begin(&node.id, &invocation.function.digest);
            let ended = remote.run(&invocation).await;
            drop(flight);
            match ended {
                Ok(outcome) if !is_stopping(&outcome) => return outcome,
                Ok(outcome) => last = outcome,
                Err(lost @ RemoteCallError::NotBegun(_)) => last = lost.outcome(&*self.clock),
                Err(lost @ RemoteCallError::Unknown(_)) => {
                    self.placement().leave_out(Instant::now(), &node.id);
                    return lost.outcome(&*self.clock);
                }
            }
            self.placement().leave_out(Instant::now(), &node.id);
        }
        last
    }

    async fn cancel(&self, request_id: RequestId) -> CancelReach {
        let live = self.live.load_full();
        cancel_on(&self.peers, &live, request_id).await
    }
}

/// Whether a node said that it takes no work, before it gave the event to anything.
fn is_stopping(outcome: &Outcome) -> bool {
    outcome.report.node.is_none()
        && matches!(outcome.verdict, Verdict::Refused(Refusal::Unavailable { .. }))
}

impl Drop for CallInFlight<'_> {
    fn drop(&mut self) {
        self.balancer.placement().end(Instant::now(), self.node, self.revision);
    }
}

impl std::fmt::Debug for Balancer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Balancer").field("nodes", &self.live.load().len()).finish_non_exhaustive()
    }
}
