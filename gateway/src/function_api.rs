//! The native API for functions: what a function asks the endpoint of its own sandbox.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use hanshu_core::ports::FunctionCalls;
use hanshu_core::{Actor, ErrorKind, FunctionCaller};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service as _};

use crate::api::ApiEndpoint;
use crate::http_server::Body;
use crate::middleware::{RequestContext, RequestContextLayer, request_id};
use crate::problem::{Problem, internal};
use crate::state::Gateway;

/// Answers functions by the routes of the native API, each with the rights of a function: it may
/// invoke the functions of its own namespace and see how the invocations that it started stand.
pub struct FunctionApi(RequestContext<ApiEndpoint>);

impl FunctionApi {
    /// The whole API, for functions.
    pub fn new(gateway: Gateway) -> Self {
        let endpoint = ApiEndpoint::new(gateway.clone());
        Self(RequestContextLayer(gateway).layer(endpoint))
    }
}

#[async_trait]
impl FunctionCalls for FunctionApi {
    async fn respond(
        &self,
        caller: Option<FunctionCaller>,
        mut request: Request<Bytes>,
    ) -> Response<Bytes> {
        let Some(caller) = caller else {
            let detail = "no event has run in this sandbox yet, so that nobody calls";
            let problem = Problem::new(ErrorKind::Conflict, detail)
                .code("no_event")
                .hint("call other functions while an event is handled, not while code is loaded");
            return read(problem.answer(request_id(request.extensions()))).await;
        };
        request.extensions_mut().insert(Actor::function(caller));
        match (&self.0).call(request.map(Full::new)).await {
            Ok(response) => read(response).await,
            Err(never) => match never {},
        }
    }
}

/// The response with its whole body, which has the limit of what it answers.
async fn read(response: Response<Body>) -> Response<Bytes> {
    let request_id = request_id(response.extensions());
    let (head, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => Response::from_parts(head, body.to_bytes()),
        Err(error) => {
            let (head, _) = internal(&error).answer(request_id).into_parts();
            Response::from_parts(head, Bytes::new())
        }
    }
}

impl fmt::Debug for FunctionApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionApi").finish_non_exhaustive()
    }
}
