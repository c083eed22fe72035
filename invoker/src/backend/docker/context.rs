//! What the backend and its sandboxes share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hanshu_core::RuntimeFamily;

use super::engine::{DockerEngine, EngineError};
use super::images::state::ImageStates;
use super::slots::PrewarmMounts;
use super::sweep::ContainerSweeper;
use crate::backend::port::StartError;
use crate::backend::tmp::TmpPool;

/// What sandboxes need to remove themselves.
#[derive(Debug)]
pub(super) struct DockerContext {
    pub(super) engine: Arc<DockerEngine>,
    pub(super) tmp: TmpPool,
    /// Where prewarmed sandboxes get their code, or why there can be none.
    pub(super) slots: Result<PrewarmMounts, String>,
    pub(super) sweeper: Arc<ContainerSweeper>,
    /// Whether the first sweep was; from then on, each return of the engine sweeps.
    pub(super) swept: AtomicBool,
    pub(super) images: Arc<ImageStates>,
}

impl DockerContext {
    /// An image is made at the deploy, or when a node joins; who comes earlier is told so.
    pub(super) fn explained(&self, error: EngineError, family: RuntimeFamily) -> StartError {
        match error {
            EngineError::NotFound { what: "create a container", message } => {
                StartError::Image(self.images.why_missing(family, &message))
            }
            error => error.into(),
        }
    }
}
