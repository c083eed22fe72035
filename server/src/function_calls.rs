//! Joins the sandboxes' function calls to the API that answers them.
//!
//! The invoker is made first, and what answers calls runs functions by the invoker: so the one end is
//! there before the other.

use std::fmt;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use hanshu_core::FunctionCaller;
use hanshu_core::ports::{FunctionCalls, NoFunctionCalls};
use http::{Request, Response};

/// Passes function calls on to what [`FunctionCallRelay::connect`] was given; until then they are
/// answered with 503.
#[derive(Default)]
pub(crate) struct FunctionCallRelay(OnceLock<Arc<dyn FunctionCalls>>);

impl FunctionCallRelay {
    /// Calls go to `calls` from now on. The first one stays.
    pub(crate) fn connect(&self, calls: Arc<dyn FunctionCalls>) {
        let _ = self.0.set(calls);
    }
}

#[async_trait]
impl FunctionCalls for FunctionCallRelay {
    async fn respond(
        &self,
        caller: Option<FunctionCaller>,
        request: Request<Bytes>,
    ) -> Response<Bytes> {
        match self.0.get() {
            Some(calls) => calls.respond(caller, request).await,
            None => NoFunctionCalls.respond(caller, request).await,
        }
    }
}

impl fmt::Debug for FunctionCallRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionCallRelay")
            .field("connected", &self.0.get().is_some())
            .finish_non_exhaustive()
    }
}
