//! The cluster's server on a listener of the gateway's front: the two do not know each other.

use std::net::SocketAddr;

use hanshu_cluster::ClusterServer;
use hanshu_gateway::{Body, RequestBody, RequestHandler};
use http::{Request, Response};

/// Answers the requests of other processes.
pub(crate) struct ClusterListener(pub(crate) ClusterServer);

impl RequestHandler for ClusterListener {
    async fn answer(&self, request: Request<RequestBody>, _peer: SocketAddr) -> Response<Body> {
        self.0.respond(request).await
    }
}
