//! The API's listener: an invocation is answered here and now, anything else by the router on the
//! general runtime.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use bytes::Bytes;
use hanshu_core::Actor;
use http::{Method, Request, Response};
use hyper::body::{Body as HttpBody, Incoming};
use tower::{Service, ServiceBuilder};
use tracing::{Instrument as _, error_span};

use crate::forward::forward;
use crate::http_server::{Body, RequestHandler};
use crate::middleware::{
    Authenticate, AuthenticateLayer, RequestContext, RequestContextLayer, request_id,
};
use crate::problem::Problem;
use crate::routes::{self, invoke};
use crate::state::Gateway;

/// The native API, as a listener answers it.
#[derive(Debug)]
pub struct Api(RequestContext<Authenticate<ApiEndpoint>>);

/// The innermost service: what answers a request whose actor is known.
#[derive(Debug)]
pub(crate) struct ApiEndpoint {
    gateway: Gateway,
    router: Router,
}

impl Api {
    /// The whole API.
    pub fn new(gateway: Gateway) -> Self {
        let endpoint = ApiEndpoint::new(gateway.clone());
        let layers = ServiceBuilder::new()
            .layer(RequestContextLayer(gateway.clone()))
            .layer(AuthenticateLayer(gateway));
        Self(layers.service(endpoint))
    }

    /// Answers one request. The client's [`SocketAddr`] is an extension of it.
    pub async fn respond<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        match (&self.0).call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl RequestHandler for Api {
    async fn answer(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        request.extensions_mut().insert(peer);
        self.respond(request).await
    }
}

impl ApiEndpoint {
    pub(crate) fn new(gateway: Gateway) -> Self {
        let router = routes::router(gateway.clone());
        Self { gateway, router }
    }

    async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let request_id = request_id(request.extensions());
        let path = request.uri().path();
        if invoke::function_of(path).is_some() {
            if request.method() != Method::POST {
                return Problem::method_not_allowed("POST").answer(request_id);
            }
            let Some(actor) = request.extensions().get::<Actor>().cloned() else {
                return Problem::unauthenticated().answer(request_id);
            };
            // Of the highest level: at any setting, every line has the request id.
            let span = error_span!("invoke", %request_id);
            let began = Instant::now();
            let invoked = invoke::invoke(&self.gateway, &actor, request, (request_id, began));
            return match invoked.instrument(span).await {
                Ok(response) => response,
                Err(problem) => problem.answer(request_id),
            };
        }
        let method = request.method().clone();
        let span = error_span!("request", %request_id, %method, path);
        forward(&self.gateway.general, self.router.clone(), request).instrument(span).await
    }
}

impl<'a, B> Service<Request<B>> for &'a ApiEndpoint
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send + 'a>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let endpoint = *self;
        Box::pin(async move { Ok(endpoint.answer(request).await) })
    }
}
