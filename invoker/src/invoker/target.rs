//! Which function an event is for, and who waits for its answer.

use std::sync::Arc;

use hanshu_core::{
    Event, FunctionCaller, Invocation, InvocationMode, RequestId, Revision, TriggerName,
};

/// An invocation without its event.
#[derive(Clone, Debug)]
pub(super) struct InvocationTarget {
    pub(super) request_id: RequestId,
    pub(super) revision: Arc<Revision>,
    pub(super) trigger: Option<TriggerName>,
    pub(super) called_by: Option<FunctionCaller>,
    pub(super) mode: InvocationMode,
}

impl InvocationTarget {
    /// The two parts of an invocation.
    pub(super) fn split(invocation: Invocation) -> (Self, Event) {
        let Invocation { request_id, function, event, mode } = invocation;
        let trigger = event.origin.trigger().cloned();
        let called_by = event.origin.caller().cloned();
        (Self { request_id, revision: function, trigger, called_by, mode }, event)
    }

    /// Whether the caller wants the tail of the log.
    pub(super) fn wants_tail(&self) -> bool {
        matches!(self.mode, InvocationMode::Sync { tail: true, .. })
    }
}
