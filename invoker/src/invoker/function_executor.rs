//! Runs invocations of functions: leases a sandbox of the function's pool and executes the event in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hanshu_core::ports::CancelReach;
use hanshu_core::{Digest, FunctionId, Invocation, InvocationMode, Outcome, RequestId};

use super::execution::{ContinuingExecution, ExecutionResult, HandOverError};
use super::record::record_refused;
use super::target::InvocationTarget;
use crate::scheduling::node::NodeContext;
use crate::scheduling::pool::{AcquireError, CancelTarget, Lease};
use crate::scheduling::pools::PoolDirectory;

/// How often an event is handed to another sandbox because one ended before it had read it.
const HAND_ONS_MAX: u32 = 3;

/// Runs invocations of functions in the pools' sandboxes.
#[derive(Debug)]
pub(super) struct FunctionExecutor {
    node: Arc<NodeContext>,
    pools: PoolDirectory,
    stopping: AtomicBool,
}

impl FunctionExecutor {
    pub(super) fn new(node: Arc<NodeContext>) -> Self {
        let pools = PoolDirectory::new(Arc::clone(&node));
        Self { node, pools, stopping: AtomicBool::new(false) }
    }

    /// Runs one invocation to its outcome. When the future is dropped, an event that was handed to a
    /// sandbox continues.
    pub(super) async fn run(&self, invocation: Invocation) -> Outcome {
        let (target, event) = InvocationTarget::split(invocation);
        let mut hand_ons = 0;
        loop {
            let lease = match self.lease(&target).await {
                Ok(lease) => lease,
                Err(error) => return record_refused(&self.node, &target, error),
            };
            let begun = ContinuingExecution::begin(&self.node, lease, target.clone(), &event);
            let execution = match begun {
                Ok(execution) => execution,
                Err(error) => {
                    let HandOverError { target, verdict } = *error;
                    return record_refused(&self.node, &target, verdict.into());
                }
            };
            match execution.outcome(hand_ons < HAND_ONS_MAX).await {
                Some(ExecutionResult::Ended(outcome)) => return *outcome,
                Some(ExecutionResult::NotBegun) => hand_ons += 1,
                None => {
                    let error = AcquireError::unavailable("the event was lost");
                    return record_refused(&self.node, &target, error);
                }
            }
        }
    }

    /// Cancels an invocation that waits for a sandbox or runs in one.
    pub(super) fn cancel(&self, request_id: RequestId) -> CancelReach {
        let found = self.node.pools.all().into_iter().find_map(|pool| pool.cancel(request_id));
        match found {
            Some(CancelTarget::Waited) => CancelReach::Reached,
            Some(CancelTarget::Granted(instance)) => {
                let grace = self.node.launcher.options.cancel_grace();
                instance.cancel(&self.node.deadlines, request_id, grace);
                CancelReach::Reached
            }
            None => CancelReach::NotFound,
        }
    }

    /// Refuses further invocations.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Only these revisions of the function are current: idle sandboxes of others are stopped, and
    /// running events of others finish.
    pub(super) fn retire(&self, function: &FunctionId, keep: &[Digest]) {
        self.pools.retire(function, keep);
    }

    /// Drops all pools, whose sandboxes are gone.
    pub(super) fn clear(&self) {
        self.pools.clear();
    }

    /// A thawed sandbox for one event.
    async fn lease(&self, target: &InvocationTarget) -> Result<Lease, AcquireError> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(AcquireError::unavailable("this node is stopping"));
        }
        let wait = match target.mode {
            InvocationMode::Sync { wait_timeout, .. } => wait_timeout,
            InvocationMode::Async { .. } => self.node.launcher.options.async_wait(),
        };
        let revision = &target.revision;
        loop {
            let mut lease =
                self.pools.lane(revision).acquire(target.request_id, revision, wait).await?;
            if lease.instance().thaw().await && lease.is_fresh() {
                return Ok(lease);
            }
            // The event gets another sandbox: each turn removes a lost one.
            tracing::warn!(instance = %lease.instance().id, "An idle sandbox was lost");
            lease.taint();
        }
    }
}
