//! What the dispatcher and the stream readers share: the ports they work with, and a run on the
//! data plane.

use std::fmt;
use std::sync::Arc;

use hanshu_core::ports::{EventQueue, Invoke, RevisionCatalog};
use hanshu_core::{Clock, Invocation, NodeId, Outcome, Refusal};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::retry::RetryPolicy;

/// What the dispatcher and the stream readers work with.
#[derive(Clone)]
pub struct DispatchContext {
    /// The platform's event queues.
    pub queue: Arc<dyn EventQueue>,
    /// Finds the revision that an event is for.
    pub catalog: Arc<dyn RevisionCatalog>,
    /// Runs the invocations of queued events.
    pub invoke: Arc<dyn Invoke>,
    /// For due times and expiry.
    pub clock: Arc<dyn Clock>,
    /// This node: claims are made in its name.
    pub node: NodeId,
    /// The data plane's runtime: invocations run there.
    pub data: Handle,
    /// Decides what follows an attempt.
    pub policy: RetryPolicy,
}

impl fmt::Debug for DispatchContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DispatchContext").field("node", &self.node).finish_non_exhaustive()
    }
}

impl DispatchContext {
    /// Starts an invocation on the data plane, as a task of `tasks`.
    pub(crate) fn spawn(
        &self,
        tasks: &TaskTracker,
        invocation: Invocation,
    ) -> DispatchedInvocation {
        let invoke = self.invoke.clone();
        let run = async move { invoke.invoke(invocation).await };
        let task = tasks.spawn_on(run, &self.data);
        DispatchedInvocation { task, clock: self.clock.clone() }
    }
}

/// An invocation that runs on the data plane. Dropping it aborts the invocation, since
/// nothing would take its outcome.
pub(crate) struct DispatchedInvocation {
    task: JoinHandle<Outcome>,
    clock: Arc<dyn Clock>,
}

impl DispatchedInvocation {
    /// Waits for the outcome. May be dropped and called again.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(error) => {
                warn!(%error, "An invocation was lost");
                lost_outcome(&*self.clock)
            }
        }
    }
}

impl Drop for DispatchedInvocation {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The outcome of an invocation whose task panicked or disappeared.
pub(crate) fn lost_outcome(clock: &dyn Clock) -> Outcome {
    let reason = "the invocation was lost on its node".to_owned();
    Outcome::refused(Refusal::Unavailable { reason }, clock.now())
}
