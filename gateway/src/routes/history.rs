//! The history of ended asynchronous invocations: a page of it, and running one of them again. And
//! cancelling an invocation that has not ended.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hanshu_api::wire::{InvocationAccepted, InvocationList, InvocationListParams};
use hanshu_core::ports::{CancelOutcome, HistoryQuery};
use hanshu_core::{
    ASYNC_PAYLOAD_BYTES_MAX, ErrorKind, Event, FunctionId, InvocationState, Origin,
    PermissionTarget, RequestId,
};
use hanshu_triggers::{FunctionCall, check_json};
use http::{HeaderValue, StatusCode};
use tracing::info;

use super::invocations::{find, find_permitted, kind_of};
use super::logs::time_param;
use crate::extract::{PathParam, QueryParams};
use crate::headers::{FAULT, REQUEST_ID, id_value};
use crate::http_server::read_payload;
use crate::invocation_view;
use crate::middleware::Caller;
use crate::problem::Problem;
use crate::state::Gateway;

/// Invocations of a page that asks for no number.
const PAGE_DEFAULT: usize = 100;
/// Invocations of a page, at most.
const PAGE_MAX: usize = 1_000;
/// Characters of a text that is searched for, at most.
const TEXT_CHARS_MAX: usize = 200;

/// A page of ended invocations.
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryParams(params): QueryParams<InvocationListParams>,
) -> Result<Json<InvocationList>, Problem> {
    caller.check(PermissionTarget::Namespace(&params.namespace))?;
    let query = to_query(&gateway, params)?;
    let page = gateway.history.page(&query).await?;
    let kind = |function: &FunctionId, name: &_| kind_of(&gateway, function, name);
    let views =
        page.events.into_iter().map(|state| invocation_view::view_from_queue_state(state, kind));
    Ok(Json(InvocationList {
        invocations: views.collect(),
        next: page.next.map(|cursor| cursor.to_string()),
        searched_to: page.searched_to,
    }))
}

fn to_query(gateway: &Gateway, params: InvocationListParams) -> Result<HistoryQuery, Problem> {
    let now = gateway.clock.now();
    let time =
        |name, text: Option<String>| text.map(|text| time_param(name, &text, now)).transpose();
    if params.trigger.is_some() && params.function.is_none() {
        let rule = "`function` too: triggers have their names within a function";
        return Err(Problem::value("trigger", "a name alone", rule));
    }
    if let Some(text) = &params.q
        && TEXT_CHARS_MAX < text.chars().count()
    {
        return Err(Problem::value("q", text, format!("at most {TEXT_CHARS_MAX} characters")));
    }
    let limit = params.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::value("limit", limit.to_string(), format!("1 to {PAGE_MAX}")));
    }
    Ok(HistoryQuery {
        namespace: params.namespace,
        function: params.function,
        trigger: params.trigger,
        states: states(params.state.as_deref().unwrap_or_default())?,
        from: time("from", params.from)?,
        to: time("to", params.to)?,
        text: params.q.filter(|text| !text.is_empty()),
        after: params.cursor.map(|text| text.parse()).transpose()?,
        limit,
    })
}

/// The states of a list with commas; none means any.
fn states(text: &str) -> Result<Vec<InvocationState>, Problem> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let ended = || InvocationState::ALL.into_iter().filter(|state| state.has_ended());
    names
        .map(|name| {
            ended().find(|state| state.as_str() == name).ok_or_else(|| {
                let known: Vec<_> = ended().map(InvocationState::as_str).collect();
                let rule = format!("states in which invocations end: {}", known.join(", "));
                Problem::value("state", name, rule)
            })
        })
        .collect()
}

/// Queues an ended invocation's event once more.
pub(crate) async fn rerun(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathParam(id): PathParam<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    let input = read_payload(request.into_body(), ASYNC_PAYLOAD_BYTES_MAX).await;
    let input = input
        .map_err(|error| Problem::payload(error, "event_too_large", ASYNC_PAYLOAD_BYTES_MAX))?;
    let view = find(&gateway, id).await?;
    if !view.state.has_ended() {
        let detail = format!("invocation `{id}` is {}", view.state.as_str());
        return Err(Problem::new(ErrorKind::Conflict, detail)
            .code("not_ended")
            .hint("wait for its end, or cancel it first"));
    }
    let event = rerun_event(&gateway, id, input).await?;
    let request_id = RequestId::new();
    let call = FunctionCall {
        request_id,
        function: FunctionId { namespace: view.namespace, name: view.function },
        qualifier: view.version,
        event,
        tail: false,
    };
    gateway.intake.rerun(&caller.actor, call, id).await?;
    info!(%request_id, rerun_of = %id, "An invocation runs again");
    let headers = [(REQUEST_ID, id_value(request_id)), (FAULT, HeaderValue::from_static("none"))];
    Ok((StatusCode::ACCEPTED, headers, Json(InvocationAccepted { request_id })).into_response())
}

/// Ends an invocation that waits as cancelled, and tells one that runs to end.
pub(crate) async fn cancel(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathParam(id): PathParam<RequestId>,
) -> Result<Response, Problem> {
    if let Err(unknown) = find_permitted(&gateway, &caller, id).await {
        // Perhaps a synchronous call that runs: nothing is stored of it yet, nor whose it is.
        caller.check(PermissionTarget::Server).map_err(|_| unknown)?;
    }
    let state = match gateway.intake.cancel(id).await? {
        CancelOutcome::Cancelled => {
            info!(request_id = %id, "Cancelled an event");
            return find(&gateway, id).await.map(|view| Json(view).into_response());
        }
        CancelOutcome::Requested => {
            info!(request_id = %id, "Cancelling a running invocation");
            let accepted = Json(InvocationAccepted { request_id: id });
            return Ok((StatusCode::ACCEPTED, accepted).into_response());
        }
        CancelOutcome::Ended(state) => state,
        // A synchronous call that has ended, or an event so old that only the history has it.
        CancelOutcome::Unknown => find(&gateway, id).await?.state,
    };
    let detail = format!("invocation `{id}` is {}", state.as_str());
    Err(Problem::new(ErrorKind::Conflict, detail)
        .code("already_ended")
        .hint("there is nothing left to cancel"))
}

/// What the function is given: the body, or what it was given before.
async fn rerun_event(gateway: &Gateway, id: RequestId, input: Bytes) -> Result<Event, Problem> {
    if !input.is_empty() {
        check_json(&input)?;
        return Ok(Event { origin: kept_origin(gateway, id).await?, payload: input });
    }
    match gateway.history.input(id).await? {
        Some(payload) => Ok(Event { origin: kept_origin(gateway, id).await?, payload }),
        None => Err(Problem::new(
            ErrorKind::Conflict,
            format!("the input of invocation `{id}` is not kept"),
        )
        .code("input_not_kept")
        .hint("give it anew as the body (`hanshu rerun ID --data JSON`)")),
    }
}

/// What started it; a call of the API where that is not known any more.
async fn kept_origin(gateway: &Gateway, id: RequestId) -> Result<Origin, Problem> {
    let entry = gateway.history.find(id).await?;
    Ok(entry.map_or(Origin::Direct, |entry| entry.origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_those_in_which_invocations_end() {
        assert_eq!(states("").unwrap(), []);
        let expected = [InvocationState::Failed, InvocationState::Expired];
        assert_eq!(states("failed, expired,").unwrap(), expected);
        for bad in ["running", "queued", "Failed", "failed;expired"] {
            assert!(states(bad).is_err(), "{bad}");
        }
    }
}
