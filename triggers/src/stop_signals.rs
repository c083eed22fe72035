//! Stopping in two steps: first no new work is taken, then, after a grace, running work is cut off.

use tokio_util::sync::CancellationToken;

/// The two signals that every long-running part of this crate obeys. Its `run` returns when its
/// work has ended or was cut off.
#[derive(Clone, Debug, Default)]
pub struct StopSignals {
    /// Cancelled first: no more ticks, claims or reads.
    pub intake: CancellationToken,
    /// Cancelled when the grace is over: what still runs is put back into its queue.
    pub work: CancellationToken,
}
