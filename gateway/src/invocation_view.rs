//! Invocations as the API shows them. Pure.

use hanshu_api::wire::{
    AttemptView, InvocationCaller, InvocationError, InvocationTrigger, InvocationView,
};
use hanshu_core::{
    AsyncState, Attempt, Failure, FunctionCaller, FunctionId, InvocationRecord, InvocationState,
    RequestId, StatusCode, Timestamp, TriggerKind, TriggerName,
};
use serde_json::value::RawValue;

/// From the state beside the queue. `kind` knows the kinds of triggers that are still there.
pub(crate) fn view_from_queue_state(
    state: AsyncState,
    kind: impl Fn(&FunctionId, &TriggerName) -> Option<TriggerKind>,
) -> InvocationView {
    let trigger =
        state.trigger.map(|name| InvocationTrigger { kind: kind(&state.function, &name), name });
    InvocationView {
        request_id: state.request_id,
        namespace: state.function.namespace,
        function: state.function.name,
        version: state.version,
        trigger,
        called_by: state.called_by.map(called_by),
        state: state.state,
        attempts: state.attempts.into_iter().map(attempt).collect(),
        accepted_at: state.accepted_at,
        ended_at: state.ended_at,
        result: state.result.and_then(|text| RawValue::from_string(text).ok()),
        error: state.error.map(error),
        rerun_of: state.rerun_of,
    }
}

/// From the records of its attempts, oldest first: a synchronous call, or an event whose state's
/// keep time is over. `None` without records. Results are not in the journal.
pub(crate) fn view_from_records(
    id: RequestId,
    records: Vec<InvocationRecord>,
    kind: impl Fn(&FunctionId, &TriggerName) -> Option<TriggerKind>,
) -> Option<InvocationView> {
    let last = records.last()?.clone();
    let first = records.first()?;
    let born = id.born_ms().and_then(|ms| i64::try_from(ms).ok());
    let accepted_at = born.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let accepted_at = accepted_at.unwrap_or(first.started_at);
    let state = match last.status {
        StatusCode::Success => InvocationState::Succeeded,
        StatusCode::RequestCanceled => InvocationState::Cancelled,
        StatusCode::ResponseTooLarge
        | StatusCode::UserException
        | StatusCode::ResourceLimitReached
        | StatusCode::TimeLimitReached
        | StatusCode::MemoryLimitReached
        | StatusCode::FunctionNotFound
        | StatusCode::HandlerNotFound
        | StatusCode::ProcessExit
        | StatusCode::UserCodeError
        | StatusCode::ContainerInitError
        | StatusCode::InitTimeout
        | StatusCode::InsufficientResources
        | StatusCode::InternalError => InvocationState::Failed,
    };
    let trigger =
        last.trigger.map(|name| InvocationTrigger { kind: kind(&last.function, &name), name });
    Some(InvocationView {
        request_id: id,
        namespace: last.function.namespace,
        function: last.function.name,
        version: last.version,
        trigger,
        called_by: last.called_by.map(called_by),
        state,
        ended_at: last.started_at.checked_add(last.duration).ok(),
        attempts: records.into_iter().map(attempt_of_record).collect(),
        accepted_at,
        result: None,
        error: last.error.map(error),
        rerun_of: None,
    })
}

fn called_by(caller: FunctionCaller) -> InvocationCaller {
    let FunctionCaller { function, request_id, .. } = caller;
    InvocationCaller { namespace: function.namespace, function: function.name, request_id }
}

fn attempt(attempt: Attempt) -> AttemptView {
    AttemptView {
        number: attempt.number,
        started_at: attempt.started_at,
        ended_at: attempt.ended_at,
        status_code: attempt.status,
        node: attempt.node,
        cold: attempt.cold,
    }
}

fn attempt_of_record(record: InvocationRecord) -> AttemptView {
    AttemptView {
        number: record.attempt,
        started_at: record.started_at,
        ended_at: record.started_at.checked_add(record.duration).ok(),
        status_code: Some(record.status),
        node: record.node,
        cold: record.cold,
    }
}

fn error(failure: Failure) -> InvocationError {
    InvocationError {
        error_code: failure.error_code,
        error_message: failure.error_message,
        error_type: failure.error_type,
        stack_trace: failure.stack_trace,
        status_code: failure.status_code,
    }
}
