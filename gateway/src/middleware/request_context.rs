//! Gives each request an id, and each response the headers that name the request and say whose
//! fault its status is; counts responses.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hanshu_core::RequestId;
use http::{HeaderValue, Request, Response};
use tower::{Layer, Service};

use crate::headers::{FAULT, REQUEST_ID, id_value};
use crate::http_server::Body;
use crate::metrics::ListenerKind;
use crate::state::Gateway;

/// Makes [`RequestContext`] services.
#[derive(Clone, Debug)]
pub(crate) struct RequestContextLayer(pub(crate) Gateway);

/// The service that [`RequestContextLayer`] makes.
#[derive(Debug)]
pub(crate) struct RequestContext<S> {
    inner: S,
    gateway: Gateway,
}

/// The response of [`RequestContext`].
#[derive(Debug)]
pub(crate) struct ContextFuture<'a, F> {
    inner: F,
    request_id: RequestId,
    gateway: &'a Gateway,
}

/// The id that the request got; a new one outside of the layer.
pub(crate) fn request_id(extensions: &http::Extensions) -> RequestId {
    extensions.get().copied().unwrap_or_default()
}

impl<S> Layer<S> for RequestContextLayer {
    type Service = RequestContext<S>;

    fn layer(&self, inner: S) -> RequestContext<S> {
        RequestContext { inner, gateway: self.0.clone() }
    }
}

impl<'a, S, B> Service<Request<B>> for &'a RequestContext<S>
where
    &'a S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    <&'a S as Service<Request<B>>>::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ContextFuture<'a, <&'a S as Service<Request<B>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        (&self.inner).poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let request_id = RequestId::new();
        request.extensions_mut().insert(request_id);
        let inner = (&self.inner).call(request);
        ContextFuture { inner, request_id, gateway: &self.gateway }
    }
}

impl<F> Future for ContextFuture<'_, F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(Pin::new(&mut self.inner).poll(cx));
        let status = response.status();
        let refused = status.is_client_error() || status.is_server_error();
        let fault = HeaderValue::from_static(if refused { "platform" } else { "none" });
        let headers = response.headers_mut();
        headers.entry(REQUEST_ID).or_insert_with(|| id_value(self.request_id));
        headers.entry(FAULT).or_insert(fault);
        self.gateway.metrics().answered(ListenerKind::Api, status);
        Poll::Ready(Ok(response))
    }
}
