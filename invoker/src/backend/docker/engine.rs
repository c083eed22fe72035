//! The connection to the Docker engine, which may become unavailable and come back.
//!
//! Each request has a connection of its own (the client keeps none), so that no idle connection can
//! break; what is kept is the version of the API that was agreed on. A time limit for each request
//! was not enough: with a silent engine every cold call waited 20 s. While the engine is known to be
//! unavailable, requests fail at once with the reason, and one task tries to reach it again.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bollard::errors::Error as ClientError;
use bollard::{API_DEFAULT_VERSION, Docker};
use hanshu_core::{Backoff, lock};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::host::SandboxHost;
use crate::backend::port::StartError;

/// The socket of a default installation.
const SOCKET: &str = "unix:///var/run/docker.sock";
/// Seconds; the client's own limit. Requests here have shorter ones, builds of images a longer one.
const CLIENT_TIMEOUT_S: u64 = 600;
/// An engine that does not tell its version within this time is unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Limit of one request: the slowest of a start takes a second or two on a busy machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// After this long without an answer to a request, the engine is asked for its version.
const CHECK_AFTER: Duration = Duration::from_secs(3);
/// Between two tries to reach an engine that is unavailable.
const RECONNECT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// The Docker engine of a node.
#[derive(Debug)]
pub(crate) struct DockerEngine {
    address: String,
    state: Mutex<EngineState>,
    /// Held while a request connects: the others wait for its result.
    connecting: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    /// Cancelled when reconnecting is to end.
    closing: CancellationToken,
    this: Weak<Self>,
}

/// What is known of the engine.
#[derive(Debug)]
enum EngineState {
    /// The engine has not answered yet.
    Unknown,
    /// It answers; `fresh` until a caller was told that it came back.
    Available { docker: Docker, fresh: bool },
    /// It does not answer, for this reason; a task tries to reach it.
    Unavailable(String),
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The engine does not answer.
    #[error("the Docker engine at {address} does not answer: {reason}")]
    Unavailable { address: String, reason: String },
    /// There is no such image, network or container.
    #[error("could not {what}: {message}")]
    NotFound { what: &'static str, message: String },
    /// Any other failure.
    #[error("could not {what}: {source}")]
    Failed { what: &'static str, source: ClientError },
}

impl DockerEngine {
    /// The engine at `address`, or at the usual socket. Reconnects in `tasks`, until
    /// [`DockerEngine::close`].
    pub(super) fn new(address: Option<&str>, tasks: TaskTracker) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            address: address.unwrap_or(SOCKET).to_owned(),
            state: Mutex::new(EngineState::Unknown),
            connecting: tokio::sync::Mutex::default(),
            tasks,
            closing: CancellationToken::new(),
            this: Weak::clone(this),
        })
    }

    /// No task tries to reach the engine from here on.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// Whether it is on this machine, judged by its address.
    pub(super) fn is_local(&self) -> bool {
        self.path().is_some()
    }

    /// The engine's machine, where its process is visible from here and it has our folder `shared`.
    /// `None` where this program or the engine runs in a container that shows neither.
    pub(super) fn host(&self, shared: &Path) -> Option<SandboxHost> {
        let stream = self.path().and_then(|path| UnixStream::connect(path).ok())?;
        let engine = getsockopt(&stream, PeerCredentials).ok()?;
        SandboxHost::of_engine(u32::try_from(engine.pid()).ok()?, shared)
    }

    fn path(&self) -> Option<&Path> {
        self.address.strip_prefix("unix://").map(Path::new)
    }

    /// A client, and whether the engine was reached for the first time or again. Immediate, save for
    /// the first call.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`], immediately where that is known.
    pub(crate) async fn client(&self) -> Result<(Docker, bool), EngineError> {
        if let Some(known) = self.known()? {
            return Ok(known);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(known) = self.known()? {
            return Ok(known);
        }
        match self.connect().await {
            Ok(docker) => {
                *lock(&self.state) =
                    EngineState::Available { docker: docker.clone(), fresh: false };
                Ok((docker, true))
            }
            Err(error) => Err(self.mark_unavailable(error)),
        }
    }

    fn known(&self) -> Result<Option<(Docker, bool)>, EngineError> {
        match &mut *lock(&self.state) {
            EngineState::Unknown => Ok(None),
            EngineState::Available { docker, fresh } => {
                Ok(Some((docker.clone(), std::mem::take(fresh))))
            }
            EngineState::Unavailable(reason) => Err(EngineError::Unavailable {
                address: self.address.clone(),
                reason: reason.clone(),
            }),
        }
    }

    /// Notes that the engine is unavailable, starts reconnecting and returns the error.
    fn mark_unavailable(&self, error: EngineError) -> EngineError {
        let EngineError::Unavailable { reason, .. } = &error else { return error };
        let before =
            std::mem::replace(&mut *lock(&self.state), EngineState::Unavailable(reason.clone()));
        if !matches!(before, EngineState::Unavailable(_)) {
            let address = &self.address;
            tracing::warn!(
                address,
                reason,
                "The Docker engine is unavailable: no sandbox can be started"
            );
            let reconnecting = reconnect(Weak::clone(&self.this));
            let closing = self.closing.clone();
            self.tasks.spawn(async move { closing.run_until_cancelled(reconnecting).await });
        }
        error
    }

    async fn connect(&self) -> Result<Docker, EngineError> {
        let connected = if self.is_local() {
            Docker::connect_with_unix(&self.address, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION)
        } else {
            Docker::connect_with_http(&self.address, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION)
        };
        let docker = connected.map_err(|error| self.unavailable(&error))?;
        match timeout(CONNECT_TIMEOUT, docker.negotiate_version()).await {
            Ok(Ok(docker)) => Ok(docker),
            Ok(Err(error)) => Err(self.unavailable(&error)),
            Err(_) => Err(self.silent(CONNECT_TIMEOUT)),
        }
    }

    /// Waits for the answer to one request; `what` completes "could not …" in its error.
    pub(crate) async fn ask<T>(
        &self,
        what: &'static str,
        request: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, EngineError> {
        let answer = tokio::select! {
            biased;
            answer = request => answer,
            waited = self.silence() => return Err(self.mark_unavailable(self.silent(waited))),
        };
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match error {
            ClientError::DockerResponseServerError { status_code: 404, message } => {
                Err(EngineError::NotFound { what, message })
            }
            ClientError::SocketNotFoundError(_)
            | ClientError::HyperLegacyError { .. }
            | ClientError::HyperResponseError { .. }
            | ClientError::RequestTimeoutError
            | ClientError::IOError { .. } => Err(self.mark_unavailable(self.unavailable(&error))),
            source => Err(EngineError::Failed { what, source }),
        }
    }

    /// Returns when a request has waited too long: after 6 s where the engine answers nothing at all,
    /// after 20 s where it is only slow.
    async fn silence(&self) -> Duration {
        sleep(CHECK_AFTER).await;
        match self.connect().await {
            Ok(_) => {
                sleep(REQUEST_TIMEOUT.saturating_sub(CHECK_AFTER)).await;
                REQUEST_TIMEOUT
            }
            Err(_) => CHECK_AFTER + CONNECT_TIMEOUT,
        }
    }

    fn unavailable(&self, error: &ClientError) -> EngineError {
        // The client's own text is no more than "client error"; the cause is its last source.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        EngineError::Unavailable { address: self.address.clone(), reason: cause.to_string() }
    }

    fn silent(&self, waited: Duration) -> EngineError {
        let reason = format!("no answer within {} s", waited.as_secs());
        EngineError::Unavailable { address: self.address.clone(), reason }
    }
}

/// Tries to reach an engine until it answers or is dropped.
async fn reconnect(engine: Weak<DockerEngine>) {
    for tries in 1.. {
        sleep(RECONNECT_BACKOFF.delay(tries)).await;
        let Some(engine) = engine.upgrade() else { return };
        if let Ok(docker) = engine.connect().await {
            tracing::info!(address = engine.address, "The Docker engine is back");
            *lock(&engine.state) = EngineState::Available { docker, fresh: true };
            return;
        }
    }
}

impl From<EngineError> for StartError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Unavailable { .. } => Self::Unavailable(format!(
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use hanshu_core::ErrorKind;
    use tokio::net::UnixListener;
    use tokio::time::Instant;

    use super::super::scripted_engine::{ScriptedEngine, VERSION};
    use super::*;

    fn engine(address: &str) -> Arc<DockerEngine> {
        DockerEngine::new(Some(address), TaskTracker::new())
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unavailable_with_its_address() {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("unix://{}/none.sock", dir.path().display());
        let error = StartError::from(engine(&address).client().await.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&address), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_does_not_answer_is_unavailable_after_some_seconds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("silent.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let engine = engine(&format!("unix://{}", path.display()));
        let error = engine.client().await.unwrap_err();
        assert!(error.to_string().ends_with("no answer within 3 s"), "{error}");
        let again = Instant::now();
        let error = engine.client().await.unwrap_err();
        assert!(error.to_string().ends_with("no answer within 3 s"), "{error}");
        assert_eq!(again.elapsed(), Duration::ZERO, "the second request does not wait");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_stops_answering_is_unavailable_to_all_until_it_answers_again() {
        let silent = Arc::new(AtomicBool::new(false));
        let its = Arc::clone(&silent);
        let scripted = ScriptedEngine::new(move |_, path| match path {
            _ if its.load(Ordering::Relaxed) => None,
            "/version" => Some((200, VERSION.to_owned())),
            _ => Some((200, "[]".to_owned())),
        });
        let engine = engine(&scripted.address);
        let (docker, fresh) = engine.client().await.unwrap();
        assert!(fresh);
        silent.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        let error = engine.ask("list containers", docker.list_containers(None)).await.unwrap_err();
        assert!(error.to_string().ends_with("no answer within 6 s"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
        let begun = Instant::now();
        for _ in 0..100 {
            engine.client().await.unwrap_err();
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        sleep(Duration::from_secs(60)).await;
        silent.store(false, Ordering::Relaxed);
        sleep(Duration::from_secs(6)).await;
        let (docker, fresh) = engine.client().await.unwrap();
        assert!(fresh, "the first caller learns that it is back");
        assert!(!engine.client().await.unwrap().1);
        engine.ask("list containers", docker.list_containers(None)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_is_only_slow_is_waited_for() {
        let scripted = ScriptedEngine::new(|_, path| match path {
            "/version" => Some((200, VERSION.to_owned())),
            _ => None,
        });
        let engine = engine(&scripted.address);
        let (docker, _) = engine.client().await.unwrap();
        let begun = Instant::now();
        let error = engine.ask("list containers", docker.list_containers(None)).await.unwrap_err();
        assert!(error.to_string().ends_with("no answer within 20 s"), "{error}");
        assert!(REQUEST_TIMEOUT <= begun.elapsed());
    }
}
