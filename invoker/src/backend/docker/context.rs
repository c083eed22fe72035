//! What the Docker backend and its sandboxes share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::engine::{DockerEngine, EngineError};
use super::images::state::ImageStates;
use super::prewarm_mounts::PrewarmMounts;
use super::sweep::ContainerSweeper;
use crate::backend::port::StartError;
use crate::backend::tmp::TmpPool;

/// The request that fails with [`EngineError::NotFound`] where the image is missing.
pub(super) const CREATE_CONTAINER: &str = "create a container";

/// What the Docker backend and its sandboxes share.
#[derive(Debug)]
pub(super) struct DockerContext {
    pub(super) engine: Arc<DockerEngine>,
    pub(super) tmp: TmpPool,
    /// Through which prewarmed sandboxes get their code, or why there can be none.
    pub(super) prewarm_mounts: Result<PrewarmMounts, String>,
    pub(super) sweeper: Arc<ContainerSweeper>,
    /// Whether the first sweep is over; from then on, each return of the engine sweeps.
    pub(super) swept: AtomicBool,
    pub(super) image_states: Arc<ImageStates>,
}

impl DockerContext {
    /// Why a sandbox did not start. An image is made at the deploy, or when a node joins; whoever
    /// needs it earlier is told that it is missing.
    pub(super) fn to_start_error(&self, error: EngineError, image: &str) -> StartError {
        match error {
            EngineError::NotFound { what: CREATE_CONTAINER, message } => {
                StartError::Image(self.image_states.explain_missing(image, &message))
            }
            error => error.into(),
        }
    }
}
