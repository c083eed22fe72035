//! The recorder of this process' metrics, and those that the server itself records.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hanshu_core::ports::{EventQueue, QueueStats};
use metrics::{Unit, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// The process' metrics recorder, installed at the first call; `None` if there was another one.
pub(crate) fn recorder() -> Option<PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().install_recorder().ok()).clone()
}

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Aggregates samples periodically, so that they do not accumulate if `/metrics` is never read.
pub(crate) async fn run_upkeep(stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(UPKEEP_INTERVAL)).await.is_some() {
        if let Some(recorder) = recorder() {
            recorder.run_upkeep();
        }
    }
}

const QUEUE_DEPTH_INTERVAL: Duration = Duration::from_secs(5);
const WAITING: &str = "hanshu_queue_waiting";
const RUNNING: &str = "hanshu_queue_running";

/// Records how many events wait and run, over all queues, since queue names are unbounded.
pub(crate) async fn record_queue_depths(queue: Arc<dyn EventQueue>, stop: CancellationToken) {
    describe_gauge!(WAITING, Unit::Count, "Events that wait, in all queues together");
    describe_gauge!(RUNNING, Unit::Count, "Events that a dispatcher has claimed");
    while stop.run_until_cancelled(tokio::time::sleep(QUEUE_DEPTH_INTERVAL)).await.is_some() {
        let Ok(queues) = queue.stats().await else { continue };
        let sum = |depth: fn(&QueueStats) -> u64| {
            u32::try_from(queues.iter().map(depth).sum::<u64>()).unwrap_or(u32::MAX)
        };
        gauge!(WAITING).set(sum(|queue| queue.waiting));
        gauge!(RUNNING).set(sum(|queue| queue.running));
    }
}
