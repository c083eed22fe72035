//! Polls accepted events until the server reports that they have ended.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::{LoadClient, ServerUnderTest};
use crate::http_client::{ClientConnection, RequestFailure, TransferPace, request};

/// Pause between two rounds over all open events.
const ROUND_PAUSE: Duration = Duration::from_millis(500);
/// Pause between two requests.
const ASK_PAUSE: Duration = Duration::from_millis(5);
const ENDS: [&str; 4] = ["succeeded", "failed", "expired", "cancelled"];

/// What the server reports of an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EventState {
    Ended,
    Open,
    /// The server does not know it.
    Unknown,
    /// No usable answer.
    NoAnswer(String),
}

/// Asks for the state of one accepted event, and notes its end in the ledger.
pub(crate) async fn poll_state(
    target: &ServerUnderTest,
    connection: &mut ClientConnection,
    request_id: &str,
) -> EventState {
    let authorization = target.access.authorization();
    let path = format!("/v1/invocations/{request_id}");
    let bytes = request("GET", &path, &[("authorization", &authorization)], b"");
    match connection.exchange(&bytes, TransferPace::Quick).await {
        Ok(answer) if answer.status == 200 => {
            let view: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let state = view["state"].as_str().unwrap_or_default();
            if !ENDS.contains(&state) {
                return EventState::Open;
            }
            target.ledger.event_ended(request_id, state);
            let was_cancelled = state == "cancelled" && target.ledger.cancel_was_asked(request_id);
            if state != "succeeded" && !was_cancelled {
                target
                    .report_violation(&format!("the accepted event {request_id} {state}: {view}"));
            }
            EventState::Ended
        }
        Ok(answer) if answer.status == 404 => EventState::Unknown,
        Ok(answer) => EventState::NoAnswer(answer.status.to_string()),
        Err(RequestFailure::Malformed(what)) => {
            target.report_violation(&format!("the state of {request_id}: {what}"));
            EventState::NoAnswer(what)
        }
        Err(failure) => EventState::NoAnswer(format!("{failure:?}")),
    }
}

impl LoadClient {
    /// Polls all open events, round after round.
    pub(super) async fn poll_states(self) {
        let mut connection = ClientConnection::to(&self.target.access.api);
        let mut lost = std::collections::HashSet::new();
        while self.stop.run_until_cancelled(sleep(ROUND_PAUSE)).await.is_some() {
            for request_id in self.target.ledger.open_request_ids() {
                if self.stop.is_cancelled() {
                    return;
                }
                let since = std::time::Instant::now();
                let state = poll_state(&self.target, &mut connection, &request_id).await;
                match state {
                    EventState::Unknown if lost.insert(request_id.clone()) => {
                        self.target.report_violation(&format!(
                            "the accepted event {request_id} is unknown"
                        ));
                    }
                    EventState::NoAnswer(what) if !self.target.is_explained(since) => {
                        self.target.report_violation(&format!("the state of {request_id}: {what}"));
                    }
                    EventState::Ended
                    | EventState::Open
                    | EventState::Unknown
                    | EventState::NoAnswer(_) => {}
                }
                sleep(ASK_PAUSE).await;
            }
        }
    }
}
