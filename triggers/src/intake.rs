//! The entry point of all events: a synchronous call runs at once, an asynchronous one is queued.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hanshu_core::ports::{
    CancelOutcome, CancelReach, CatalogError, EventQueue, Invoke, NewEvent, PushOutcome, QueueName,
    RevisionCatalog, TimerTick,
};
use hanshu_core::{
    ASYNC_PAYLOAD_BYTES_MAX, Actor, CALL_DEPTH_MAX, Clock, Event, FunctionId,
    INLINE_CHECK_BYTES_MAX, Invocation, InvocationMode, Origin, Outcome, PAYLOAD_BYTES_MAX,
    Permission, PermissionTarget, Qualifier, RequestId, Revision, authorize,
};
use tokio::runtime::Handle;

use crate::intake_error::IntakeError;

/// An event and the function that it is for: every API and every trigger makes one.
#[derive(Clone, Debug)]
pub struct FunctionCall {
    /// Made where the request arrived; part of every log line about it.
    pub request_id: RequestId,
    /// The function that is started.
    pub function: FunctionId,
    /// Which version of it.
    pub qualifier: Qualifier,
    /// The payload of a call of the API is checked by the intake; triggers make theirs. The origin
    /// of a function's call is set by the intake, from the actor.
    pub event: Event,
    /// Whether the caller wants the tail of the log in the report.
    pub tail: bool,
}

/// A synchronous call that has ended.
#[derive(Clone, Debug)]
pub struct CompletedCall {
    /// Id of the invocation, also in the answer.
    pub request_id: RequestId,
    /// The revision that ran.
    pub function: Arc<Revision>,
    /// How it ended.
    pub outcome: Outcome,
}

/// An event that is queued: it survives a crash of every process of the platform.
#[derive(Clone, Debug)]
pub struct AcceptedEvent {
    /// Id of the invocation, to ask for its state with.
    pub request_id: RequestId,
    /// `Duplicate`: another node has queued this tick before, and this event is not kept.
    pub pushed: PushOutcome,
}

/// Settings of the intake.
#[derive(Clone, Debug)]
pub struct IntakeOptions {
    /// The longest wait of a synchronous call for a free sandbox.
    pub wait_timeout: Duration,
}

/// The entry point of all events.
pub struct EventIntake {
    /// Resolves names to revisions.
    pub catalog: Arc<dyn RevisionCatalog>,
    /// Runs synchronous calls.
    pub invoke: Arc<dyn Invoke>,
    /// Keeps asynchronous calls.
    pub queue: Arc<dyn EventQueue>,
    /// For the times of acceptance and expiry.
    pub clock: Arc<dyn Clock>,
    /// The general runtime: payloads over [`INLINE_CHECK_BYTES_MAX`] are checked there.
    pub general: Handle,
    /// Limits of calls.
    pub options: IntakeOptions,
}

impl Default for IntakeOptions {
    fn default() -> Self {
        Self { wait_timeout: Duration::from_secs(10) }
    }
}

impl fmt::Debug for EventIntake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("options", &self.options).finish_non_exhaustive()
    }
}

impl EventIntake {
    /// Runs an event now and returns how it ended. An empty payload is `{}`.
    ///
    /// # Errors
    /// The event was refused: the actor may not start the function, over 6 MB, not JSON, no such
    /// function or version, too many calls by functions before this one.
    pub async fn call(
        &self,
        actor: &Actor,
        mut call: FunctionCall,
    ) -> Result<CompletedCall, IntakeError> {
        admit(actor, Permission::Invoke, &mut call)?;
        let function = self.resolve(&call)?;
        let event = self.checked(call.event, PAYLOAD_BYTES_MAX, "a synchronous").await?;
        let mode =
            InvocationMode::Sync { wait_timeout: self.options.wait_timeout, tail: call.tail };
        let request_id = call.request_id;
        let invocation = Invocation { request_id, function: function.clone(), event, mode };
        let outcome = self.invoke.invoke(invocation).await;
        Ok(CompletedCall { request_id, function, outcome })
    }

    /// Queues an event for the revision that its name means now. When this returns, the event
    /// survives a crash of every process of the platform (unless it is a duplicate of a tick).
    ///
    /// # Errors
    /// The event was refused: the actor may not start the function, over 128 KB, not JSON, no such
    /// function or version, too many calls by functions before this one, the queue is full or
    /// unavailable.
    pub async fn accept(
        &self,
        actor: &Actor,
        mut call: FunctionCall,
        tick: Option<TimerTick>,
    ) -> Result<AcceptedEvent, IntakeError> {
        admit(actor, Permission::Invoke, &mut call)?;
        self.queue_event(call, tick, None).await
    }

    /// Queues the event of an invocation once more, for the revision that its name means now.
    ///
    /// # Errors
    /// As [`EventIntake::accept`].
    pub async fn rerun(
        &self,
        actor: &Actor,
        mut call: FunctionCall,
        rerun_of: RequestId,
    ) -> Result<AcceptedEvent, IntakeError> {
        admit(actor, Permission::ManageInvocations, &mut call)?;
        self.queue_event(call, None, Some(rerun_of)).await
    }

    /// Cancels an invocation, queued or synchronous. A queued event that waits has ended as cancelled
    /// when this returns; for one that runs the request is stored, and the invocation is told to end.
    /// Does not wait for that end, and may be repeated until it has come. Whether the actor may do so
    /// is for the caller to check: it depends on the invocation's function, which is stored elsewhere.
    ///
    /// # Errors
    /// The queue is unavailable; or the invocation was not found, and not every node could be asked.
    pub async fn cancel(&self, request_id: RequestId) -> Result<CancelOutcome, IntakeError> {
        // The queue first: an event that is not claimed yet must not begin to run meanwhile.
        let outcome = self.queue.cancel(request_id).await?;
        match outcome {
            CancelOutcome::Cancelled | CancelOutcome::Ended(_) => Ok(outcome),
            CancelOutcome::Requested => {
                // If it is not reached so, its dispatcher learns of the request when it renews its
                // hold.
                self.invoke.cancel(request_id).await;
                Ok(outcome)
            }
            // Not a queued event: perhaps a synchronous call.
            CancelOutcome::Unknown => match self.invoke.cancel(request_id).await {
                CancelReach::Reached => Ok(CancelOutcome::Requested),
                CancelReach::NotFound => Ok(CancelOutcome::Unknown),
                CancelReach::Unknown => Err(IntakeError::NodesUnavailable),
            },
        }
    }

    async fn queue_event(
        &self,
        call: FunctionCall,
        tick: Option<TimerTick>,
        rerun_of: Option<RequestId>,
    ) -> Result<AcceptedEvent, IntakeError> {
        let function = self.resolve(&call)?;
        let event = self.checked(call.event, ASYNC_PAYLOAD_BYTES_MAX, "an asynchronous").await?;
        let policy = &function.config.async_policy;
        let accepted_at = self.clock.now();
        let queue = QueueName { function: call.function, trigger: event.origin.trigger().cloned() };
        let kept = NewEvent {
            request_id: call.request_id,
            queue,
            version: call.qualifier,
            revision: function.digest.clone(),
            event,
            accepted_at,
            expires_at: accepted_at + policy.max_age,
            max_waiting: policy.max_waiting,
            tick,
            rerun_of,
        };
        let pushed = self.queue.push(kept).await?;
        Ok(AcceptedEvent { request_id: call.request_id, pushed })
    }

    fn resolve(&self, call: &FunctionCall) -> Result<Arc<Revision>, CatalogError> {
        let FunctionId { namespace, name } = &call.function;
        self.catalog.resolve(namespace, name, call.qualifier)
    }

    /// Checks the size of every payload, and the syntax of those that users wrote.
    async fn checked(
        &self,
        mut event: Event,
        bytes_max: usize,
        way: &'static str,
    ) -> Result<Event, IntakeError> {
        let bytes = event.payload.len();
        if bytes_max < bytes {
            return Err(IntakeError::TooLarge { bytes, bytes_max, way });
        }
        if bytes == 0 {
            event.payload = Bytes::from_static(b"{}");
            return Ok(event);
        }
        match event.origin {
            Origin::Trigger { .. } => return Ok(event),
            Origin::Direct | Origin::Function(_) => {}
        }
        if bytes <= INLINE_CHECK_BYTES_MAX {
            check_json(&event.payload)?;
            return Ok(event);
        }
        let payload = event.payload.clone();
        match self.general.spawn_blocking(move || check_json(&payload)).await {
            Ok(checked) => checked.map(|()| event),
            Err(_) => Err(IntakeError::Stopping),
        }
    }
}

/// Checks that the actor may start the function, and notes in the event of a function's call who
/// called and how deep the call is.
fn admit(
    actor: &Actor,
    permission: Permission,
    call: &mut FunctionCall,
) -> Result<(), IntakeError> {
    authorize(actor, permission, PermissionTarget::Function(&call.function))?;
    if let Some(caller) = actor.caller() {
        call.event.origin = Origin::Function(caller.clone());
    }
    if CALL_DEPTH_MAX < call.event.origin.depth() {
        return Err(IntakeError::TooDeep);
    }
    Ok(())
}

/// Checks that the bytes are one JSON text in UTF-8, without building a tree: lone surrogate
/// escapes pass, anything after the value does not. Nesting costs one byte of heap a level and no
/// stack. About 1 GB/s: at most [`INLINE_CHECK_BYTES_MAX`] bytes belong on the data plane.
///
/// # Errors
/// [`IntakeError::InvalidJson`], with line and column.
pub fn check_json(payload: &[u8]) -> Result<(), IntakeError> {
    if let Err(error) = std::str::from_utf8(payload) {
        let reason = format!("the bytes from {} on are not UTF-8", error.valid_up_to());
        return Err(IntakeError::InvalidJson { reason });
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(payload) {
        Ok(_) => Ok(()),
        Err(error) => Err(IntakeError::InvalidJson { reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests;
