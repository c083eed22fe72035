//! Prewarmed sandboxes: sandboxes whose runtime is up and waits, without a function. One is given code,
//! environment and name of one function, and serves it for the rest of its life.

use std::fs::File;
use std::sync::Arc;

use hanshu_core::Revision;
use hanshu_runtimes::wire::{FrameKind, PrewarmedInit};
use tokio::net::UnixStream;
use tokio::time::{self, Instant};

use super::handshake::{self, AttachedShim, StartupError};
use super::{
    ColdStartProgress, LaunchedSandbox, ReadyRuntime, SandboxLauncher, SandboxParts, StartFailure,
    StartedSandbox,
};
use crate::backend::port::SandboxOwner;
use crate::sandbox::capacity::CapacityReservation;
use crate::sandbox::logs::SandboxLog;
use crate::sandbox::shape::SandboxShape;
use crate::sandbox::start_message::{start_of, start_of_prewarmed};

/// A sandbox without a function, whose runtime is up. Dropping it stops nothing: see
/// [`PrewarmedSandbox::discard`].
#[derive(Debug)]
pub(crate) struct PrewarmedSandbox {
    kind: SandboxShape,
    body: SandboxParts,
    output: File,
    attached: AttachedShim,
    runtime: UnixStream,
    /// Its own small room, until it is given a function's.
    place: CapacityReservation,
    /// Whether it was frozen, and must be thawed.
    frozen: bool,
}

/// Why a prewarmed sandbox did not become a function's sandbox. It is gone.
#[derive(Debug)]
pub(crate) enum SpecializeError {
    /// It was lost while it waited, which is nobody's fault: its room is there for another start.
    Lost(CapacityReservation),
    /// The function's start failed.
    Failed(StartFailure),
}

impl SandboxLauncher {
    /// Makes a prewarmed sandbox in `place`.
    ///
    /// # Errors
    /// Why not; for the log. Nothing is left then.
    pub(crate) async fn make_prewarmed(
        &self,
        kind: SandboxShape,
        place: CapacityReservation,
    ) -> Result<PrewarmedSandbox, String> {
        let raised = self.raise(kind, SandboxOwner::Unassigned).await;
        let raised = raised.map_err(|verdict| format!("{verdict:?}"))?;
        let StartedSandbox { body, output, control, data } = raised;
        let talk = async {
            let wait = self.options.start_timeout();
            let sandbox = body.sandbox.as_ref();
            let mut attached = handshake::attach(control, &body.run_dir, sandbox, wait).await?;
            let start = start_of_prewarmed(&kind, &self.options);
            attached.control.send_json(FrameKind::Start, &start).await?;
            let runtime = handshake::runtime(data, &body.run_dir);
            let runtime = handshake::or_ended(runtime, &mut attached.control);
            let runtime =
                time::timeout(wait, runtime).await.unwrap_or(Err(StartupError::TimedOut))?;
            Ok((attached, runtime))
        };
        let talked = tokio::select! {
            talked = talk => talked,
            () = self.cut.cancelled() => Err(StartupError::Broken("this node is stopping".into())),
        };
        match talked {
            Ok((attached, runtime)) => {
                // It waits for a word and nothing else; where it cannot be frozen, it just waits.
                let frozen = 0 < self.options.freeze_after_ms && body.sandbox.freeze();
                Ok(PrewarmedSandbox { kind, body, output, attached, runtime, place, frozen })
            }
            Err(hitch) => {
                body.remove().await;
                Err(hitch.text())
            }
        }
    }

    /// Makes the prewarmed sandbox a sandbox of the revision and waits until its code is loaded. Run in a
    /// task that nobody drops half-way.
    ///
    /// # Errors
    /// [`SpecializeError`].
    pub(crate) async fn specialise(
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
        let course = ColdStartProgress {
            revision: Arc::clone(revision),
            begun,
            code: begun.elapsed(),
            from_prewarmed: true,
        };
        let thawed = !prewarmed.frozen || prewarmed.body.sandbox.thaw();
        let shown = prewarmed.body.sandbox.give_code(&code_dir).await;
        if !thawed || shown.is_err() || !prewarmed.is_alive() {
            let error = shown.err().map(|error| error.to_string());
            tracing::warn!(instance = %prewarmed.body.id, thawed, error, "A prewarmed sandbox was lost");
            return Err(SpecializeError::Lost(prewarmed.dismantle().await));
        }
        let PrewarmedSandbox { body, output, mut attached, runtime, place, .. } = prewarmed;
        let log = Arc::new(SandboxLog::new(output, Arc::clone(revision), self.outlet.clone()));
        let start = start_of(revision, &self.options);
        let talk = async {
            let init = PrewarmedInit { init: &start.init, env: &start.env };
            let load = handshake::or_ended(handshake::load(runtime, &init), &mut attached.control);
            let loaded = time::timeout(revision.config.init_timeout, load).await;
            Ok(ReadyRuntime { loaded: loaded.unwrap_or(Err(StartupError::TimedOut))?, attached })
        };
        let talked = self.unless_cut(&log, talk).await;
        self.conclude(&course, (body, place), log, talked).await.map_err(SpecializeError::Failed)
    }
}

impl PrewarmedSandbox {
    pub(crate) fn kind(&self) -> SandboxShape {
        self.kind
    }

    /// Its room on the node.
    pub(crate) fn place(&mut self) -> &mut CapacityReservation {
        &mut self.place
    }

    /// Whether its shim is there, as far as is known.
    pub(crate) fn is_alive(&self) -> bool {
        self.attached.control.is_silent()
    }

    /// Ends and removes it. Run in a task that nobody drops half-way.
    pub(crate) async fn discard(mut self) {
        self.place.leave();
        drop(self.dismantle().await);
    }

    async fn dismantle(self) -> CapacityReservation {
        let Self { body, place, .. } = self;
        body.remove().await;
        place
    }
}
