//! Prewarmed sandboxes: their runtime is up and waits without a function. One is given the code,
//! environment and name of one function, and serves it for the rest of its life.

use std::fs::File;
use std::sync::Arc;

use hanshu_core::Revision;
use hanshu_runtimes::wire::{FrameKind, PrewarmedInit};
use tokio::net::UnixStream;
use tokio::time::{self, Instant};

use super::handshake::{self, AttachedShim, StartupError};
use super::launcher::{
    ColdStartProgress, LaunchedSandbox, ReadyRuntime, SandboxLauncher, SandboxParts, StartFailure,
    StartedSandbox,
};
use crate::backend::port::SandboxOwner;
use crate::sandbox::capacity::CapacityReservation;
use crate::sandbox::logs::SandboxLog;
use crate::sandbox::shape::SandboxShape;
use crate::sandbox::start_message::{prewarmed_start_message, start_message};

/// A sandbox without a function, whose runtime is up. Dropping it stops nothing: see
/// [`PrewarmedSandbox::discard`].
#[derive(Debug)]
pub(crate) struct PrewarmedSandbox {
    shape: SandboxShape,
    parts: SandboxParts,
    output: File,
    shim: AttachedShim,
    runtime: UnixStream,
    /// Whether it was frozen, and must be thawed.
    frozen: bool,
}

/// Why a prewarmed sandbox did not become a function's sandbox. It is gone.
#[derive(Debug)]
pub(crate) enum SpecializeError {
    /// It was lost while it waited, which is no failure of the start: its room is there for another
    /// sandbox.
    Lost(CapacityReservation),
    /// The function's start failed.
    Failed(StartFailure),
}

impl SandboxLauncher {
    /// Starts a prewarmed sandbox.
    ///
    /// # Errors
    /// Why not, for the log. Nothing of it is left then.
    pub(crate) async fn prewarm(
        &self,
        shape: SandboxShape,
        capacity: CapacityReservation,
    ) -> Result<PrewarmedSandbox, String> {
        let started = self.start_sandbox(shape, SandboxOwner::Unassigned, None, capacity).await;
        let started = started.map_err(|verdict| format!("{verdict:?}"))?;
        let StartedSandbox { parts, output, control, data } = started;
        let startup = async {
            let wait = self.options.start_timeout();
            let sandbox = parts.sandbox.as_ref();
            let mut shim = handshake::attach_shim(control, &parts.run_dir, sandbox, wait).await?;
            let start = prewarmed_start_message(shape, &self.options);
            shim.conn.send_json(FrameKind::Start, &start).await?;
            let runtime = handshake::accept_runtime(data, &parts.run_dir);
            let runtime = handshake::unless_ended(runtime, &mut shim.conn);
            let runtime = time::timeout(wait, runtime).await;
            Ok((shim, runtime.unwrap_or(Err(StartupError::TimedOut))?))
        };
        let result = tokio::select! {
            result = startup => result,
            () = self.abort.cancelled() => {
                Err(StartupError::Broken("this node is stopping".into()))
            }
        };
        match result {
            Ok((shim, runtime)) => {
                // It has nothing to do until its function comes; it need not be frozen for that.
                let frozen = 0 < self.options.freeze_after_ms && parts.sandbox.freeze();
                Ok(PrewarmedSandbox { shape, parts, output, shim, runtime, frozen })
            }
            Err(error) => {
                drop(parts.remove().await);
                Err(error.to_string())
            }
        }
    }

    /// Makes the prewarmed sandbox a sandbox of the revision and waits until its code is loaded. Run
    /// in a task that is never dropped.
    ///
    /// # Errors
    /// [`SpecializeError`].
    pub(crate) async fn specialize(
        &self,
        prewarmed: PrewarmedSandbox,
        revision: &Arc<Revision>,
    ) -> Result<LaunchedSandbox, SpecializeError> {
        let begun = Instant::now();
        let code_dir = match self.code_dir(revision).await {
            Ok(code_dir) => code_dir,
            Err(verdict) => {
                prewarmed.discard().await;
                let took = begun.elapsed();
                return Err(SpecializeError::Failed(StartFailure { verdict, log: None, took }));
            }
        };
        let progress = ColdStartProgress {
            revision: Arc::clone(revision),
            begun,
            code: begun.elapsed(),
            from_prewarmed: true,
        };
        let thawed = !prewarmed.frozen || prewarmed.parts.sandbox.thaw();
        let given = prewarmed.parts.sandbox.give_code(&code_dir).await;
        if !thawed || given.is_err() || !prewarmed.is_alive() {
            let (instance, error) =
                (prewarmed.parts.id, given.err().map(|error| error.to_string()));
            tracing::warn!(%instance, thawed, error, "A prewarmed sandbox was lost");
            return Err(SpecializeError::Lost(prewarmed.parts.remove().await));
        }
        let PrewarmedSandbox { parts, output, mut shim, runtime, .. } = prewarmed;
        let log = Arc::new(SandboxLog::new(output, Arc::clone(revision), self.sink.clone()));
        let start = start_message(revision, &self.options);
        let startup = async {
            let init = PrewarmedInit { init: &start.init, env: &start.env };
            let load = handshake::unless_ended(handshake::load(runtime, &init), &mut shim.conn);
            let loaded = time::timeout(revision.config.init_timeout, load).await;
            Ok(ReadyRuntime { loaded: loaded.unwrap_or(Err(StartupError::TimedOut))?, shim })
        };
        let runtime = self.unless_aborted(&log, startup).await;
        let finished = self.finish_start(&progress, parts, log, runtime).await;
        finished.map_err(SpecializeError::Failed)
    }
}

impl PrewarmedSandbox {
    pub(crate) fn shape(&self) -> SandboxShape {
        self.shape
    }

    /// Its room on the node: little, until it is given a function's.
    pub(crate) fn capacity(&mut self) -> &mut CapacityReservation {
        &mut self.parts.resources.capacity
    }

    /// Whether its shim is connected, as far as is known.
    pub(crate) fn is_alive(&self) -> bool {
        self.shim.conn.is_silent()
    }

    /// Ends and removes it. Run in a task that is never dropped.
    pub(crate) async fn discard(mut self) {
        self.capacity().mark_leaving();
        drop(self.parts.remove().await);
    }
}
