//! Handlers of the API: functions from extracted parts of a request to a response or a [`Problem`].
//!
//! axum's own handlers turn an error into a response where neither the request nor its id is known.
//! Here the error stays a value until then, so that every problem names its request.

use std::future::Future;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::middleware::request_id;
use crate::problem::Problem;
use crate::state::Gateway;

/// What a handler can be given of a request's head.
pub(crate) trait FromHead: Sized {
    /// Extracts it; fails where the request breaks a rule.
    fn from_head(
        head: &mut Parts,
        gateway: &Gateway,
    ) -> impl Future<Output = Result<Self, Problem>> + Send;
}

/// What a handler can be given last: something of the head, or what the body is made into. `Via`
/// tells the two apart, so that one type can be only one of them.
pub(crate) trait FromWholeRequest<Via>: Sized {
    /// Extracts it; fails where the request breaks a rule.
    fn from_whole_request(
        request: Request,
        gateway: &Gateway,
    ) -> impl Future<Output = Result<Self, Problem>> + Send;
}

/// Marks what is extracted from the head.
#[derive(Debug)]
pub(crate) enum ViaHead {}

/// Marks what is extracted from the body.
#[derive(Debug)]
pub(crate) enum ViaBody {}

impl<T: FromHead> FromWholeRequest<ViaHead> for T {
    async fn from_whole_request(request: Request, gateway: &Gateway) -> Result<Self, Problem> {
        let (mut head, _) = request.into_parts();
        Self::from_head(&mut head, gateway).await
    }
}

impl FromWholeRequest<ViaBody> for Request {
    async fn from_whole_request(request: Request, _gateway: &Gateway) -> Result<Self, Problem> {
        Ok(request)
    }
}

impl FromHead for State<Gateway> {
    async fn from_head(_head: &mut Parts, gateway: &Gateway) -> Result<Self, Problem> {
        Ok(Self(gateway.clone()))
    }
}

/// A handler: an async function whose arguments are extracted, the last one perhaps from the body.
pub(crate) trait ApiHandler<Args>: Clone + Send + Sync + 'static {
    /// Handles a request; fails where an argument cannot be extracted, or the function fails.
    fn handle(
        self,
        gateway: Gateway,
        request: Request,
    ) -> impl Future<Output = Result<Response, Problem>> + Send;
}

/// The response to a request, whether its handler succeeds or fails.
pub(crate) async fn respond<H, Args>(handler: H, gateway: Gateway, request: Request) -> Response
where
    H: ApiHandler<Args>,
{
    let request_id = request_id(request.extensions());
    match handler.handle(gateway, request).await {
        Ok(response) => response,
        Err(problem) => problem.answer(request_id).map(axum::body::Body::new),
    }
}

impl<F, Fut, R> ApiHandler<()> for F
where
    F: FnOnce() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Problem>> + Send,
    R: IntoResponse,
{
    async fn handle(self, _gateway: Gateway, _request: Request) -> Result<Response, Problem> {
        Ok(self().await?.into_response())
    }
}

macro_rules! handler_of {
    ($($part:ident),*; $last:ident) => {
        #[allow(non_snake_case, reason = "the arguments are named like their types")]
        impl<F, Fut, R, Via, $($part,)* $last> ApiHandler<(Via, $($part,)* $last,)> for F
        where
            F: FnOnce($($part,)* $last,) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Result<R, Problem>> + Send,
            R: IntoResponse,
            $($part: FromHead + Send,)*
            $last: FromWholeRequest<Via> + Send,
        {
            async fn handle(self, gateway: Gateway, request: Request) -> Result<Response, Problem> {
                #[allow(unused_mut, reason = "not every handler takes parts of the head")]
                let (mut head, body) = request.into_parts();
                $(let $part = $part::from_head(&mut head, &gateway).await?;)*
                let request = Request::from_parts(head, body);
                let $last = $last::from_whole_request(request, &gateway).await?;
                Ok(self($($part,)* $last).await?.into_response())
            }
        }
    };
}

handler_of!(; A);
handler_of!(A; B);
handler_of!(A, B; C);
handler_of!(A, B, C; D);
handler_of!(A, B, C, D; E);
handler_of!(A, B, C, D, E; G);
