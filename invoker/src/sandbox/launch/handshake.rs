//! The talk with a sandbox's shim and runtime until the user's code is loaded (PROTOCOL.md).

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
use crate::sandbox::exchange::{ConnectionError, DataConnection, DataFrame};
use crate::sandbox::run_dir;

/// After the data connection has ended: how long the shim may take to say why.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(100);

/// How the talk with the runtime went wrong.
pub(super) enum StartupError {
    /// The runtime says why.
    InitFailed(wire::RuntimeFailure),
    /// It ended instead.
    Ended(Option<SandboxEnd>),
    /// It was not ready in time.
    TimedOut,
    /// It or the shim broke the protocol, or the system failed us.
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

impl StartupError {
    /// For the log of a sandbox that has no function yet.
    pub(super) fn text(&self) -> String {
        match self {
            Self::InitFailed(failure) => failure.error_message.clone(),
            Self::Ended(end) => format!("it ended: {end:?}"),
            Self::TimedOut => "it was not ready in time".into(),
            Self::Broken(reason) => reason.clone(),
        }
    }
}

/// The shim's connection, with a second handle of it.
#[derive(Debug)]
pub(super) struct AttachedShim {
    pub(super) control: ShimConnection,
    pub(super) twin: StdStream,
}

/// The data connection of a runtime that is ready.
#[derive(Debug)]
pub(super) struct LoadedRuntime {
    pub(super) conn: DataConnection,
    /// A second handle of it.
    pub(super) twin: StdStream,
    /// When the user's code began to be loaded.
    pub(super) begun: Instant,
}

/// Waits for the shim to say hello.
pub(super) async fn attach(
    listener: StdListener,
    run_dir: &Path,
    sandbox: &dyn Sandbox,
    wait: Duration,
) -> Result<AttachedShim, StartupError> {
    let attached = async {
        let stream = accept(listener).await?;
        run_dir::unlink(run_dir, CONTROL_SOCKET);
        let (mut control, twin) = ShimConnection::new(stream)?;
        hello(&mut control).await?;
        Ok(AttachedShim { control, twin })
    };
    tokio::select! {
        attached = attached => attached,
        () = sandbox.ended() => Err(StartupError::Ended(None)),
        () = time::sleep(wait) => Err(StartupError::Broken("its shim did not answer in time".into())),
    }
}

/// Waits for the connection of a runtime that was started.
pub(super) async fn runtime(
    listener: StdListener,
    run_dir: &Path,
) -> Result<UnixStream, StartupError> {
    let stream = accept(listener).await?;
    run_dir::unlink(run_dir, DATA_SOCKET);
    Ok(stream)
}

/// Has the runtime load the user's code, and waits for its word that this is done.
pub(super) async fn load(
    mut stream: UnixStream,
    init: &impl Serialize,
) -> Result<LoadedRuntime, StartupError> {
    let begun = Instant::now();
    send_json(&mut stream, FrameKind::Init, init).await?;
    let std = stream.into_std()?;
    let twin = std.try_clone()?;
    let mut conn = DataConnection::new(std)?;
    let DataFrame { header, body } = conn.read_frame().await?;
    match header.kind {
        FrameKind::Ready => Ok(LoadedRuntime { conn, twin, begun }),
        FrameKind::InitFailed => match serde_json::from_slice(&body) {
            Ok(failure) => Err(StartupError::InitFailed(failure)),
            Err(error) => Err(StartupError::Broken(format!("its failure cannot be read: {error}"))),
        },
        other => Err(StartupError::Broken(format!("its runtime sent {other:?} instead of READY"))),
    }
}

/// Two connections tell of one end, in any order: why it failed on the one, how it ended on the
/// other.
pub(super) async fn or_ended<T>(
    load: impl Future<Output = Result<T, StartupError>>,
    control: &mut ShimConnection,
) -> Result<T, StartupError> {
    let mut load = std::pin::pin!(load);
    tokio::select! {
        biased;
        loaded = &mut load => match loaded {
            // The shim knows why.
            Err(StartupError::Ended(None)) => {
                let end = time::timeout(LAST_WORDS_WAIT, control.end()).await;
                Err(StartupError::Ended(end.ok()))
            }
            other => other,
        },
        end = control.end() => match time::timeout(LAST_WORDS_WAIT, load).await {
            // What it said before it ended can still be read.
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

async fn hello(control: &mut ShimConnection) -> Result<(), StartupError> {
    let DataFrame { header, body } = control.read().await?;
    match (header.kind, serde_json::from_slice::<HelloMessage>(&body)) {
        (FrameKind::Hello, Ok(hello)) if hello.protocol == PROTOCOL_VERSION => Ok(()),
        (FrameKind::Hello, Ok(hello)) => Err(StartupError::Broken(format!(
            "its shim speaks protocol {}, not {PROTOCOL_VERSION}",
            hello.protocol
        ))),
        _ => Err(StartupError::Broken("its shim sent no HELLO".into())),
    }
}
