//! Chooses what runs an invocation, by the kind of what is invoked. Pools know nothing of it.
//!
//! A further kind (a task with a supervisor, an HTTP task, a graph) is a variant of [`ExecutionKind`]
//! and a field of [`Invoker`] that runs it.

use async_trait::async_trait;
use hanshu_core::ports::{CancelReach, Invoke};
use hanshu_core::{Invocation, Outcome, RequestId, Revision};

use super::Invoker;

/// What runs an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExecutionKind {
    /// A sandbox of the function's pool.
    Function,
}

impl ExecutionKind {
    /// The kind of a revision: every revision is a function's so far.
    fn of(_revision: &Revision) -> Self {
        Self::Function
    }
}

#[async_trait]
impl Invoke for Invoker {
    async fn invoke(&self, invocation: Invocation) -> Outcome {
        match ExecutionKind::of(&invocation.function) {
            ExecutionKind::Function => self.functions.run(invocation).await,
        }
    }

    async fn cancel(&self, request_id: RequestId) -> CancelReach {
        self.functions.cancel(request_id)
    }
}
