//! Cancelling invocations on other nodes: every node is asked, since nobody notes which one runs what.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hanshu_core::ports::{CancelReach, Invoke, InvokerNode, NodeRegistry};
use hanshu_core::{Invocation, NodeId, Outcome, RequestId};
use http::{Method, StatusCode};
use tokio::time::timeout;
use tracing::warn;

use crate::messages::cancel_path;
use crate::peer_client::PeerClient;

/// A node that takes longer counts as one that could not be asked.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(3);

/// The invoker of this process; cancellations go to the other nodes as well.
pub struct ClusterInvoker {
    /// Runs this process' invocations.
    pub local: Arc<dyn Invoke>,
    /// This node: it is not asked a second time.
    pub node: NodeId,
    /// Knows the live nodes.
    pub nodes: Arc<dyn NodeRegistry>,
    /// The connections to the other nodes.
    pub peers: PeerClient,
}

impl std::fmt::Debug for ClusterInvoker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterInvoker").field("node", &self.node).finish_non_exhaustive()
    }
}

impl ClusterInvoker {
    async fn cancel_elsewhere(&self, request_id: RequestId) -> CancelReach {
        match timeout(CANCEL_TIMEOUT, self.nodes.live()).await {
            Ok(Ok(mut live)) => {
                live.retain(|node| node.id != self.node);
                cancel_on(&self.peers, &live, request_id).await
            }
            Ok(Err(_)) | Err(_) => {
                warn!(%request_id, "Could not ask for the live nodes to cancel an invocation");
                CancelReach::Unknown
            }
        }
    }
}

// Written without `async_trait`, which would add an allocation to every invocation.
impl Invoke for ClusterInvoker {
    fn invoke<'life0, 'async_trait>(
        &'life0 self,
        invocation: Invocation,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        self.local.invoke(invocation)
    }

    fn cancel<'life0, 'async_trait>(
        &'life0 self,
        request_id: RequestId,
    ) -> Pin<Box<dyn Future<Output = CancelReach> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            match self.local.cancel(request_id).await {
                CancelReach::Reached => CancelReach::Reached,
                CancelReach::NotFound | CancelReach::Unknown => {
                    self.cancel_elsewhere(request_id).await
                }
            }
        })
    }
}

/// Asks all these nodes at once.
pub(crate) async fn cancel_on(
    peers: &PeerClient,
    nodes: &[InvokerNode],
    request_id: RequestId,
) -> CancelReach {
    let answers = join_all(nodes.iter().map(|node| ask(peers, node, request_id))).await;
    if answers.contains(&CancelReach::Reached) {
        CancelReach::Reached
    } else if answers.contains(&CancelReach::Unknown) {
        CancelReach::Unknown
    } else {
        CancelReach::NotFound
    }
}

async fn ask(peers: &PeerClient, node: &InvokerNode, request_id: RequestId) -> CancelReach {
    let url = format!("{}{}", node.url.trim_end_matches('/'), cancel_path(request_id));
    let request = peers.request(Method::POST, &url).timeout(CANCEL_TIMEOUT).send();
    let failed = match request.await {
        Ok(response) if response.status() == StatusCode::OK => match response.json().await {
            Ok(reach) => return reach,
            Err(error) => error.to_string(),
        },
        Ok(response) => response.status().to_string(),
        Err(error) => error.to_string(),
    };
    warn!(failed, node = %node.id, %request_id, "A node could not be asked to cancel an invocation");
    CancelReach::Unknown
}
