//! Fills the history from the stream of ended events, in batches, at its own pace.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::Backoff;
use hanshu_core::ports::{EndedEventReader, EndedEvents, InvocationHistory};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Events in one batch.
const BATCH_MAX: usize = 500;
/// Between two looks where nothing ended.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// After failures in a row.
const FAILURE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Moves ended events into the history.
pub(crate) struct HistoryWriter {
    pub(crate) ended: Arc<dyn EndedEvents>,
    pub(crate) history: Arc<dyn InvocationHistory>,
}

impl HistoryWriter {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            match self.move_batch().await {
                // More may be there.
                Ok(BATCH_MAX) => failures = 0,
                Ok(_) => {
                    failures = 0;
                    stop.run_until_cancelled(self.ended.changed(IDLE_WAIT)).await;
                }
                Err(reason) => {
                    warn!(reason, "Ended events could not be moved into the history");
                    failures += 1;
                    let wait = tokio::time::sleep(FAILURE_BACKOFF.delay(failures));
                    stop.run_until_cancelled(wait).await;
                }
            }
        }
    }

    /// Returns how many ended events it has moved, or taken over.
    async fn move_batch(&self) -> Result<usize, String> {
        let reader = EndedEventReader::History;
        let taken = self.ended.take_over(BATCH_MAX).await.map_err(|error| error.to_string())?;
        let batch = self.ended.read(reader, BATCH_MAX).await.map_err(|error| error.to_string())?;
        let Some(position) = batch.position else { return Ok(taken) };
        self.history.record(&batch.events).await.map_err(|error| error.to_string())?;
        self.ended.confirm(reader, position).await.map_err(|error| error.to_string())?;
        Ok(batch.events.len().max(taken))
    }
}
