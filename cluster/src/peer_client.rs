//! The HTTP client for calls to other processes.

use std::time::Duration;

use hanshu_core::Secret;

/// A connection to another node that takes longer is given up: nodes are near each other.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Idle connections are kept so long; less than the listener keeps them.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// The base URLs (`http://host:port`) of the nodes to ask, as they are now.
pub(crate) type NodeUrls = dyn Fn() -> Vec<String> + Send + Sync;

/// The connections from this process to others: cheap to clone, shared by all that make calls.
#[derive(Clone, Debug)]
pub struct PeerClient {
    http: reqwest::Client,
    token: Secret,
}

impl PeerClient {
    /// A pool of connections that sends `token` with every request.
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

    pub(crate) fn request(&self, method: http::Method, url: &str) -> reqwest::RequestBuilder {
        self.http.request(method, url).bearer_auth(self.token.expose())
    }
}
