//! The internal API between roles in different processes: invocations, packages by digest, images,
//! health problems of triggers.
//!
//! Plain HTTP/1.1 with keep-alive on a listener of its own, every request but `/healthz` with the
//! cluster's shared token. Both ends are of the same version of the program: the shapes here are
//! no contract for anybody else.

mod balancer;
mod health_problems;
mod images;
mod invoker;
mod packages;
mod placement;
mod server;
mod wire;

pub use balancer::Balancer;
pub use health_problems::RemoteHealthProblems;
pub use images::RemoteImages;
pub use invoker::RemoteInvoker;
pub use packages::RemotePackages;
pub use server::{Internal, InternalParts};

use std::time::Duration;

use hanshu_core::Secret;

/// A connection to another node that takes longer is given up: nodes are near each other.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Idle connections are kept so long; less than the listener keeps them.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// The connections from this node to others: cheap to clone, shared by all clients of a process.
#[derive(Clone, Debug)]
pub struct Peers {
    http: reqwest::Client,
    token: Secret,
}

impl Peers {
    /// A pool of connections that says `token`.
    ///
    /// # Errors
    /// The HTTP client cannot be made (out of descriptors, mostly).
    pub fn new(token: Secret) -> Result<Self, std::io::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE)
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self { http, token })
    }

    fn request(&self, method: http::Method, url: &str) -> reqwest::RequestBuilder {
        self.http.request(method, url).bearer_auth(self.token.expose())
    }
}
