//! What the backend and its sandboxes share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hanshu_core::RuntimeFamily;

use super::engine::{Engine, EngineError};
use super::images::state::ImageStates;
use super::slots::Slots;
use super::sweep::Sweeper;
use crate::backend::port::StartError;
use crate::backend::tmp::TmpPool;

/// What sandboxes need to remove themselves.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) engine: Arc<Engine>,
    pub(super) tmp: TmpPool,
    /// Where prewarmed sandboxes get their code, or why there can be none.
    pub(super) slots: Result<Slots, String>,
    pub(super) sweeper: Arc<Sweeper>,
    /// Whether the first sweep was; from then on, each return of the engine sweeps.
    pub(super) swept: AtomicBool,
    pub(super) images: Arc<ImageStates>,
}

impl Shared {
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
