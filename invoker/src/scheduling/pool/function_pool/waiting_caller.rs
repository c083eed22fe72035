//! A caller that waits for a sandbox: what the pool keeps of it, and what the caller itself has.

use std::sync::Arc;

use hanshu_core::{RequestId, lock};
use tokio::sync::oneshot;

use super::{AcquireResult, FunctionPool, LaneId, PoolInput, WaiterId};

/// A caller that waits, and how it is answered.
#[derive(Debug)]
pub(super) struct WaitingCaller {
    pub(super) request_id: RequestId,
    pub(super) lane: LaneId,
    pub(super) result: oneshot::Sender<AcquireResult>,
}

/// A caller's entry in the wait queue, removed when dropped.
#[derive(Debug)]
pub(super) struct WaitQueueEntry {
    pub(super) pool: Arc<FunctionPool>,
    pub(super) lane: LaneId,
    pub(super) waiter: WaiterId,
    pub(super) result: oneshot::Receiver<AcquireResult>,
    pub(super) answered: bool,
}

impl Drop for WaitQueueEntry {
    fn drop(&mut self) {
        if !self.answered {
            self.pool.apply(PoolInput::Abandoned { lane: self.lane, waiter: self.waiter });
            lock(&self.pool.inner).wait_queue.remove(&self.waiter);
        }
    }
}
