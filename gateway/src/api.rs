//! The API's listener: who calls, and where the request goes.

use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use bytes::Bytes;
use hanshu_core::RequestId;
use http::header::ALLOW;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::{Body as HttpBody, Incoming};
use tracing::{Instrument as _, error_span};

use crate::auth::authenticate;
use crate::forward::forward;
use crate::front::{Answer, Body};
use crate::headers::{FAULT, REQUEST_ID, id_value};
use crate::metrics::Listener;
use crate::problem::Problem;
use crate::routes::{self, invoke};
use crate::state::Gateway;

/// Paths that anybody may read.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/readyz", "/openapi.json"];

/// Answers the API's listener.
#[derive(Debug)]
pub struct Api {
    gateway: Gateway,
    router: Router,
}

impl Api {
    /// The whole API.
    pub fn new(gateway: Gateway) -> Self {
        let router = routes::router(gateway.clone());
        Self { gateway, router }
    }

    /// Answers one request: an invocation here and now, anything else on the general runtime.
    pub async fn respond<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let request_id = RequestId::new();
        let mut response = self.route(request, request_id).await;
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            let allow = response.headers_mut().remove(ALLOW);
            response = problem.of(request_id).answer();
            if let Some(allow) = allow {
                response.headers_mut().entry(ALLOW).or_insert(allow);
            }
        }
        response.headers_mut().entry(REQUEST_ID).or_insert_with(|| id_value(request_id));
        let refused = response.status().is_client_error() || response.status().is_server_error();
        let fault = HeaderValue::from_static(if refused { "platform" } else { "none" });
        response.headers_mut().entry(FAULT).or_insert(fault);
        self.gateway.metrics().answered(Listener::Api, response.status());
        response
    }

    async fn route<B>(&self, mut request: Request<B>, request_id: RequestId) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let path = request.uri().path();
        if !OPEN_PATHS.contains(&path)
            && authenticate(self.gateway.controller.access(), request.headers()).is_none()
        {
            return Problem::unauthenticated().of(request_id).answer();
        }
        if invoke::function_of(path).is_some() {
            if request.method() != Method::POST {
                return Problem::method_not_allowed("POST").of(request_id).answer();
            }
            // Of the highest level: at any setting, every line has the request id.
            let span = error_span!("invoke", %request_id);
            let began = Instant::now();
            let invoked = invoke::invoke(&self.gateway, request, (request_id, began));
            return match invoked.instrument(span).await {
                Ok(response) => response,
                Err(problem) => problem.of(request_id).answer(),
            };
        }
        let method = request.method().clone();
        let span = error_span!("request", %request_id, %method, path);
        request.extensions_mut().insert(request_id);
        forward(&self.gateway.general, self.router.clone(), request).instrument(span).await
    }
}

impl Answer for Api {
    async fn answer(&self, request: Request<Incoming>, _peer: SocketAddr) -> Response<Body> {
        self.respond(request).await
    }
}
