//! The serving end of the calls between processes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body as StreamBody, HttpBody};
use axum::extract::{Path, Request as AxumRequest, State};
use axum::response::{IntoResponse, Response as AxumResponse};
use axum::routing::{get, post};
use bytes::Bytes;
use hanshu_core::ports::{
    CancelReach, ImageBuilder, Invoke, PackageError, PackageStore, TriggerHealth,
};
use hanshu_core::{Digest, PACKAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, RequestId, RuntimeFamily, Secret};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Collected, Limited};
use subtle::ConstantTimeEq as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{Instrument as _, Span, error, error_span, warn};

use crate::messages::{
    CANCEL_ROUTE, HEAD_BYTES_MAX, INVOCATIONS_PATH, ImageBuildLine, PackageFault, decode_call,
    encode_outcome,
};
use crate::ndjson::{LINES_MAX, encode_line, stream_lines};
use crate::remote_packages::TRANSFER_TIMEOUT;
use crate::trigger_health::{HEALTH_PROBLEMS_PATH, TriggerHealthProblem};

/// How long the body of an invocation may take.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the server answers for. What a role does not have is left out: its paths answer 404.
#[derive(Clone)]
pub struct ClusterServerParts {
    /// The cluster's shared token.
    pub token: Secret,
    /// Invoker role: runs invocations, and cancels those that run in this process only.
    pub invoke: Option<Arc<dyn Invoke>>,
    /// Controller role: keeps packages.
    pub packages: Option<Arc<dyn PackageStore>>,
    /// Controller or invoker role: makes images.
    pub images: Option<Arc<dyn ImageBuilder>>,
    /// Triggers role: the health of the triggers that run here.
    pub trigger_health: Option<Arc<dyn TriggerHealth>>,
    /// The general runtime: everything but invocations runs there.
    pub general: Handle,
    /// Image builds are tasks of it.
    pub tasks: TaskTracker,
}

/// Answers the calls of other processes.
pub struct ClusterServer {
    parts: ClusterServerParts,
    router: Router,
}

impl ClusterServer {
    /// Makes a server of these parts.
    pub fn new(parts: ClusterServerParts) -> Self {
        let mut router = Router::new();
        if let Some(invoke) = parts.invoke.clone() {
            let cancel = Router::new().route(CANCEL_ROUTE, post(cancel_invocation));
            router = router.merge(cancel.with_state(invoke));
        }
        if let Some(packages) = parts.packages.clone() {
            let path = "/internal/v1/packages/{digest}";
            let methods = get(give_package).head(has_package).put(take_package);
            router = router.merge(Router::new().route(path, methods).with_state(packages));
        }
        if let Some(images) = parts.images.clone() {
            let state = (images, parts.tasks.clone());
            let path = "/internal/v1/images/{family}";
            router = router.merge(Router::new().route(path, post(make_image)).with_state(state));
        }
        if let Some(health) = parts.trigger_health.clone() {
            let route = get(send_health_problems);
            let health = Router::new().route(HEALTH_PROBLEMS_PATH, route).with_state(health);
            router = router.merge(health);
        }
        Self { parts, router }
    }

    /// Answers one request: an invocation on the caller's task, anything else on the general
    /// runtime.
    pub async fn respond<B, R>(&self, request: Request<B>) -> Response<R>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
        R: From<Bytes> + From<StreamBody>,
    {
        if request.uri().path() == "/healthz" {
            return plain(StatusCode::OK, "ok");
        }
        if !self.is_peer(request.headers()) {
            return plain(StatusCode::UNAUTHORIZED, "this is not the cluster's token");
        }
        match &self.parts.invoke {
            Some(invoke)
                if request.method() == Method::POST && request.uri().path() == INVOCATIONS_PATH =>
            {
                run(invoke.as_ref(), request.into_body()).await
            }
            _ => self.forward(request).await,
        }
    }

    /// Answers on the general runtime, in the current span. What was begun goes on if the caller
    /// leaves.
    async fn forward<B, R>(&self, request: Request<B>) -> Response<R>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
        R: From<Bytes> + From<StreamBody>,
    {
        let answer = self.router.clone().oneshot(request.map(StreamBody::new));
        match self.parts.general.spawn(answer.instrument(Span::current())).await {
            Ok(Ok(response)) => response.map(R::from),
            Ok(Err(never)) => match never {},
            Err(error) => {
                error!(%error, "A request of another process failed");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the request failed here")
            }
        }
    }

    fn is_peer(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(given) = given.and_then(|text| text.strip_prefix("Bearer ")) else {
            return false;
        };
        given.as_bytes().ct_eq(self.parts.token.expose().as_bytes()).into()
    }
}

impl std::fmt::Debug for ClusterServerParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterServerParts").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ClusterServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterServer").finish_non_exhaustive()
    }
}

async fn run<B, R>(invoke: &dyn Invoke, body: B) -> Response<R>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<axum::BoxError>,
    R: From<Bytes>,
{
    let limit = 4 + HEAD_BYTES_MAX + PAYLOAD_BYTES_MAX;
    let Some(message) = read_body(body, limit, MESSAGE_TIMEOUT).await else {
        return plain(StatusCode::BAD_REQUEST, "the call did not arrive whole");
    };
    let invocation = match decode_call(message) {
        Ok(invocation) => invocation,
        Err(error) => return plain(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let span = error_span!("invoke", request_id = %invocation.request_id);
    match encode_outcome(invoke.invoke(invocation).instrument(span).await) {
        Ok(message) => Response::new(R::from(message)),
        Err(error) => {
            warn!(%error, "Could not send an outcome to another node");
            plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}

/// The whole body; `None` if it is longer than `limit` bytes, breaks off or takes too long. One
/// that comes in a single piece is not copied.
async fn read_body<B>(body: B, limit: usize, at_most: Duration) -> Option<Bytes>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<axum::BoxError>,
{
    let whole = timeout(at_most, Limited::new(body, limit).collect()).await.ok()?;
    whole.ok().map(Collected::to_bytes)
}

fn plain<R: From<Bytes>>(status: StatusCode, text: impl Into<Bytes>) -> Response<R> {
    let mut response = Response::new(R::from(text.into()));
    *response.status_mut() = status;
    response
}

async fn cancel_invocation(
    State(invoke): State<Arc<dyn Invoke>>,
    Path(id): Path<RequestId>,
) -> axum::Json<CancelReach> {
    axum::Json(invoke.cancel(id).await)
}

async fn has_package(
    State(packages): State<Arc<dyn PackageStore>>,
    Path(digest): Path<Digest>,
) -> StatusCode {
    if packages.has(&digest).await { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn give_package(
    State(packages): State<Arc<dyn PackageStore>>,
    Path(digest): Path<Digest>,
) -> AxumResponse {
    match packages.zip(&digest).await {
        Ok(zip) => zip.into_response(),
        Err(error) => package_fault(error),
    }
}

async fn take_package(
    State(packages): State<Arc<dyn PackageStore>>,
    Path(digest): Path<Digest>,
    request: AxumRequest,
) -> AxumResponse {
    let limit = usize::try_from(PACKAGE_BYTES_MAX).unwrap_or(usize::MAX);
    let Some(zip) = read_body(request.into_body(), limit, TRANSFER_TIMEOUT).await else {
        let reason = "the package did not arrive whole".to_owned();
        return package_fault(PackageError::Io(reason));
    };
    match packages.put(&digest, zip).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => package_fault(error),
    }
}

fn package_fault(error: PackageError) -> AxumResponse {
    let status = match error {
        PackageError::Missing(_) => StatusCode::NOT_FOUND,
        PackageError::Refused(_) | PackageError::Digest { .. } => StatusCode::BAD_REQUEST,
        PackageError::Io(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, axum::Json(PackageFault::from(error))).into_response()
}

async fn send_health_problems(State(health): State<Arc<dyn TriggerHealth>>) -> AxumResponse {
    let all = health.problems().into_iter();
    let all = all.map(|(trigger, health_problem)| TriggerHealthProblem { trigger, health_problem });
    axum::Json(all.collect::<Vec<_>>()).into_response()
}

type Images = (Arc<dyn ImageBuilder>, TaskTracker);

async fn make_image(
    State((images, tasks)): State<Images>,
    Path(family): Path<RuntimeFamily>,
) -> AxumResponse {
    let (lines, receiver) = mpsc::channel(LINES_MAX);
    tasks.spawn(async move {
        let progress = lines.clone();
        let tell = move |text: &str| {
            // A full channel means a reader that is slow: it misses a line of progress, no more.
            let _ = progress.try_send(encode_line(&ImageBuildLine::Progress(text.into())));
        };
        let last = match images.ensure(family, &tell).await {
            Ok(()) => ImageBuildLine::Done,
            Err(error) => ImageBuildLine::Failed(error.0),
        };
        let _ = lines.send(encode_line(&last)).await;
    });
    StreamBody::from_stream(stream_lines(receiver)).into_response()
}
