//! From a revision to a runtime that waits for events: the same talk for every backend.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hanshu_core::ports::{PackageError, PackageStore};
use hanshu_core::{
    ColdStart, ColdStartParts, Failure, Family, InstanceId, NodeId, OPEN_FILES_MAX, PIDS_MAX,
    Refusal, Revision, StatusCode, Verdict,
};
use hanshu_runtimes::wire::{
    self, CONTROL_SOCKET, DATA_SOCKET, Exited, Hello, Kind, PROTOCOL_VERSION, Start,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::admission::Place;
use crate::backend::{Backend, Network, Sandbox, SandboxSpec, StartError, Whose};
use crate::config::Options;
use crate::control::{Control, End, Leash, send_json};
use crate::exchange::{ConnError, DataConn, Frame};
use crate::instance::{Instance, Vitals, ran_out_of_memory};
use crate::logs::{Log, Outlet};
use crate::run_dir::{self, RunDir};
use crate::runtime::start_of;
use crate::uids::Uids;

/// After the data connection has ended: how long the shim may take to say why.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(100);
/// Bytes of a failure's message, of its type, of its stack: more than our bootstraps let through,
/// which count 65,536 characters and cut in the middle.
const FAILURE_TEXT_BYTES_MAX: usize = 4 * 65_536 + 256;

/// What starting needs.
#[derive(Clone)]
pub(crate) struct Launcher {
    pub(crate) options: Arc<Options>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) packages: Arc<dyn PackageStore>,
    pub(crate) outlet: Outlet,
    pub(crate) node: NodeId,
    pub(crate) uids: Arc<Uids>,
    /// Cancelled when the grace of stopping is over: starts are broken off.
    pub(crate) cut: CancellationToken,
}

/// A sandbox whose runtime is ready.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) instance: Instance,
    pub(crate) conn: DataConn,
    pub(crate) control: Control,
}

/// A sandbox that did not come up. Nothing of it is left.
#[derive(Clone, Debug)]
pub(crate) struct StartFailure {
    /// What those are told who waited for it.
    pub(crate) verdict: Verdict,
    /// What the runtime printed, for the first of them.
    pub(crate) log: Option<Arc<Log>>,
    /// How long it took to fail.
    pub(crate) took: Duration,
}

/// How the talk with the runtime went wrong.
enum Hitch {
    /// The runtime says why.
    InitFailed(wire::Failure),
    /// It ended instead.
    Ended(Option<End>),
    /// It was not ready in time.
    TimedOut,
    /// It or the shim broke the protocol, or the system failed us.
    Broken(String),
}

impl From<ConnError> for Hitch {
    fn from(error: ConnError) -> Self {
        match error {
            ConnError::Ended => Self::Ended(None),
            ConnError::Io(_) | ConnError::Malformed(_) => Self::Broken(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Hitch {
    fn from(error: std::io::Error) -> Self {
        Self::from(ConnError::from(error))
    }
}

impl Launcher {
    /// Starts a sandbox and waits until the user's code is loaded. Run in a task that nobody drops
    /// half-way. Bounded by `start_timeout` and the function's own time for loading.
    ///
    /// # Errors
    /// [`StartFailure`]: the function's fault or ours, as its verdict says.
    pub(crate) async fn launch(
        &self,
        revision: &Arc<Revision>,
        place: Place,
    ) -> Result<Launched, StartFailure> {
        let begun = Instant::now();
        let failed = |verdict, log| StartFailure { verdict, log, took: begun.elapsed() };
        let id = InstanceId::new();
        let spec = self.spec(id, revision).await.map_err(|why| failed(refused(why), None))?;
        let code = begun.elapsed();
        let uid = self.uids.take();
        let uid = uid.ok_or_else(|| failed(refused("no user id is free".into()), None))?;
        let spec = SandboxSpec { uid: uid.number(), ..spec };
        let run_dir = RunDir::make(&self.options.run_dir, id, uid.number()).map_err(|error| {
            tracing::error!(%error, path = %self.options.run_dir.display(), "Could not make a run folder");
            failed(refused("the node could not make the sandbox's run folder".into()), None)
        })?;
        let RunDir { path, control, data, output } = run_dir;
        let log = Arc::new(Log::new(output, Arc::clone(revision), self.outlet.clone()));
        let sandbox = match self.backend.start(&spec).await {
            Ok(sandbox) => sandbox,
            Err(error) => {
                run_dir::remove(&path);
                return Err(failed(start_error(&error, id), Some(log)));
            }
        };
        let talk = self.talk(revision, sandbox.as_ref(), Listeners { control, data, path: &path });
        let talked = tokio::select! {
            talked = talk => talked,
            () = self.cut.cancelled() => Err(Hitch::Broken("this node is stopping".into())),
            () = log.follow() => Err(Hitch::Broken("its output cannot be read".into())),
        };
        match talked {
            Ok(Talked { control, leash, conn, loading }) => {
                let init = begun.elapsed();
                let function = init.saturating_sub(loading - begun);
                let runtime = init.saturating_sub(code + function);
                let cold_start = ColdStart {
                    total: init,
                    parts: Some(ColdStartParts { code, runtime, function }),
                    memory_mb: spec.memory_mb,
                    memory_bytes: sandbox.memory_bytes().unwrap_or_default(),
                };
                let instance = Instance {
                    id,
                    log,
                    leash,
                    init,
                    cold_start,
                    sandbox,
                    run_dir: path,
                    belongings: Mutex::new(Some((uid, place))),
                    vitals: Vitals::new(),
                };
                Ok(Launched { instance, conn, control })
            }
            Err(hitch) => {
                let verdict = verdict_of(hitch, revision, sandbox.as_ref(), id);
                sandbox.stop().await;
                run_dir::remove(&path);
                Err(failed(verdict, Some(log)))
            }
        }
    }

    async fn spec(&self, id: InstanceId, revision: &Revision) -> Result<SandboxSpec, String> {
        let code_dir = self.packages.folder(&revision.code).await.map_err(|error| match error {
            PackageError::Missing(_) => error.to_string(),
            PackageError::Refused(_) | PackageError::Digest { .. } | PackageError::Io(_) => {
                tracing::error!(%error, function = %revision.function, "Could not get a package");
                "the function's package cannot be had".into()
            }
        })?;
        let config = &revision.config;
        let family = config.runtime.family();
        Ok(SandboxSpec {
            instance: id,
            node: self.node.clone(),
            whose: Whose::Function {
                function: revision.function.clone(),
                version: revision.version,
                code_dir,
            },
            family,
            memory_mb: config.memory_mb,
            cpu_milli: self.options.cpu_milli,
            network: match config.network {
                None => self.backend.default_network(family),
                Some(true) => Network::Bridge,
                Some(false) => Network::None,
            },
            pids_max: PIDS_MAX,
            open_files_max: OPEN_FILES_MAX,
            uid: 0,
            run_dir: run_dir_of(&self.options.run_dir, id),
        })
    }

    async fn talk(
        &self,
        revision: &Revision,
        sandbox: &dyn Sandbox,
        listeners: Listeners<'_>,
    ) -> Result<Talked, Hitch> {
        let Listeners { control, data, path } = listeners;
        let mut stream = tokio::select! {
            stream = accept(control) => stream?,
            () = sandbox.ended() => return Err(Hitch::Ended(None)),
            () = time::sleep(self.options.start_timeout()) => {
                return Err(Hitch::Broken("its shim did not answer in time".into()));
            }
        };
        run_dir::unlink(path, CONTROL_SOCKET);
        let start = start_of(revision, &self.options);
        send_json(&mut stream, Kind::Start, &start).await?;
        let (mut control, leash_control) = Control::new(stream)?;
        let loading = time::timeout(revision.config.init_timeout, async {
            hello(&mut control).await?;
            loaded_or_ended(load(data, &start), &mut control).await
        });
        let Loaded { conn, twin, begun } = loading.await.unwrap_or(Err(Hitch::TimedOut))?;
        run_dir::unlink(path, DATA_SOCKET);
        Ok(Talked { control, leash: Leash::new(leash_control, twin), conn, loading: begun })
    }
}

/// What the talk with a runtime that is ready leaves behind.
struct Talked {
    control: Control,
    leash: Leash,
    conn: DataConn,
    /// When the user's code began to be loaded.
    loading: Instant,
}

/// The data connection of a runtime that is ready.
struct Loaded {
    conn: DataConn,
    twin: std::os::unix::net::UnixStream,
    begun: Instant,
}

struct Listeners<'a> {
    control: std::os::unix::net::UnixListener,
    data: std::os::unix::net::UnixListener,
    path: &'a std::path::Path,
}

async fn accept(listener: std::os::unix::net::UnixListener) -> Result<UnixStream, Hitch> {
    let listener = UnixListener::from_std(listener)?;
    let (stream, _) = listener.accept().await?;
    Ok(stream)
}

async fn hello(control: &mut Control) -> Result<(), Hitch> {
    let Frame { header, body } = control.read().await?;
    match (header.kind, serde_json::from_slice::<Hello>(&body)) {
        (Kind::Hello, Ok(hello)) if hello.protocol == PROTOCOL_VERSION => Ok(()),
        (Kind::Hello, Ok(hello)) => Err(Hitch::Broken(format!(
            "its shim speaks protocol {}, not {PROTOCOL_VERSION}",
            hello.protocol
        ))),
        _ => Err(Hitch::Broken("its shim sent no HELLO".into())),
    }
}

/// Two connections tell of one end, in any order: why it failed on the one, how it ended on the
/// other.
async fn loaded_or_ended(
    load: impl Future<Output = Result<Loaded, Hitch>>,
    control: &mut Control,
) -> Result<Loaded, Hitch> {
    let mut load = std::pin::pin!(load);
    tokio::select! {
        biased;
        loaded = &mut load => match loaded {
            // The shim knows why.
            Err(Hitch::Ended(None)) => {
                let end = time::timeout(LAST_WORDS_WAIT, control.end()).await;
                Err(Hitch::Ended(end.ok()))
            }
            other => other,
        },
        end = control.end() => match time::timeout(LAST_WORDS_WAIT, load).await {
            // What it said before it ended can still be read.
            Ok(Err(Hitch::InitFailed(failure))) => Err(Hitch::InitFailed(failure)),
            Ok(_) | Err(_) => Err(Hitch::Ended(Some(end))),
        },
    }
}

/// Waits for the runtime's connection and its word that the user's code is loaded.
async fn load(data: std::os::unix::net::UnixListener, start: &Start) -> Result<Loaded, Hitch> {
    let mut stream = accept(data).await?;
    let begun = Instant::now();
    send_json(&mut stream, Kind::Init, &start.init).await?;
    let std = stream.into_std()?;
    let twin = std.try_clone()?;
    let mut conn = DataConn::new(std)?;
    let Frame { header, body } = conn.read_frame().await?;
    match header.kind {
        Kind::Ready => Ok(Loaded { conn, twin, begun }),
        Kind::InitFailed => match serde_json::from_slice(&body) {
            Ok(failure) => Err(Hitch::InitFailed(failure)),
            Err(error) => Err(Hitch::Broken(format!("its failure cannot be read: {error}"))),
        },
        other => Err(Hitch::Broken(format!("its runtime sent {other:?} instead of READY"))),
    }
}

fn run_dir_of(base: &std::path::Path, id: InstanceId) -> PathBuf {
    base.join(id.to_string())
}

fn refused(reason: String) -> Verdict {
    Verdict::Refused(Refusal::Sandbox { reason })
}

fn start_error(error: &StartError, instance: InstanceId) -> Verdict {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::warn!(%error, source, %instance, "Could not start a sandbox");
    refused(error.to_string())
}

/// Whose fault it is that a runtime did not come up.
fn verdict_of(
    hitch: Hitch,
    revision: &Revision,
    sandbox: &dyn Sandbox,
    instance: InstanceId,
) -> Verdict {
    let config = &revision.config;
    match hitch {
        Hitch::InitFailed(failure) => Verdict::Failed(failure_of(failure)),
        Hitch::TimedOut => Verdict::Failed(Failure::seen(
            StatusCode::InitTimeout,
            format!("Initialization timed out after {} seconds", config.init_timeout.as_secs()),
        )),
        Hitch::Ended(end) if ran_out_of_memory(end.as_ref(), sandbox) => {
            Verdict::Failed(out_of_memory(config.memory_mb))
        }
        Hitch::Ended(Some(End::Exited(exited))) => could_not_load(&exited, config.runtime.family()),
        Hitch::Ended(Some(End::Lost) | None) => {
            tracing::warn!(%instance, "A sandbox ended before it was ready");
            refused("it ended before it was ready".into())
        }
        Hitch::Broken(reason) => {
            tracing::warn!(%instance, reason, "A sandbox did not come up");
            refused(reason)
        }
    }
}

fn could_not_load(exited: &Exited, family: Family) -> Verdict {
    match (&exited.error, family) {
        // The interpreter is the node's business.
        (Some(error), Family::Python | Family::Nodejs) => refused(error.clone()),
        (Some(error), Family::Go | Family::Shell | Family::Custom) => {
            Verdict::Failed(Failure::seen(StatusCode::HandlerNotFound, error.clone()))
        }
        (None, _) => Verdict::Failed(Failure::seen(
            StatusCode::UserCodeError,
            format!("The process ended while the function was loaded ({})", ending(exited)),
        )),
    }
}

/// `exit status 3` or `signal 11`.
pub(crate) fn ending(exited: &Exited) -> String {
    match (exited.signal, exited.code) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "reason unknown".into(),
    }
}

/// SCF's failure for want of memory.
pub(crate) fn out_of_memory(memory_mb: u32) -> Failure {
    Failure::seen(StatusCode::MemoryLimitReached, format!("Task memory exceeded {memory_mb} MB"))
}

/// A runtime's failure as callers see it. It is kept and shown, so its texts are bounded, and it
/// cannot say what is the platform's to say.
pub(crate) fn failure_of(failure: wire::Failure) -> Failure {
    Failure {
        status_code: code_of(failure.status_code),
        error_code: failure.error_code,
        error_message: bounded(failure.error_message),
        error_type: failure.error_type.map(bounded),
        stack_trace: failure.stack_trace.map(bounded),
    }
}

/// What a runtime may say of its function. Any other code, a success or an error of the platform,
/// is the runtime's mistake, and so the user code's.
fn code_of(number: u16) -> StatusCode {
    match number {
        wire::status::ANSWER_TOO_LARGE => StatusCode::ResponseTooLarge,
        wire::status::OUT_OF_MEMORY => StatusCode::MemoryLimitReached,
        wire::status::HANDLER_NOT_FOUND => StatusCode::HandlerNotFound,
        wire::status::PROCESS_EXITED => StatusCode::ProcessExit,
        wire::status::CODE_ERROR => StatusCode::UserCodeError,
        wire::status::INIT_TIMED_OUT => StatusCode::InitTimeout,
        _ => StatusCode::UserException,
    }
}

/// A failure's text, or as much of its beginning as is kept.
fn bounded(mut text: String) -> String {
    let end = (0..=FAILURE_TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
    if FAILURE_TEXT_BYTES_MAX < text.len() {
        text.truncate(end.unwrap_or(0));
        text.push_str("\n… cut");
    }
    text
}
