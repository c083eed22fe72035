//! From a revision to a runtime that waits for events: the same talk for every backend.

mod failure;
mod handshake;
mod prewarmed;

use std::fs::File;
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hanshu_core::ports::{PackageError, PackageStore};
use hanshu_core::{
    ColdStart, ColdStartParts, InstanceId, NodeId, OPEN_FILES_MAX, PIDS_MAX, Revision, Verdict,
};
use hanshu_runtimes::wire::FrameKind;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use failure::{ending, failure_of, out_of_memory};
use failure::{refused, start_error, verdict_of};
use handshake::{AttachedShim, LoadedRuntime, StartupError};
pub(crate) use prewarmed::{PrewarmedSandbox, SpecializeError};

use crate::backend::port::{NetworkAccess, Sandbox, SandboxBackend, SandboxOwner, SandboxSpec};
use crate::config::InvokerOptions;
use crate::sandbox::capacity::CapacityReservation;
use crate::sandbox::control::{SandboxHandle, ShimConnection};
use crate::sandbox::deadlines::EventWatch;
use crate::sandbox::exchange::DataConnection;
use crate::sandbox::instance::{InstanceStats, SandboxInstance};
use crate::sandbox::logs::{JournalSink, SandboxLog};
use crate::sandbox::run_dir::{self, RunDir};
use crate::sandbox::shape::SandboxShape;
use crate::sandbox::start_message::start_of;
use crate::sandbox::uids::{SandboxUserId, UserIdPool};

/// What starting needs.
#[derive(Clone)]
pub(crate) struct SandboxLauncher {
    pub(crate) options: Arc<InvokerOptions>,
    pub(crate) backend: Arc<dyn SandboxBackend>,
    pub(crate) packages: Arc<dyn PackageStore>,
    pub(crate) outlet: JournalSink,
    pub(crate) node: NodeId,
    pub(crate) uids: Arc<UserIdPool>,
    /// Cancelled when the grace of stopping is over: starts are broken off.
    pub(crate) cut: CancellationToken,
}

/// A sandbox whose runtime is ready.
#[derive(Debug)]
pub(crate) struct LaunchedSandbox {
    pub(crate) instance: SandboxInstance,
    pub(crate) conn: DataConnection,
    pub(crate) control: ShimConnection,
}

/// A sandbox that did not come up. Nothing of it is left.
#[derive(Clone, Debug)]
pub(crate) struct StartFailure {
    /// What those are told who waited for it.
    pub(crate) verdict: Verdict,
    /// What the runtime printed, for the first of them.
    pub(crate) log: Option<Arc<SandboxLog>>,
    /// How long it took to fail.
    pub(crate) took: Duration,
}

/// A sandbox that was started, and where its shim and runtime will call.
#[derive(Debug)]
struct StartedSandbox {
    body: SandboxParts,
    output: File,
    control: StdListener,
    data: StdListener,
}

/// A sandbox and what is its own.
#[derive(Debug)]
struct SandboxParts {
    id: InstanceId,
    uid: SandboxUserId,
    run_dir: PathBuf,
    sandbox: Box<dyn Sandbox>,
}

/// A cold start under way.
#[derive(Clone, Debug)]
struct ColdStartProgress {
    revision: Arc<Revision>,
    begun: Instant,
    /// From `begun` until the code was on this node.
    code: Duration,
    from_prewarmed: bool,
}

/// What the talk with a runtime that is ready leaves behind.
#[derive(Debug)]
struct ReadyRuntime {
    attached: AttachedShim,
    loaded: LoadedRuntime,
}

impl SandboxLauncher {
    /// Starts a sandbox and waits until the user's code is loaded. Run in a task that nobody drops
    /// half-way. Bounded by `start_timeout` and the function's own time for loading.
    ///
    /// # Errors
    /// [`StartFailure`]: the function's fault or ours, as its verdict says.
    pub(crate) async fn launch(
        &self,
        revision: &Arc<Revision>,
        place: CapacityReservation,
    ) -> Result<LaunchedSandbox, StartFailure> {
        let begun = Instant::now();
        let failed = |verdict| StartFailure { verdict, log: None, took: begun.elapsed() };
        let code_dir = self.code_dir(revision).await.map_err(failed)?;
        let (revision, code) = (Arc::clone(revision), begun.elapsed());
        let whose = SandboxOwner::Function {
            function: revision.function.clone(),
            version: revision.version,
            code_dir,
        };
        let raised = self.raise(self.kind(&revision), whose).await.map_err(failed)?;
        place.is_up();
        let StartedSandbox { body, output, control, data } = raised;
        let log = Arc::new(SandboxLog::new(output, Arc::clone(&revision), self.outlet.clone()));
        let start = start_of(&revision, &self.options);
        let talk = async {
            let wait = self.options.start_timeout();
            let sandbox = body.sandbox.as_ref();
            let mut attached = handshake::attach(control, &body.run_dir, sandbox, wait).await?;
            attached.control.send_json(FrameKind::Start, &start).await?;
            let load = async {
                handshake::load(handshake::runtime(data, &body.run_dir).await?, &start.init).await
            };
            let load = handshake::or_ended(load, &mut attached.control);
            let loaded = time::timeout(revision.config.init_timeout, load).await;
            Ok(ReadyRuntime { attached, loaded: loaded.unwrap_or(Err(StartupError::TimedOut))? })
        };
        let talked = self.unless_cut(&log, talk).await;
        let course = ColdStartProgress { revision, begun, code, from_prewarmed: false };
        self.conclude(&course, (body, place), log, talked).await
    }

    /// What kind of sandbox a function needs.
    pub(crate) fn kind(&self, revision: &Revision) -> SandboxShape {
        let config = &revision.config;
        let family = config.runtime.family();
        SandboxShape {
            family,
            network: match config.network {
                None => self.backend.default_network(family),
                Some(true) => NetworkAccess::Bridge,
                Some(false) => NetworkAccess::None,
            },
            memory_mb: config.memory_mb,
        }
    }

    /// The unpacked package.
    async fn code_dir(&self, revision: &Revision) -> Result<PathBuf, Verdict> {
        self.packages.folder(&revision.code).await.map_err(|error| match error {
            PackageError::Missing(_) => refused(error.to_string()),
            PackageError::Refused(_) | PackageError::Digest { .. } | PackageError::Io(_) => {
                tracing::error!(%error, function = %revision.function, "Could not get a package");
                refused("the function's package cannot be had".into())
            }
        })
    }

    /// Starts a sandbox, whose shim has not yet called. Nothing is left where that fails.
    async fn raise(
        &self,
        kind: SandboxShape,
        whose: SandboxOwner,
    ) -> Result<StartedSandbox, Verdict> {
        let id = InstanceId::new();
        let uid = self.uids.take().ok_or_else(|| refused("no user id is free".into()))?;
        let run_dir = RunDir::make(&self.options.run_dir, id, uid.number()).map_err(|error| {
            tracing::error!(%error, path = %self.options.run_dir.display(), "Could not make a run folder");
            refused("the node could not make the sandbox's run folder".into())
        })?;
        let RunDir { path: run_dir, control, data, output } = run_dir;
        let spec = SandboxSpec {
            instance: id,
            node: self.node.clone(),
            whose,
            family: kind.family,
            memory_mb: kind.memory_mb,
            cpu_milli: self.options.cpu_milli,
            network: kind.network,
            pids_max: PIDS_MAX,
            open_files_max: OPEN_FILES_MAX,
            uid: uid.number(),
            run_dir: run_dir.clone(),
        };
        match self.backend.start(&spec).await {
            Ok(sandbox) => Ok(StartedSandbox {
                body: SandboxParts { id, uid, run_dir, sandbox },
                output,
                control,
                data,
            }),
            Err(error) => {
                run_dir::remove(&run_dir);
                Err(start_error(&error, id))
            }
        }
    }

    /// The talk's end, or that of the node's patience. Reads the output meanwhile.
    async fn unless_cut<T>(
        &self,
        log: &SandboxLog,
        talk: impl Future<Output = Result<T, StartupError>>,
    ) -> Result<T, StartupError> {
        tokio::select! {
            talked = talk => talked,
            () = self.cut.cancelled() => Err(StartupError::Broken("this node is stopping".into())),
            () = log.follow() => Err(StartupError::Broken("its output cannot be read".into())),
        }
    }

    /// A sandbox that is ready; or one that is none, and is removed.
    async fn conclude(
        &self,
        course: &ColdStartProgress,
        (body, place): (SandboxParts, CapacityReservation),
        log: Arc<SandboxLog>,
        talked: Result<ReadyRuntime, StartupError>,
    ) -> Result<LaunchedSandbox, StartFailure> {
        let ColdStartProgress { revision, begun, .. } = course;
        let ReadyRuntime { attached, loaded } = match talked {
            Ok(talked) => talked,
            Err(hitch) => {
                let verdict = verdict_of(hitch, revision, body.sandbox.as_ref(), body.id);
                body.remove().await;
                return Err(StartFailure { verdict, log: Some(log), took: begun.elapsed() });
            }
        };
        let SandboxParts { id, uid, run_dir, sandbox } = body;
        let cold_start = course.cold_start(&loaded, sandbox.as_ref());
        let instance = SandboxInstance {
            id,
            watch: Arc::new(EventWatch::new(Arc::clone(&log))),
            log,
            leash: SandboxHandle::new(attached.twin, loaded.twin),
            init: cold_start.total,
            cold_start,
            sandbox,
            run_dir,
            belongings: Mutex::new(Some((uid, place))),
            vitals: InstanceStats::new(),
        };
        Ok(LaunchedSandbox { instance, conn: loaded.conn, control: attached.control })
    }
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
    async fn remove(self) {
        self.sandbox.stop().await;
        run_dir::remove(&self.run_dir);
    }
}
