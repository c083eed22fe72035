//! Stopping in two halves: first no new work, then, after a grace, no work at all.

use tokio_util::sync::CancellationToken;

/// What long-running parts heed. Their `run` returns when their work has drained, or was cut off.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Cancelled first: no ticks, claims or reads any more.
    pub intake: CancellationToken,
    /// Cancelled when the grace is over: what still runs is given back.
    pub work: CancellationToken,
}
