//! An invoker on another node.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{CancelReach, Invoke, InvokerNode};
use hanshu_core::{
    Clock, Invocation, InvocationMode, Outcome, Refusal, Report, RequestId, Verdict,
};
use http::{Method, StatusCode};
use tracing::warn;

use crate::messages::{INVOCATIONS_PATH, decode_outcome, encode_call};
use crate::peer_client::PeerClient;
use crate::remote_cancel::cancel_on;

/// What a node may take beyond the function's own times: fetching code, starting a sandbox.
const START_MARGIN: Duration = Duration::from_secs(60);
/// For the way there and back.
const WAY_MARGIN: Duration = Duration::from_secs(5);

/// An invoker on another node.
#[derive(Clone, Debug)]
pub struct RemoteInvoker {
    peers: PeerClient,
    node: InvokerNode,
    url: String,
    clock: Arc<dyn Clock>,
}

/// Why no outcome came back.
#[derive(Debug)]
pub(crate) enum RemoteCallError {
    /// The node surely did not begin the invocation: another may try.
    NotBegun(String),
    /// It may have begun, or ended.
    Unknown(String),
}

impl RemoteInvoker {
    /// The invoker of `node`.
    pub fn new(peers: PeerClient, node: &InvokerNode, clock: Arc<dyn Clock>) -> Self {
        let url = format!("{}{INVOCATIONS_PATH}", node.url.trim_end_matches('/'));
        Self { peers, node: node.clone(), url, clock }
    }

    /// The invocation's outcome there, if one comes back.
    pub(crate) async fn run(&self, invocation: &Invocation) -> Result<Outcome, RemoteCallError> {
        let message = encode_call(invocation)
            .map_err(|error| RemoteCallError::NotBegun(error.to_string()))?;
        let request = self
            .peers
            .request(Method::POST, &self.url)
            .timeout(longest(invocation))
            .body(message)
            .send();
        let response = request.await.map_err(|error| {
            let (node, connect) = (&self.node.id, error.is_connect());
            warn!(%error, %node, request_id = %invocation.request_id, "Lost a call to a node");
            match connect {
                true => RemoteCallError::NotBegun(format!("node {node} cannot be reached")),
                false => {
                    RemoteCallError::Unknown(format!("node {node} was lost while the event ran"))
                }
            }
        })?;
        let status = response.status();
        if status != StatusCode::OK {
            let node = &self.node.id;
            warn!(%status, %node, request_id = %invocation.request_id, "A node refused a call");
            let reason = format!("node {node} answered {status}");
            return Err(match status {
                StatusCode::INTERNAL_SERVER_ERROR => RemoteCallError::Unknown(reason),
                _ => RemoteCallError::NotBegun(reason),
            });
        }
        let lost =
            || RemoteCallError::Unknown(format!("node {} was lost with the answer", self.node.id));
        let message = response.bytes().await.map_err(|_| lost())?;
        decode_outcome(message).map_err(|error| RemoteCallError::Unknown(error.to_string()))
    }
}

#[async_trait]
impl Invoke for RemoteInvoker {
    async fn invoke(&self, invocation: Invocation) -> Outcome {
        match self.run(&invocation).await {
            Ok(outcome) => outcome,
            Err(lost) => lost.outcome(&*self.clock),
        }
    }

    async fn cancel(&self, request_id: RequestId) -> CancelReach {
        cancel_on(&self.peers, std::slice::from_ref(&self.node), request_id).await
    }
}

impl RemoteCallError {
    /// The outcome that the caller receives.
    pub(crate) fn outcome(self, clock: &dyn Clock) -> Outcome {
        let refusal = match self {
            Self::NotBegun(reason) => Refusal::Unavailable { reason },
            Self::Unknown(reason) => Refusal::Sandbox { reason },
        };
        refused(refusal, clock)
    }
}

/// A refusal that no node made.
pub(crate) fn refused(refusal: Refusal, clock: &dyn Clock) -> Outcome {
    let report = Report {
        started_at: clock.now(),
        duration: Duration::ZERO,
        cold: false,
        init: None,
        memory_bytes: 0,
        node: None,
        log_tail: None,
    };
    Outcome { verdict: Verdict::Refused(refusal), report }
}

/// After this no answer will come any more.
fn longest(invocation: &Invocation) -> Duration {
    let config = &invocation.function.config;
    let line = match invocation.mode {
        InvocationMode::Sync { wait_timeout, .. } => wait_timeout,
        InvocationMode::Async { .. } => Duration::ZERO,
    };
    line + START_MARGIN + config.init_timeout + config.timeout + WAY_MARGIN
}
