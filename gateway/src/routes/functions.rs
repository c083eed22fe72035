//! Functions: deploy, show, list, delete.

use axum::Json;
use axum::body::Body as StreamBody;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hanshu_api::wire::{
    DeployFunction, DeployLine, DeployedFunction, FunctionDetail, FunctionList, FunctionListParams,
};
use hanshu_controller::DeployRequest;
use hanshu_core::{Actor, ErrorKind, FunctionId, PermissionTarget, RequestId};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;
use tracing::{Instrument as _, info};

use crate::api_handler::FromHead;
use crate::deploy_request::deploy_request;
use crate::extract::{FunctionParam, JsonBody, QueryParams};
use crate::function_view;
use crate::middleware::{Caller, request_id};
use crate::ndjson;
use crate::problem::Problem;
use crate::state::Gateway;

/// Whether the client reads progress line by line.
#[derive(Debug)]
pub(crate) enum ProgressLines {
    /// It does; the last line says which request it was.
    Read(RequestId),
    /// It waits for one response.
    Unread,
}

impl FromHead for ProgressLines {
    async fn from_head(head: &mut Parts, _gateway: &Gateway) -> Result<Self, Problem> {
        let reads = accepts_lines(&head.headers);
        Ok(if reads { Self::Read(request_id(&head.extensions)) } else { Self::Unread })
    }
}

/// Makes code and configuration the function's `$LATEST`, and its triggers those given. With
/// `Accept: application/x-ndjson`, progress is streamed line by line.
pub(crate) async fn deploy(
    State(gateway): State<Gateway>,
    caller: Caller,
    lines: ProgressLines,
    FunctionParam(id): FunctionParam,
    JsonBody(wanted): JsonBody<DeployFunction>,
) -> Result<Response, Problem> {
    let request = deploy_request(id, wanted)?;
    match lines {
        ProgressLines::Unread => {
            Ok(Json(run(&gateway, &caller.actor, request, &|_| {}).await?).into_response())
        }
        ProgressLines::Read(request_id) => Ok(stream(gateway, caller.actor, request, request_id)),
    }
}

async fn run(
    gateway: &Gateway,
    actor: &Actor,
    request: DeployRequest,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<DeployedFunction, Problem> {
    let done = gateway.controller.deploy(actor, request, progress).await?;
    info!(function = %done.revision.function, changed = done.changed, "Deployed a function");
    Ok(function_view::deployed(gateway, done))
}

/// The deploy as a task of its own: it runs to its end, whether or not the client stays.
fn stream(
    gateway: Gateway,
    actor: Actor,
    request: DeployRequest,
    request_id: RequestId,
) -> Response {
    let (lines, receiver) = mpsc::channel(ndjson::LINES_MAX);
    let tasks = gateway.tasks.clone();
    let work = async move {
        let progress = lines.clone();
        let tell = move |text: &str| {
            // A full channel means a reader that is slow: it misses a line of progress, no more.
            let _ = progress.try_send(ndjson::line(&DeployLine::Progress(text.into())));
        };
        let last = match run(&gateway, &actor, request, &tell).await {
            Ok(deployed) => DeployLine::Deployed(deployed),
            Err(problem) => DeployLine::Problem(problem.body(request_id)),
        };
        let _ = lines.send(ndjson::line(&last)).await;
    };
    tasks.spawn(work.in_current_span());
    let body = StreamBody::from_stream(ndjson::stream(receiver));
    ([(CONTENT_TYPE, ndjson::MEDIA_TYPE)], body).into_response()
}

fn accepts_lines(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case(ndjson::MEDIA_TYPE))
}

/// The functions, by name.
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryParams(which): QueryParams<FunctionListParams>,
) -> Result<Json<FunctionList>, Problem> {
    let namespace = which.namespace.as_ref();
    caller.check(namespace.map_or(PermissionTarget::Server, PermissionTarget::Namespace))?;
    let snapshot = gateway.controller.catalog().snapshot();
    let entries = snapshot.list(namespace);
    Ok(Json(FunctionList {
        functions: entries.into_iter().filter_map(function_view::summary).collect(),
    }))
}

/// A function with all that belongs to it.
pub(crate) async fn show(
    State(gateway): State<Gateway>,
    caller: Caller,
    FunctionParam(id): FunctionParam,
) -> Result<Json<FunctionDetail>, Problem> {
    caller.check(PermissionTarget::Function(&id))?;
    let snapshot = gateway.controller.catalog().snapshot();
    let detail = snapshot.function(&id).and_then(|entry| function_view::detail(&gateway, entry));
    detail.map(Json).ok_or_else(|| no_function(&id))
}

/// Removes a function with its versions and triggers.
pub(crate) async fn delete(
    State(gateway): State<Gateway>,
    caller: Caller,
    FunctionParam(id): FunctionParam,
) -> Result<StatusCode, Problem> {
    gateway.controller.delete(&caller.actor, &id).await?;
    info!(function = %id, "Deleted a function");
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn no_function(id: &FunctionId) -> Problem {
    Problem::new(ErrorKind::NotFound, format!("function `{id}` does not exist"))
        .code("function_not_found")
}
