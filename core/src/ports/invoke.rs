//! Running an invocation, here or on another node.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::id::RequestId;
use crate::invocation::Invocation;
use crate::outcome::Outcome;
use crate::runtime::RuntimeFamily;

/// Runs invocations, in this process or on another node.
#[async_trait]
pub trait Invoke: Send + Sync {
    /// Runs one invocation to its one outcome. There is no error beside it: whatever goes wrong is
    /// part of the verdict. Dropping the future gives the answer up, never the sandbox.
    async fn invoke(&self, invocation: Invocation) -> Outcome;

    /// Cancels an invocation that runs or waits for a sandbox. One that waits ends at once; one that
    /// runs is sent SIGTERM, and its sandbox is stopped when the node's grace is over. Its
    /// outcome is [`Failure::cancelled`](crate::Failure::cancelled), unless it returned a value before
    /// the signal took effect. Returns without waiting for the outcome. May be repeated.
    async fn cancel(&self, request_id: RequestId) -> CancelReach;
}

/// Whether a cancellation reached what runs the invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReach {
    /// The invocation was found, and ends within the grace.
    Reached,
    /// It neither runs nor waits for a sandbox.
    NotFound,
    /// It was not found, but not every node could be asked.
    Unknown,
}

/// Receives the progress of long work, line by line; it must not block. (An alias of its own, since `async_trait`
/// would tie a bare `Fn(&str)` to one lifetime that no implementation could call it with.)
pub type BuildProgress<'a> = &'a (dyn Fn(&str) + Send + Sync + 'a);

/// Makes the image that functions of a family run in.
#[async_trait]
pub trait ImageBuilder: Send + Sync {
    /// Returns at once if the image is there or none is needed; else builds it and reports progress
    /// line by line. `progress` must not block.
    ///
    /// # Errors
    /// The image could not be made; the message names what was missing and what to do.
    async fn ensure(
        &self,
        family: RuntimeFamily,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError>;

    /// Removes images that this node made by recipes of an earlier program and that nothing uses
    /// any more; returns how many.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn collect(&self) -> Result<u64, ImageError> {
        Ok(0)
    }
}

/// An image could not be made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ImageError(pub String);
