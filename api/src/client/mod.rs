//! A typed client of the native API: one method for each operation.

mod functions;
mod invocations;
mod transport;

use std::time::Duration;

use hanshu_core::Secret;

use crate::wire::ProblemBody;

pub use invocations::{Cancellation, InvocationFilter, InvokeAnswer, InvokeRequest, LogFilter};

/// How long to wait for a server to take the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long any answer may take: a function's longest run, its start, and its wait for a place.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1_500);

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// `http://host:port`, without a slash at the end.
    endpoint: String,
    auth: ClientAuth,
}

/// How the client proves who it is.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// An access key, as `Authorization: Basic`.
    Key {
        /// The key's id.
        id: String,
        /// The key's secret.
        secret: Secret,
    },
    /// A token, as `Authorization: Bearer`.
    Token(Secret),
}

/// A function by namespace and name. Both are checked by the server, not here.
#[derive(Clone, Copy, Debug)]
pub struct FunctionPath<'a> {
    /// The function's namespace.
    pub namespace: &'a str,
    /// The function's name in the namespace.
    pub name: &'a str,
}

/// Why a request brought no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused, and said why.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Box<ProblemBody>),
    /// The server answered something that this client does not understand.
    #[error("{0}")]
    BadAnswer(String),
    /// The server was not reached, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// The server took the request, but its answer did not come, or not whole: whether the request
    /// was carried out is not known.
    #[error("{0}")]
    Interrupted(String),
    /// The HTTP client could not be made.
    #[error("no HTTP client can be made")]
    Setup(#[source] reqwest::Error),
}

impl Client {
    /// A client of the server at `endpoint` (`http://host:port`). Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Setup`]: the process is out of descriptors, mostly.
    pub fn new(endpoint: &str, auth: ClientAuth) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .user_agent(concat!("hanshu/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Self { http, endpoint: endpoint.trim_end_matches('/').to_owned(), auth })
    }
}
