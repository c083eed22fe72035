//! The connection to the Docker engine, which may go away and come back.
//!
//! Each request has a connection of its own (the client keeps none), so that none can be broken;
//! what is kept is the version of the API that was agreed on.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bollard::errors::Error as ClientError;
use bollard::{API_DEFAULT_VERSION, Docker};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::backend::StartError;
use crate::host::Host;

/// Where Debian and others have it.
const SOCKET: &str = "unix:///var/run/docker.sock";
/// Seconds; the client's own bound. Ours are shorter, builds of images have none but theirs.
const CLIENT_TIMEOUT_S: u64 = 600;
/// An engine that does not say its version within this time is away.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// The slowest request of a start, on a busy machine, takes a second or two.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);

/// The engine.
#[derive(Debug)]
pub(crate) struct Engine {
    address: String,
    /// `None` before the first request and after it was found away.
    client: Mutex<Option<Docker>>,
}

/// What came of a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// It does not answer.
    #[error("the Docker engine at {address} does not answer: {reason}")]
    Away { address: String, reason: String },
    /// There is no such image, network or container.
    #[error("could not {what}: {message}")]
    NotFound { what: &'static str, message: String },
    /// Anything else.
    #[error("could not {what}: {source}")]
    Failed { what: &'static str, source: ClientError },
}

impl Engine {
    pub(super) fn new(address: Option<&str>) -> Self {
        Self { address: address.unwrap_or(SOCKET).to_owned(), client: Mutex::new(None) }
    }

    /// Whether it is on this machine, as far as its address says.
    pub(super) fn is_local(&self) -> bool {
        self.path().is_some()
    }

    /// The engine's machine, where it can be reached: its process is seen from here, and it has
    /// our folder `shared`. Not where we, or it, run in a container that shows neither.
    pub(super) fn host(&self, shared: &Path) -> Option<Host> {
        let stream = self.path().and_then(|path| UnixStream::connect(path).ok())?;
        let engine = getsockopt(&stream, PeerCredentials).ok()?;
        Host::of(u32::try_from(engine.pid()).ok()?, shared)
    }

    fn path(&self) -> Option<&Path> {
        self.address.strip_prefix("unix://").map(Path::new)
    }

    /// A client, and whether the engine was just found (again).
    pub(crate) async fn client(&self) -> Result<(Docker, bool), EngineError> {
        let mut known = self.client.lock().await;
        if let Some(docker) = known.as_ref() {
            return Ok((docker.clone(), false));
        }
        let docker = self.connect().await?;
        *known = Some(docker.clone());
        Ok((docker, true))
    }

    async fn connect(&self) -> Result<Docker, EngineError> {
        let connected = if self.is_local() {
            Docker::connect_with_unix(&self.address, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION)
        } else {
            Docker::connect_with_http(&self.address, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION)
        };
        let docker = connected.map_err(|error| self.away(&error))?;
        match timeout(HELLO_TIMEOUT, docker.negotiate_version()).await {
            Ok(Ok(docker)) => Ok(docker),
            Ok(Err(error)) => Err(self.away(&error)),
            Err(_) => Err(self.silent(HELLO_TIMEOUT)),
        }
    }

    /// Waits for the answer to one request, for a bounded time.
    pub(crate) async fn ask<T>(
        &self,
        what: &'static str,
        request: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, EngineError> {
        let error = match timeout(ASK_TIMEOUT, request).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => {
                self.lose().await;
                return Err(self.silent(ASK_TIMEOUT));
            }
        };
        match error {
            ClientError::DockerResponseServerError { status_code: 404, message } => {
                Err(EngineError::NotFound { what, message })
            }
            ClientError::SocketNotFoundError(_)
            | ClientError::HyperLegacyError { .. }
            | ClientError::HyperResponseError { .. }
            | ClientError::RequestTimeoutError
            | ClientError::IOError { .. } => {
                self.lose().await;
                Err(self.away(&error))
            }
            source => Err(EngineError::Failed { what, source }),
        }
    }

    /// From here on, the next request is a first one.
    async fn lose(&self) {
        *self.client.lock().await = None;
    }

    fn away(&self, error: &ClientError) -> EngineError {
        // The client's own text says no more than "client error"; the cause is further down.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        EngineError::Away { address: self.address.clone(), reason: cause.to_string() }
    }

    fn silent(&self, waited: Duration) -> EngineError {
        let reason = format!("no answer within {} s", waited.as_secs());
        EngineError::Away { address: self.address.clone(), reason }
    }
}

impl From<EngineError> for StartError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Away { .. } => Self::Unavailable(format!(
                "{error}; start the engine (systemctl start docker), or use --sandbox process"
            )),
            EngineError::NotFound { what, .. } | EngineError::Failed { what, .. } => {
                Self::failed(format!("could not {what}"), error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hanshu_core::ErrorKind;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unavailable_with_its_address() {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("unix://{}/none.sock", dir.path().display());
        let engine = Engine::new(Some(&address));
        let error = StartError::from(engine.client().await.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&address), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_says_nothing_is_away_after_some_seconds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("silent.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let engine = Engine::new(Some(&format!("unix://{}", path.display())));
        let error = engine.client().await.unwrap_err();
        assert!(error.to_string().ends_with("no answer within 3 s"), "{error}");
    }
}
