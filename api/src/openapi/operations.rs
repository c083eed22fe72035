//! The operations of the API as OpenAPI describes them: parameters, bodies, answers. The handlers
//! are the gateway's; a test there compares its route table with this list.

#![expect(dead_code, reason = "only the attributes are used, by the macro that collects them")]

use crate::wire::{
    DeployFunction, DeployLine, DeployedFunction, FunctionDetail, FunctionFailure, FunctionList,
    FunctionListParams, Health, InvocationAccepted, InvocationList, InvocationListParams,
    InvocationParams, InvocationView, LogPageView, LogParams, NamespaceParams, ProblemBody,
    QueueList, Readiness, TriggerChange, TriggerDetail, TriggerFired, TriggerList, VersionList,
    VersionView,
};

/// Runs or queues the event in the body.
#[utoipa::path(
    post,
    path = "/v1/functions/{name}/invocations",
    tag = "invocations",
    operation_id = "invoke",
    params(
        ("name" = String, Path, description = "The function's name"),
        ("namespace" = Option<String>, Query, description = "`default` if absent"),
        ("qualifier" = Option<String>, Query, description = "`$LATEST`, or a version's number"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: queue the event"),
        ("x-hanshu-log" = Option<String>, Header, description = "`tail`: the end of the log, \
            base64, in `x-hanshu-log-result`"),
    ),
    request_body(content = serde_json::Value, description = "The event: any JSON; none is `{}`. \
        At most 6,291,456 bytes, 131,072 if it is queued"),
    responses(
        (status = 200, description = "What the function returned", body = serde_json::Value),
        (status = 202, description = "Queued: it survives a crash", body = InvocationAccepted),
        (status = 400, description = "Not JSON", body = ProblemBody),
        (status = 404, description = "No such function", body = ProblemBody),
        (status = 413, description = "Too large", body = ProblemBody),
        (status = 429, description = "No free place", body = ProblemBody),
        (status = 500, description = "The function failed", body = FunctionFailure),
        (status = 503, description = "Unavailable", body = ProblemBody),
        (status = 504, description = "Out of time", body = FunctionFailure),
    )
)]
fn invoke() {}

/// An invocation and its state.
#[utoipa::path(
    get, path = "/v1/invocations/{id}", tag = "invocations", operation_id = "showInvocation",
    params(("id" = String, Path, description = "The request id"), InvocationParams),
    responses(
        (status = 200, description = "As it is now", body = InvocationView),
        (status = 404, description = "Never accepted, or its keep time is over",
            body = ProblemBody),
    )
)]
fn show_invocation() {}

/// Ended asynchronous invocations, newest end first.
#[utoipa::path(
    get, path = "/v1/invocations", tag = "invocations", operation_id = "listInvocations",
    params(InvocationListParams),
    responses((status = 200, description = "A page of them", body = InvocationList))
)]
fn list_invocations() {}

/// Cancels an invocation, queued or synchronous. One that waits ends at once. One that runs gets
/// SIGTERM, and after the server's `pool.cancel_grace_ms` its sandbox is stopped; it ends as cancelled
/// unless it returned a value before. May be repeated.
#[utoipa::path(
    post, path = "/v1/invocations/{id}/cancel", tag = "invocations",
    operation_id = "cancelInvocation",
    params(("id" = String, Path, description = "The request id")),
    responses(
        (status = 200, description = "It has ended as cancelled", body = InvocationView),
        (status = 202, description = "It runs, and has been told to end; ask for its state",
            body = InvocationAccepted),
        (status = 404, description = "Not known", body = ProblemBody),
        (status = 409, description = "It has ended", body = ProblemBody),
        (status = 503, description = "Not found, and not every node could be asked",
            body = ProblemBody),
    )
)]
fn cancel_invocation() {}

/// Queues the event of an ended invocation once more: as it was, or with the body as its input.
#[utoipa::path(
    post, path = "/v1/invocations/{id}/rerun", tag = "invocations",
    operation_id = "rerunInvocation",
    params(("id" = String, Path, description = "The request id of the ended invocation")),
    request_body(content = Option<serde_json::Value>, description = "Another input: any JSON; \
        none is the one that it had. At most 131,072 bytes"),
    responses(
        (status = 202, description = "Queued, with a request id of its own",
            body = InvocationAccepted),
        (status = 404, description = "Not known", body = ProblemBody),
        (status = 409, description = "It has not ended, or its input is not kept any more",
            body = ProblemBody),
    )
)]
fn rerun_invocation() {}

/// Makes code and configuration the function's `$LATEST`, and its triggers those given. With
/// `Accept: application/x-ndjson`, progress is streamed line by line.
#[utoipa::path(
    put, path = "/v1/functions/{name}", tag = "functions", operation_id = "deploy",
    params(("name" = String, Path, description = "The function's name"), NamespaceParams),
    request_body = DeployFunction,
    responses(
        (status = 200, description = "Deployed, or unchanged", content(
            (DeployedFunction = "application/json"), (DeployLine = "application/x-ndjson"))),
        (status = 400, description = "A value breaks a rule", body = ProblemBody),
        (status = 409, description = "The package is not there, or a path is another function's",
            body = ProblemBody),
    )
)]
fn deploy() {}

/// The functions, by name.
#[utoipa::path(
    get, path = "/v1/functions", tag = "functions", operation_id = "listFunctions",
    params(FunctionListParams),
    responses((status = 200, description = "All of them", body = FunctionList))
)]
fn list_functions() {}

/// A function with all that belongs to it.
#[utoipa::path(
    get, path = "/v1/functions/{name}", tag = "functions", operation_id = "showFunction",
    params(("name" = String, Path, description = "The function's name"), NamespaceParams),
    responses(
        (status = 200, description = "As it is now", body = FunctionDetail),
        (status = 404, description = "No such function", body = ProblemBody),
    )
)]
fn show_function() {}

/// Removes a function with its versions and triggers.
#[utoipa::path(
    delete, path = "/v1/functions/{name}", tag = "functions", operation_id = "deleteFunction",
    params(("name" = String, Path, description = "The function's name"), NamespaceParams),
    responses(
        (status = 204, description = "Removed; its queued events end as failed"),
        (status = 404, description = "No such function", body = ProblemBody),
    )
)]
fn delete_function() {}

/// A function's versions, from the lowest.
#[utoipa::path(
    get, path = "/v1/functions/{name}/versions", tag = "versions", operation_id = "listVersions",
    params(("name" = String, Path, description = "The function's name"), NamespaceParams),
    responses(
        (status = 200, description = "All of them", body = VersionList),
        (status = 404, description = "No such function", body = ProblemBody),
    )
)]
fn list_versions() {}

/// Publishes `$LATEST` as the next version; the newest one again if nothing has changed since.
#[utoipa::path(
    post, path = "/v1/functions/{name}/versions", tag = "versions", operation_id = "publish",
    params(("name" = String, Path, description = "The function's name"), NamespaceParams),
    responses(
        (status = 201, description = "The version", body = VersionView),
        (status = 404, description = "No such function", body = ProblemBody),
    )
)]
fn publish() {}

/// A function's triggers, by name.
#[utoipa::path(
    get, path = "/v1/functions/{name}/triggers", tag = "triggers", operation_id = "listTriggers",
    params(("name" = String, Path, description = "The function's name"), NamespaceParams),
    responses(
        (status = 200, description = "All of them", body = TriggerList),
        (status = 404, description = "No such function", body = ProblemBody),
    )
)]
fn list_triggers() {}

/// Switches a trigger on or off, until the next deploy says otherwise.
#[utoipa::path(
    patch, path = "/v1/functions/{name}/triggers/{trigger}", tag = "triggers",
    operation_id = "changeTrigger",
    params(
        ("name" = String, Path, description = "The function's name"),
        ("trigger" = String, Path, description = "The trigger's name"),
        NamespaceParams,
    ),
    request_body = TriggerChange,
    responses(
        (status = 200, description = "As it is now", body = TriggerDetail),
        (status = 404, description = "No such trigger", body = ProblemBody),
    )
)]
fn change_trigger() {}

/// Queues a timer's event now, through the same path as its ticks.
#[utoipa::path(
    post, path = "/v1/functions/{name}/triggers/{trigger}/fire", tag = "triggers",
    operation_id = "fireTrigger",
    params(
        ("name" = String, Path, description = "The function's name"),
        ("trigger" = String, Path, description = "The trigger's name"),
        NamespaceParams,
    ),
    responses(
        (status = 202, description = "Queued", body = TriggerFired),
        (status = 400, description = "Not a timer", body = ProblemBody),
        (status = 404, description = "No such trigger", body = ProblemBody),
    )
)]
fn fire_trigger() {}

/// A page of a function's log. Without `since` and `after` it is the newest.
#[utoipa::path(
    get, path = "/v1/functions/{name}/logs", tag = "logs", operation_id = "readLogs",
    params(("name" = String, Path, description = "The function's name"), LogParams),
    responses(
        (status = 200, description = "Lines in order of writing", body = LogPageView),
        (status = 404, description = "No such function", body = ProblemBody),
    )
)]
fn read_logs() {}

/// Whether a package is here, so that unchanged code is not sent again.
#[utoipa::path(
    head, path = "/v1/packages/{digest}", tag = "packages", operation_id = "hasPackage",
    params(("digest" = String, Path, description = "SHA-256 of the zip's bytes")),
    responses((status = 200, description = "It is here"), (status = 404, description = "It is not"))
)]
fn has_package() {}

/// Takes a package: a zip of at most 256 MiB whose SHA-256 is the digest.
#[utoipa::path(
    put, path = "/v1/packages/{digest}", tag = "packages", operation_id = "putPackage",
    params(("digest" = String, Path, description = "SHA-256 of the zip's bytes")),
    request_body(content = Vec<u8>, content_type = "application/zip"),
    responses(
        (status = 204, description = "It is here"),
        (status = 400, description = "A bad zip, or other bytes", body = ProblemBody),
        (status = 413, description = "Too large", body = ProblemBody),
    )
)]
fn put_package() {}

/// All queues that hold anything, by name.
#[utoipa::path(
    get, path = "/v1/queues", tag = "queues", operation_id = "listQueues",
    responses(
        (status = 200, description = "All of them", body = QueueList),
        (status = 503, description = "The queue is unavailable", body = ProblemBody),
    )
)]
fn list_queues() {}

/// The process is alive.
#[utoipa::path(
    get, path = "/healthz", tag = "status", operation_id = "health", security(()),
    responses((status = 200, description = "Alive", body = Health))
)]
fn health() {}

/// Whether it can serve.
#[utoipa::path(
    get, path = "/readyz", tag = "status", operation_id = "readiness", security(()),
    responses(
        (status = 200, description = "It can", body = Readiness),
        (status = 503, description = "It cannot: see the reasons", body = Readiness),
    )
)]
fn readiness() {}

/// The metrics, as Prometheus reads them.
#[utoipa::path(
    get, path = "/metrics", tag = "status", operation_id = "metrics",
    responses((status = 200, description = "Prometheus text", body = String,
        content_type = "text/plain"))
)]
fn metrics() {}

/// The OpenAPI document of this API.
#[utoipa::path(
    get, path = "/openapi.json", tag = "status", operation_id = "openapi", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value))
)]
fn openapi_document() {}
