//! Cancels accepted events at random, whether they wait, run or have just ended.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::time::sleep;

use super::LoadClient;
use crate::http_client::{ClientConnection, TransferPace};
use crate::run_ledger::{CallKind, CancelProgress};

/// Shortest and longest pause between two cancellations, ms.
const PAUSE_MS: std::ops::Range<u64> = 100..1_500;

impl LoadClient {
    /// Cancels events, one after the other.
    pub(super) async fn cancel_events(mut self) {
        let mut connection = ClientConnection::to(&self.target.access.api);
        loop {
            let pause = Duration::from_millis(self.rng.random_range(PAUSE_MS));
            if self.stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
            let mut open = self.target.ledger.open_request_ids();
            if open.is_empty() {
                continue;
            }
            let request_id = open.swap_remove(self.rng.random_range(0..open.len()));
            self.cancel(&mut connection, &request_id).await;
        }
    }

    async fn cancel(&self, connection: &mut ClientConnection, request_id: &str) {
        let target = &self.target;
        // Before it is sent: without an answer it may have been carried out or not.
        target.ledger.set_cancellation(request_id, CancelProgress::Asked);
        let at = Instant::now();
        let bytes = target.api(&format!("/v1/invocations/{request_id}/cancel"), &[], b"");
        match connection.exchange(&bytes, TransferPace::Quick).await {
            Ok(answer) => {
                target.count(CallKind::Cancel, answer.status.to_string());
                match answer.status {
                    200 => target.ledger.set_cancellation(request_id, CancelProgress::Confirmed),
                    202 | 409 => {}
                    503 if target.is_explained(at) => {}
                    status => {
                        let body = String::from_utf8_lossy(&answer.body);
                        target.report_violation(&format!("cancel {request_id}: {status}: {body}"));
                    }
                }
            }
            // The number of the event is unknown here; its request id says which one it is.
            Err(failure) => target.check_missing_answer(CallKind::Cancel, 0, at, &failure),
        }
    }
}
