//! The messages between the invoker and a sandbox's shim and runtime until the user's code is loaded
//! (PROTOCOL.md).

use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;
use std::time::Duration;

use hanshu_runtimes::wire::{
    self, CONTROL_SOCKET, DATA_SOCKET, FrameKind, HelloMessage, PROTOCOL_VERSION,
};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{self, Instant};

use crate::backend::port::Sandbox;
use crate::sandbox::control::{SandboxEnd, ShimConnection, send_json};
use crate::sandbox::exchange::{ConnectionError, DataConnection, ReceivedFrame};
use crate::sandbox::run_dir;

/// How long the shim may take to report the end of a runtime whose connection has ended.
const EXIT_REPORT_WAIT: Duration = Duration::from_millis(100);

/// Why a runtime did not become ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartupError {
    /// The runtime reports why it could not load the code.
    #[error("{}", .0.error_message)]
    InitFailed(wire::RuntimeFailure),
    /// The sandbox ended.
    #[error("it ended: {0:?}")]
    Ended(Option<SandboxEnd>),
    /// It was not ready in time.
    #[error("it was not ready in time")]
    TimedOut,
    /// The runtime or the shim broke the protocol, or a system call failed.
    #[error("{0}")]
    Broken(String),
}

impl From<ConnectionError> for StartupError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Ended | ConnectionError::Unread => Self::Ended(None),
            ConnectionError::Io(_) | ConnectionError::Malformed(_) => {
                Self::Broken(error.to_string())
            }
        }
    }
}

impl From<std::io::Error> for StartupError {
    fn from(error: std::io::Error) -> Self {
        Self::from(ConnectionError::from(error))
    }
}

/// The shim's connection, with a second handle of it.
#[derive(Debug)]
pub(super) struct AttachedShim {
    pub(super) conn: ShimConnection,
    pub(super) second: StdStream,
}

/// The data connection of a runtime that is ready.
#[derive(Debug)]
pub(super) struct LoadedRuntime {
    pub(super) conn: DataConnection,
    /// A second handle of it.
    pub(super) second: StdStream,
    /// When loading the user's code began.
    pub(super) begun: Instant,
}

/// Waits for the shim's connection and its `HELLO`.
pub(super) async fn attach_shim(
    listener: StdListener,
    run_dir: &Path,
    sandbox: &dyn Sandbox,
    wait: Duration,
) -> Result<AttachedShim, StartupError> {
    let attach = async {
        let stream = accept(listener).await?;
        run_dir::unlink(run_dir, CONTROL_SOCKET);
        let (mut conn, second) = ShimConnection::new(stream)?;
        read_hello(&mut conn).await?;
        Ok(AttachedShim { conn, second })
    };
    tokio::select! {
        attached = attach => attached,
        () = sandbox.ended() => Err(StartupError::Ended(None)),
        () = time::sleep(wait) => Err(StartupError::Broken("its shim did not answer in time".into())),
    }
}

/// Waits for the connection of a runtime that was started.
pub(super) async fn accept_runtime(
    listener: StdListener,
    run_dir: &Path,
) -> Result<UnixStream, StartupError> {
    let stream = accept(listener).await?;
    run_dir::unlink(run_dir, DATA_SOCKET);
    Ok(stream)
}

/// Tells the runtime to load the user's code, and waits for its `READY`.
pub(super) async fn load(
    mut stream: UnixStream,
    init: &impl Serialize,
) -> Result<LoadedRuntime, StartupError> {
    let begun = Instant::now();
    send_json(&mut stream, FrameKind::Init, init).await?;
    let std = stream.into_std()?;
    let second = std.try_clone()?;
    let mut conn = DataConnection::new(std)?;
    let ReceivedFrame { header, body } = conn.read_frame().await?;
    match header.kind {
        FrameKind::Ready => Ok(LoadedRuntime { conn, second, begun }),
        FrameKind::InitFailed => match serde_json::from_slice(&body) {
            Ok(failure) => Err(StartupError::InitFailed(failure)),
            Err(error) => Err(StartupError::Broken(format!("its failure cannot be read: {error}"))),
        },
        other => Err(StartupError::Broken(format!("its runtime sent {other:?} instead of READY"))),
    }
}

/// The result of `load`, or how the sandbox ended meanwhile. The two connections report an end in any
/// order: the runtime's why it failed, the shim's how it ended.
pub(super) async fn unless_ended<T>(
    load: impl Future<Output = Result<T, StartupError>>,
    shim: &mut ShimConnection,
) -> Result<T, StartupError> {
    let mut load = std::pin::pin!(load);
    tokio::select! {
        biased;
        loaded = &mut load => match loaded {
            // The shim reports how.
            Err(StartupError::Ended(None)) => {
                let end = time::timeout(EXIT_REPORT_WAIT, shim.end()).await;
                Err(StartupError::Ended(end.ok()))
            }
            other => other,
        },
        end = shim.end() => match time::timeout(EXIT_REPORT_WAIT, load).await {
            // What it sent before it ended can still be read.
            Ok(Err(StartupError::InitFailed(failure))) => Err(StartupError::InitFailed(failure)),
            Ok(_) | Err(_) => Err(StartupError::Ended(Some(end))),
        },
    }
}

async fn accept(listener: StdListener) -> Result<UnixStream, StartupError> {
    let listener = UnixListener::from_std(listener)?;
    let (stream, _) = listener.accept().await?;
    Ok(stream)
}

async fn read_hello(shim: &mut ShimConnection) -> Result<(), StartupError> {
    let ReceivedFrame { header, body } = shim.read().await?;
    match (header.kind, serde_json::from_slice::<HelloMessage>(&body)) {
        (FrameKind::Hello, Ok(hello)) if hello.protocol == PROTOCOL_VERSION => Ok(()),
        (FrameKind::Hello, Ok(hello)) => Err(StartupError::Broken(format!(
            "its shim speaks protocol {}, not {PROTOCOL_VERSION}",
            hello.protocol
        ))),
        _ => Err(StartupError::Broken("its shim sent no HELLO".into())),
    }
}
