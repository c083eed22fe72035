//! How an invocation stands: from the queue while it or its state is there, else from the history,
//! else from the journal.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use hanshu_api::wire::{InvocationParams, InvocationView};
use hanshu_core::{ErrorKind, FunctionId, PermissionTarget, RequestId, TriggerKind, TriggerName};

use super::logs::WAIT_MAX_S;
use crate::extract::{PathParam, QueryParams};
use crate::invocation_view;
use crate::middleware::Caller;
use crate::problem::Problem;
use crate::state::Gateway;

/// Between two looks at a state that somebody waits for: the first, doubled up to the last.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_LAST: Duration = Duration::from_millis(500);

/// An invocation with its state; may wait for its end.
pub(crate) async fn show(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathParam(id): PathParam<RequestId>,
    QueryParams(params): QueryParams<InvocationParams>,
) -> Result<Json<InvocationView>, Problem> {
    let wait = Duration::from_secs(params.wait.unwrap_or(0).min(WAIT_MAX_S));
    let began = Instant::now();
    let mut pause = LOOK_FIRST;
    loop {
        let view = find_permitted(&gateway, &caller, id).await?;
        let left = wait.saturating_sub(began.elapsed());
        if view.state.has_ended() || left.is_zero() {
            return Ok(Json(view));
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(LOOK_LAST);
    }
}

/// The invocation, if the caller may do with it what the route is for; else as if it were unknown.
pub(super) async fn find_permitted(
    gateway: &Gateway,
    caller: &Caller,
    id: RequestId,
) -> Result<InvocationView, Problem> {
    let view = find(gateway, id).await?;
    let function = FunctionId { namespace: view.namespace.clone(), name: view.function.clone() };
    let called_by = view
        .called_by
        .clone()
        .map(|caller| FunctionId { namespace: caller.namespace, name: caller.function });
    let target =
        PermissionTarget::Invocation { function: &function, called_by: called_by.as_ref() };
    caller.check(target).map_err(|_| unknown_invocation(id))?;
    Ok(view)
}

/// The invocation, for use-cases that ask by themselves what the caller may do.
pub(super) async fn find(gateway: &Gateway, id: RequestId) -> Result<InvocationView, Problem> {
    let kind = |function: &FunctionId, name: &TriggerName| kind_of(gateway, function, name);
    if let Some(state) = gateway.queue.state(id).await? {
        return Ok(invocation_view::view_from_queue_state(state, kind));
    }
    if let Some(entry) = gateway.history.find(id).await? {
        return Ok(invocation_view::view_from_queue_state(entry.state, kind));
    }
    let mut records = gateway.journal.find(id).await?;
    if records.is_empty() {
        // A record is written a moment after its answer: look again behind what was handed over.
        gateway.journal.flush().await?;
        records = gateway.journal.find(id).await?;
    }
    invocation_view::view_from_records(id, records, kind).ok_or_else(|| unknown_invocation(id))
}

fn unknown_invocation(id: RequestId) -> Problem {
    Problem::new(ErrorKind::NotFound, format!("invocation `{id}` is not known"))
        .code("invocation_not_found")
        .hint("see that the id is right; ended invocations are kept for a time only")
}

/// The kind of a trigger that is still there.
pub(super) fn kind_of(
    gateway: &Gateway,
    function: &FunctionId,
    name: &TriggerName,
) -> Option<TriggerKind> {
    let snapshot = gateway.controller.catalog().snapshot();
    let entry = snapshot.function(function)?;
    let trigger = entry.triggers.iter().find(|trigger| trigger.id.name == *name)?;
    Some(trigger.spec.kind())
}
