//! Functions that call functions.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};

use crate::event::FunctionCaller;

/// Answers what a function asks the endpoint of its own sandbox: the paths of the native API.
#[async_trait]
pub trait FunctionCalls: Send + Sync {
    /// The response to one request of the function that runs `caller`; `None` before its sandbox had
    /// an event. There is no error beside it.
    async fn respond(
        &self,
        caller: Option<FunctionCaller>,
        request: Request<Bytes>,
    ) -> Response<Bytes>;
}

/// Answers every call with 503: where nothing answers functions, or not yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFunctionCalls;

#[async_trait]
impl FunctionCalls for NoFunctionCalls {
    async fn respond(
        &self,
        _caller: Option<FunctionCaller>,
        _request: Request<Bytes>,
    ) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    }
}
