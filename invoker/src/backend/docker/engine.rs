//! The connection to the Docker engine, which may go away and come back.
//!
//! Each request has a connection of its own (the client keeps none), so that none can be broken;
//! what is kept is the version of the API that was agreed on. While the engine is known to be away
//! nobody waits for it: requests fail at once, with the reason, and a task looks for it.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bollard::errors::Error as ClientError;
use bollard::{API_DEFAULT_VERSION, Docker};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::host::SandboxHost;
use crate::backend::port::StartError;

/// Where Debian and others have it.
const SOCKET: &str = "unix:///var/run/docker.sock";
/// Seconds; the client's own bound. Ours are shorter, builds of images have none but theirs.
const CLIENT_TIMEOUT_S: u64 = 600;
/// An engine that does not say its version within this time is away.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// The slowest request of a start, on a busy machine, takes a second or two.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// An engine that has not answered a request for so long is asked whether it is there at all.
const DOUBT_AFTER: Duration = Duration::from_secs(3);
/// Between two looks for an engine that is away: the first, and the longest pause.
const LOOK_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The engine.
#[derive(Debug)]
pub(crate) struct DockerEngine {
    address: String,
    link: Mutex<EngineState>,
    /// Held while it is looked for by a request: the others wait for what comes of it.
    looking: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    /// Cancelled when nobody is to look for it any more.
    closing: CancellationToken,
    me: Weak<Self>,
}

/// What is known of the engine.
#[derive(Debug)]
enum EngineState {
    /// Nothing yet.
    Unknown,
    /// It answers; `fresh` until somebody was told that it was found again.
    There { docker: Docker, fresh: bool },
    /// It does not, for this reason; a task looks for it.
    Away(String),
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

impl DockerEngine {
    /// Looks for a lost engine in `tasks`, until [`DockerEngine::close`].
    pub(super) fn new(address: Option<&str>, tasks: TaskTracker) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            address: address.unwrap_or(SOCKET).to_owned(),
            link: Mutex::new(EngineState::Unknown),
            looking: tokio::sync::Mutex::default(),
            tasks,
            closing: CancellationToken::new(),
            me: Weak::clone(me),
        })
    }

    /// Nobody needs the engine any more: no task looks for it from here on.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// Whether it is on this machine, as far as its address says.
    pub(super) fn is_local(&self) -> bool {
        self.path().is_some()
    }

    /// The engine's machine, where it can be reached: its process is seen from here, and it has
    /// our folder `shared`. Not where we, or it, run in a container that shows neither.
    pub(super) fn host(&self, shared: &Path) -> Option<SandboxHost> {
        let stream = self.path().and_then(|path| UnixStream::connect(path).ok())?;
        let engine = getsockopt(&stream, PeerCredentials).ok()?;
        SandboxHost::of(u32::try_from(engine.pid()).ok()?, shared)
    }

    fn path(&self) -> Option<&Path> {
        self.address.strip_prefix("unix://").map(Path::new)
    }

    /// A client, and whether the engine was just found (again). At once, but for the first look.
    ///
    /// # Errors
    /// [`EngineError::Away`], at once where that is known.
    pub(crate) async fn client(&self) -> Result<(Docker, bool), EngineError> {
        if let Some(known) = self.known()? {
            return Ok(known);
        }
        let _looking = self.looking.lock().await;
        if let Some(known) = self.known()? {
            return Ok(known);
        }
        match self.connect().await {
            Ok(docker) => {
                *self.link() = EngineState::There { docker: docker.clone(), fresh: false };
                Ok((docker, true))
            }
            Err(error) => Err(self.lost(error)),
        }
    }

    fn known(&self) -> Result<Option<(Docker, bool)>, EngineError> {
        match &mut *self.link() {
            EngineState::Unknown => Ok(None),
            EngineState::There { docker, fresh } => {
                Ok(Some((docker.clone(), std::mem::take(fresh))))
            }
            EngineState::Away(reason) => {
                Err(EngineError::Away { address: self.address.clone(), reason: reason.clone() })
            }
        }
    }

    fn link(&self) -> MutexGuard<'_, EngineState> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it that the engine is away, and has it looked for. Returns the error.
    fn lost(&self, error: EngineError) -> EngineError {
        let EngineError::Away { reason, .. } = &error else { return error };
        let before = std::mem::replace(&mut *self.link(), EngineState::Away(reason.clone()));
        if !matches!(before, EngineState::Away(_)) {
            let address = &self.address;
            tracing::warn!(address, reason, "The Docker engine is away: no sandbox can be started");
            let looked_for = look_for(Weak::clone(&self.me));
            let closing = self.closing.clone();
            self.tasks.spawn(async move { closing.run_until_cancelled(looked_for).await });
        }
        error
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
        let answer = tokio::select! {
            biased;
            answer = request => answer,
            waited = self.silence() => return Err(self.lost(self.silent(waited))),
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
            | ClientError::IOError { .. } => Err(self.lost(self.away(&error))),
            source => Err(EngineError::Failed { what, source }),
        }
    }

    /// Returns when a request has waited too long: soon where the engine answers nothing at all,
    /// late where it is only slow.
    async fn silence(&self) -> Duration {
        sleep(DOUBT_AFTER).await;
        match self.connect().await {
            Ok(_) => {
                sleep(ASK_TIMEOUT.saturating_sub(DOUBT_AFTER)).await;
                ASK_TIMEOUT
            }
            Err(_) => DOUBT_AFTER + HELLO_TIMEOUT,
        }
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

/// Looks for an engine that is away until it answers, or until nobody wants it any more.
async fn look_for(engine: Weak<DockerEngine>) {
    let mut pause = LOOK_PAUSE.0;
    loop {
        sleep(pause).await;
        let Some(engine) = engine.upgrade() else { return };
        if let Ok(docker) = engine.connect().await {
            tracing::info!(address = engine.address, "The Docker engine is back");
            *engine.link() = EngineState::There { docker, fresh: true };
            return;
        }
        pause = (pause * 2).min(LOOK_PAUSE.1);
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use hanshu_core::ErrorKind;
    use tokio::net::UnixListener;
    use tokio::time::Instant;

    use super::super::fake_engine::{ScriptedEngine, VERSION};
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
    async fn an_engine_that_says_nothing_is_away_after_some_seconds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("silent.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let engine = engine(&format!("unix://{}", path.display()));
        let error = engine.client().await.unwrap_err();
        assert!(error.to_string().ends_with("no answer within 3 s"), "{error}");
        let again = Instant::now();
        let error = engine.client().await.unwrap_err();
        assert!(error.to_string().ends_with("no answer within 3 s"), "{error}");
        assert_eq!(again.elapsed(), Duration::ZERO, "nobody waits for what is known");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_falls_silent_is_away_for_all_until_it_answers_again() {
        let silent = Arc::new(AtomicBool::new(false));
        let its = Arc::clone(&silent);
        let fake = ScriptedEngine::new(move |_, path| match path {
            _ if its.load(Ordering::Relaxed) => None,
            "/version" => Some((200, VERSION.to_owned())),
            _ => Some((200, "[]".to_owned())),
        });
        let engine = engine(&fake.address);
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
        assert!(fresh, "who comes first is told that it is back");
        assert!(!engine.client().await.unwrap().1);
        engine.ask("list containers", docker.list_containers(None)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_is_only_slow_is_waited_for() {
        let fake = ScriptedEngine::new(|_, path| match path {
            "/version" => Some((200, VERSION.to_owned())),
            _ => None,
        });
        let engine = engine(&fake.address);
        let (docker, _) = engine.client().await.unwrap();
        let begun = Instant::now();
        let error = engine.ask("list containers", docker.list_containers(None)).await.unwrap_err();
        assert!(error.to_string().ends_with("no answer within 20 s"), "{error}");
        assert!(ASK_TIMEOUT <= begun.elapsed());
    }
}
