//! Starts a sandbox for a revision and waits until the user's code is loaded.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hanshu_core::ports::{PackageError, PackageStore};
use hanshu_core::{
    ColdStart, ColdStartParts, InstanceId, NodeId, OPEN_FILES_MAX, PIDS_MAX, Revision, Verdict,
};
use hanshu_runtimes::wire::FrameKind;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::failure::{refuse, start_refused, verdict_of};
use super::handshake::{self, AttachedShim, LoadedRuntime, StartupError};
use crate::backend::image_recipe::image_reference;
use crate::backend::port::{
    CODE_DIR, NetworkAccess, Sandbox, SandboxBackend, SandboxMount, SandboxOwner, SandboxSpec,
};
use crate::config::InvokerOptions;
use crate::sandbox::capacity::CapacityReservation;
use crate::sandbox::control::{SandboxHandle, ShimConnection};
use crate::sandbox::deadlines::EventWatch;
use crate::sandbox::exchange::DataConnection;
use crate::sandbox::function_calls::{FunctionCallPort, FunctionCallServer};
use crate::sandbox::instance::{InstanceStats, SandboxInstance, SandboxResources};
use crate::sandbox::logs::{JournalSink, SandboxLog};
use crate::sandbox::run_dir::{self, RunDir};
use crate::sandbox::shape::SandboxShape;
use crate::sandbox::start_message::start_message;
use crate::sandbox::user_ids::UserIdPool;

/// What a start needs.
#[derive(Clone)]
pub(crate) struct SandboxLauncher {
    pub(crate) options: Arc<InvokerOptions>,
    pub(crate) backend: Arc<dyn SandboxBackend>,
    pub(crate) packages: Arc<dyn PackageStore>,
    pub(crate) sink: JournalSink,
    pub(crate) calls: FunctionCallPort,
    pub(crate) node: NodeId,
    pub(crate) user_ids: Arc<UserIdPool>,
    /// Cancelled when the grace period of stopping is over: starts are aborted.
    pub(crate) abort: CancellationToken,
}

/// A sandbox whose runtime is ready.
#[derive(Debug)]
pub(crate) struct LaunchedSandbox {
    pub(crate) instance: SandboxInstance,
    pub(crate) conn: DataConnection,
    pub(crate) shim: ShimConnection,
}

/// A sandbox did not come up. Nothing of it is left.
#[derive(Clone, Debug)]
pub(crate) struct StartFailure {
    /// The verdict of the invocations that waited for it.
    pub(crate) verdict: Verdict,
    /// What the runtime printed, for the first of them.
    pub(crate) log: Option<Arc<SandboxLog>>,
    /// How long it took to fail.
    pub(crate) took: Duration,
}

/// A sandbox that was started, with the sockets on which its shim and runtime will connect.
#[derive(Debug)]
pub(super) struct StartedSandbox {
    pub(super) parts: SandboxParts,
    pub(super) output: File,
    pub(super) control: StdListener,
    pub(super) data: StdListener,
}

/// A sandbox and what belongs to it.
#[derive(Debug)]
pub(super) struct SandboxParts {
    pub(super) id: InstanceId,
    pub(super) resources: SandboxResources,
    pub(super) run_dir: PathBuf,
    pub(super) sandbox: Box<dyn Sandbox>,
    pub(super) calls: FunctionCallServer,
}

/// A cold start in progress.
#[derive(Clone, Debug)]
pub(super) struct ColdStartProgress {
    pub(super) revision: Arc<Revision>,
    pub(super) begun: Instant,
    /// From `begun` until the code was on this node.
    pub(super) code: Duration,
    pub(super) from_prewarmed: bool,
}

/// A runtime that is ready, with both its connections.
#[derive(Debug)]
pub(super) struct ReadyRuntime {
    pub(super) shim: AttachedShim,
    pub(super) loaded: LoadedRuntime,
}

impl SandboxLauncher {
    /// Starts a sandbox and waits until the user's code is loaded. Run in a task that is never
    /// dropped. Limited by `start_timeout` and by the function's own time for loading.
    ///
    /// # Errors
    /// [`StartFailure`]: the function's fault or the platform's, as its verdict says.
    pub(crate) async fn launch(
        &self,
        revision: &Arc<Revision>,
        capacity: CapacityReservation,
    ) -> Result<LaunchedSandbox, StartFailure> {
        let begun = Instant::now();
        let failed = |verdict| StartFailure { verdict, log: None, took: begun.elapsed() };
        let code_dir = self.code_dir(revision).await.map_err(failed)?;
        let (revision, code) = (Arc::clone(revision), begun.elapsed());
        let owner = SandboxOwner::Function {
            function: revision.function.clone(),
            version: revision.version,
        };
        let shape = self.shape(&revision);
        let started = self.start_sandbox(shape, owner, Some(&code_dir), capacity).await;
        let StartedSandbox { parts, output, control, data } = started.map_err(failed)?;
        parts.resources.capacity.mark_started();
        let log = Arc::new(SandboxLog::new(output, Arc::clone(&revision), self.sink.clone()));
        let start = start_message(&revision, &self.options);
        let startup = async {
            let wait = self.options.start_timeout();
            let sandbox = parts.sandbox.as_ref();
            let mut shim = handshake::attach_shim(control, &parts.run_dir, sandbox, wait).await?;
            shim.conn.send_json(FrameKind::Start, &start).await?;
            let load = async {
                let stream = handshake::accept_runtime(data, &parts.run_dir).await?;
                handshake::load(stream, &start.init).await
            };
            let load = handshake::unless_ended(load, &mut shim.conn);
            let loaded = time::timeout(revision.config.init_timeout, load).await;
            Ok(ReadyRuntime { shim, loaded: loaded.unwrap_or(Err(StartupError::TimedOut))? })
        };
        let runtime = self.unless_aborted(&log, startup).await;
        let progress = ColdStartProgress { revision, begun, code, from_prewarmed: false };
        self.finish_start(&progress, parts, log, runtime).await
    }

    /// The shape of the sandbox that a function needs.
    pub(crate) fn shape(&self, revision: &Revision) -> SandboxShape {
        let config = &revision.config;
        let family = config.runtime.family();
        SandboxShape {
            family,
            network: match config.network {
                None => self.backend.default_network(family.profile().listens),
                Some(true) => NetworkAccess::Bridge,
                Some(false) => NetworkAccess::None,
            },
            memory_mb: config.memory_mb,
        }
    }

    /// The unpacked package.
    pub(super) async fn code_dir(&self, revision: &Revision) -> Result<PathBuf, Verdict> {
        self.packages.folder(&revision.code).await.map_err(|error| match error {
            PackageError::Missing(_) => refuse(error.to_string()),
            PackageError::Refused(_) | PackageError::Digest { .. } | PackageError::Io(_) => {
                tracing::error!(%error, function = %revision.function, "Could not get a package");
                refuse("the function's package is not available".into())
            }
        })
    }

    /// Starts a sandbox, whose shim has not connected yet. After a failure nothing of it is left.
    pub(super) async fn start_sandbox(
        &self,
        shape: SandboxShape,
        owner: SandboxOwner,
        code_dir: Option<&Path>,
        capacity: CapacityReservation,
    ) -> Result<StartedSandbox, Verdict> {
        let id = InstanceId::new();
        let user_id = self.user_ids.take().ok_or_else(|| refuse("no user id is free".into()))?;
        let base = &self.options.run_dir;
        let failed = |error: io::Error| {
            tracing::error!(%error, path = %base.display(), "Could not make a run folder");
            refuse("the node could not make the sandbox's run folder".into())
        };
        let run_dir = RunDir::make(base, id, user_id.number()).map_err(failed)?;
        let RunDir { path: run_dir, control, data, calls, output } = run_dir;
        let calls = FunctionCallServer::start(calls, self.calls.clone())
            .inspect_err(|_| run_dir::remove(&run_dir))
            .map_err(failed)?;
        let spec = SandboxSpec {
            instance: id,
            node: self.node.clone(),
            owner,
            image: image_reference(shape.family),
            mounts: mounts(shape, code_dir),
            memory_mb: shape.memory_mb,
            cpu_milli: self.options.cpu_milli,
            network: shape.network,
            listens: shape.family.profile().listens,
            pids_max: PIDS_MAX,
            open_files_max: OPEN_FILES_MAX,
            uid: user_id.number(),
            run_dir: run_dir.clone(),
        };
        match self.backend.start(&spec).await {
            Ok(sandbox) => {
                let resources = SandboxResources { _user_id: user_id, capacity };
                let parts = SandboxParts { id, resources, run_dir, sandbox, calls };
                Ok(StartedSandbox { parts, output, control, data })
            }
            Err(error) => {
                run_dir::remove(&run_dir);
                Err(start_refused(&error, id))
            }
        }
    }

    /// The result of the startup, unless stopping aborts it. Reads the output meanwhile.
    pub(super) async fn unless_aborted<T>(
        &self,
        log: &SandboxLog,
        startup: impl Future<Output = Result<T, StartupError>>,
    ) -> Result<T, StartupError> {
        tokio::select! {
            result = startup => result,
            () = self.abort.cancelled() => {
                Err(StartupError::Broken("this node is stopping".into()))
            }
            () = log.follow() => Err(StartupError::Broken("its output cannot be read".into())),
        }
    }

    /// The sandbox whose runtime is ready; one whose startup failed is removed.
    pub(super) async fn finish_start(
        &self,
        progress: &ColdStartProgress,
        parts: SandboxParts,
        log: Arc<SandboxLog>,
        runtime: Result<ReadyRuntime, StartupError>,
    ) -> Result<LaunchedSandbox, StartFailure> {
        let ColdStartProgress { revision, begun, .. } = progress;
        let ReadyRuntime { shim, loaded } = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let verdict = verdict_of(error, revision, parts.sandbox.as_ref(), parts.id);
                drop(parts.remove().await);
                return Err(StartFailure { verdict, log: Some(log), took: begun.elapsed() });
            }
        };
        let SandboxParts { id, resources, run_dir, sandbox, calls } = parts;
        calls.set_function(&revision.function);
        let cold_start = progress.cold_start(&loaded, sandbox.as_ref());
        let instance = SandboxInstance {
            id,
            watch: Arc::new(EventWatch::new(Arc::clone(&log))),
            log,
            handle: SandboxHandle::new(shim.second, loaded.second),
            init: cold_start.total,
            cold_start,
            sandbox,
            run_dir,
            calls,
            resources: Mutex::new(Some(resources)),
            stats: InstanceStats::new(),
        };
        Ok(LaunchedSandbox { instance, conn: loaded.conn, shim: shim.conn })
    }
}

/// What a sandbox of this shape sees beside the platform's own folders.
fn mounts(shape: SandboxShape, code_dir: Option<&Path>) -> Vec<SandboxMount> {
    let code = code_dir
        .map(|code_dir| SandboxMount { source: code_dir.to_owned(), target: CODE_DIR.into() });
    let of_runtime = shape.family.profile().mounts.iter();
    let of_runtime =
        of_runtime.map(|path| SandboxMount { source: path.into(), target: path.into() });
    code.into_iter().chain(of_runtime).collect()
}

impl ColdStartProgress {
    /// The figures of a start that has just succeeded.
    fn cold_start(&self, loaded: &LoadedRuntime, sandbox: &dyn Sandbox) -> ColdStart {
        let total = self.begun.elapsed();
        let function = total.saturating_sub(loaded.begun - self.begun);
        let runtime = total.saturating_sub(self.code + function);
        ColdStart {
            total,
            parts: Some(ColdStartParts { code: self.code, runtime, function }),
            memory_mb: self.revision.config.memory_mb,
            memory_bytes: sandbox.memory_bytes().unwrap_or_default(),
            from_prewarmed: self.from_prewarmed,
        }
    }
}

impl SandboxParts {
    /// Stops and removes the sandbox; its room is the caller's.
    pub(super) async fn remove(self) -> CapacityReservation {
        self.sandbox.stop().await;
        run_dir::remove(&self.run_dir);
        self.resources.capacity
    }
}
