//! From the data plane to the general runtime: everything that is not an invocation.

use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body as HttpBody;
use tokio::runtime::Handle;
use tower::ServiceExt as _;
use tracing::{Instrument as _, Span};

use crate::http_server::Body;
use crate::middleware::request_id;
use crate::problem::internal;

/// Answers the request on the general runtime, in the current span. Bodies stream through. What
/// was begun goes on if the client leaves: a deploy is not cut in half.
pub(crate) async fn forward<B>(
    general: &Handle,
    router: Router,
    request: Request<B>,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let request_id = request_id(request.extensions());
    let answer = router.oneshot(request.map(axum::body::Body::new)).instrument(Span::current());
    match general.spawn(answer).await {
        Ok(Ok(response)) => response.map(Body::from),
        Ok(Err(never)) => match never {},
        Err(error) => internal(&error).answer(request_id),
    }
}
