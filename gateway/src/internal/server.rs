//! The serving end of the internal API.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body as StreamBody;
use axum::extract::{Path, Request as AxumRequest, State};
use axum::response::{IntoResponse, Response as AxumResponse};
use axum::routing::{get, post};
use bytes::Bytes;
use hanshu_core::ports::{ImageBuilder, Invoke, PackageError, PackageStore};
use hanshu_core::{Digest, PACKAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, RuntimeFamily, Secret};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::{Body as HttpBody, Incoming};
use subtle::ConstantTimeEq as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, error_span, warn};

use super::health_problems::{HEALTH_PROBLEMS_PATH, TriggerHealthProblem};
use super::wire::{
    HEAD_BYTES_MAX, INVOCATIONS_PATH, ImageLine, PackageFault, decode_call, encode_outcome,
};
use crate::forward::forward;
use crate::front::{Answer, Body, read_payload};
use crate::ndjson;
use crate::state::ListHealthProblems;

/// What the internal API speaks for. What a role does not have is left out: its paths answer 404.
#[derive(Clone)]
pub struct InternalParts {
    /// The cluster's shared token.
    pub token: Secret,
    /// Invoker role: runs invocations.
    pub invoke: Option<Arc<dyn Invoke>>,
    /// Controller role: keeps packages.
    pub packages: Option<Arc<dyn PackageStore>>,
    /// Controller or invoker role: makes images.
    pub images: Option<Arc<dyn ImageBuilder>>,
    /// Triggers role: lists what triggers cannot do now.
    pub health_problems: Option<Arc<dyn ListHealthProblems>>,
    /// The general runtime: everything but invocations runs there.
    pub general: Handle,
    /// Image builds are tasks of it.
    pub tasks: TaskTracker,
}

/// The serving end of the internal API.
pub struct Internal {
    parts: InternalParts,
    router: Router,
}

impl Internal {
    /// Puts it together.
    pub fn new(parts: InternalParts) -> Self {
        let mut router = Router::new();
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
        if let Some(health_problems) = parts.health_problems.clone() {
            let route = get(send_health_problems);
            router = router.merge(
                Router::new().route(HEALTH_PROBLEMS_PATH, route).with_state(health_problems),
            );
        }
        Self { parts, router }
    }

    /// Answers one request.
    pub async fn respond<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
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
            _ => forward(&self.parts.general, self.router.clone(), request).await,
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

impl Answer for Internal {
    async fn answer(&self, request: Request<Incoming>, _peer: SocketAddr) -> Response<Body> {
        self.respond(request).await
    }
}

impl std::fmt::Debug for InternalParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InternalParts").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Internal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Internal").finish_non_exhaustive()
    }
}

async fn run<B>(invoke: &dyn Invoke, body: B) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let limit = 4 + HEAD_BYTES_MAX + PAYLOAD_BYTES_MAX;
    let Ok(message) = read_payload(body, limit).await else {
        return plain(StatusCode::BAD_REQUEST, "the call did not arrive whole");
    };
    let invocation = match decode_call(message) {
        Ok(invocation) => invocation,
        Err(error) => return plain(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let span = error_span!("invoke", request_id = %invocation.request_id);
    match encode_outcome(invoke.invoke(invocation).instrument(span).await) {
        Ok(message) => Response::new(Body::from(message)),
        Err(error) => {
            warn!(%error, "Could not send an outcome to another node");
            plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    response
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
    let Ok(zip) = read_payload(request.into_body(), limit).await else {
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

async fn send_health_problems(
    State(health_problems): State<Arc<dyn ListHealthProblems>>,
) -> AxumResponse {
    let all = health_problems.all().into_iter();
    let all = all.map(|(trigger, health_problem)| TriggerHealthProblem { trigger, health_problem });
    axum::Json(all.collect::<Vec<_>>()).into_response()
}

type Images = (Arc<dyn ImageBuilder>, TaskTracker);

async fn make_image(
    State((images, tasks)): State<Images>,
    Path(family): Path<RuntimeFamily>,
) -> AxumResponse {
    let (lines, receiver) = mpsc::channel(ndjson::LINES_MAX);
    tasks.spawn(async move {
        let progress = lines.clone();
        let tell = move |text: &str| {
            // A full channel means a reader that is slow: it misses a line of progress, no more.
            let _ = progress.try_send(ndjson::line(&ImageLine::Progress(text.into())));
        };
        let last = match images.ensure(family, &tell).await {
            Ok(()) => ImageLine::Done,
            Err(error) => ImageLine::Failed(error.0),
        };
        let _ = lines.send(ndjson::line(&last)).await;
    });
    StreamBody::from_stream(ndjson::stream(receiver)).into_response()
}
