//! Finds one invocation in a pool, to cancel it. The search goes through everything that the pool has:
//! a warm call only notes its id, under the mutex that it holds anyway.

use std::sync::Arc;

use hanshu_core::{Failure, RequestId, Verdict, lock};
use tokio::time::Instant;

use super::{FunctionPool, PoolEffect, PoolInput};
use crate::sandbox::instance::SandboxInstance;

/// Where a pool found an invocation.
#[derive(Debug)]
pub(crate) enum CancelTarget {
    /// It waited for a sandbox and has been answered.
    Waited,
    /// It was granted this sandbox and has not returned it.
    Granted(Arc<SandboxInstance>),
}

impl FunctionPool {
    /// Looks for an invocation; one that waits is answered as cancelled.
    pub(crate) fn cancel(self: &Arc<Self>, request_id: RequestId) -> Option<CancelTarget> {
        let mut inner = lock(&self.inner);
        let mut waiting = inner.wait_queue.iter();
        let found = waiting.find(|(_, caller)| caller.request_id == request_id);
        let Some(waiter) = found.map(|(waiter, _)| *waiter) else {
            let mut granted = inner.sandboxes.values();
            let slot = granted.find(|slot| slot.request_id == Some(request_id))?;
            return Some(CancelTarget::Granted(Arc::clone(&slot.instance)));
        };
        let caller = inner.wait_queue.remove(&waiter)?;
        let input = PoolInput::Abandoned { lane: caller.lane, waiter };
        let actions = inner.state.on(Instant::now(), input);
        let (mut effects, _) = self.collect_effects(&mut inner, actions, None);
        let error = Verdict::Failed(Failure::cancelled()).into();
        effects.push(PoolEffect::Answer(caller.result, Box::new(Err(error))));
        drop(inner);
        self.perform(effects);
        Some(CancelTarget::Waited)
    }
}
