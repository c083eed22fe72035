//! Invalid requests: truncated, oversized, unauthorised, malformed and slow ones.

use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::{LoadClient, SentCall, ServerUnderTest};
use crate::http_client::{ClientConnection, HttpAnswer, RequestFailure, TransferPace, request};
use crate::run_ledger::CallKind;
use crate::test_function::{QUEUED, SYNC, WorkRequest};

/// Largest event of a synchronous and of a queued call, bytes.
const SYNC_BYTES: usize = 6 * 1024 * 1024;
const QUEUED_BYTES: usize = 128 * 1024;
/// Kinds of requests: 0 to 3 are valid but truncated, slow or large, the others must be refused.
const KINDS: u32 = 12;

/// A request that the server must refuse, and how it may do so.
#[derive(Debug)]
struct InvalidRequest {
    name: &'static str,
    bytes: Vec<u8>,
    statuses: &'static [u16],
    /// The server may also close the connection.
    may_disconnect: bool,
}

impl InvalidRequest {
    fn new(name: &'static str, bytes: Vec<u8>, statuses: &'static [u16]) -> Self {
        Self { name, bytes, statuses, may_disconnect: false }
    }

    fn may_disconnect(self) -> Self {
        Self { may_disconnect: true, ..self }
    }
}

impl LoadClient {
    /// Sends invalid and extreme requests of all kinds, one after the other.
    pub(super) async fn send_invalid_requests(mut self) {
        while self.pause().await {
            let number = self.target.ledger.next_event_number();
            match self.rng.random_range(0..KINDS) {
                0 => self.send_truncated(number).await,
                1 => {
                    let ask = WorkRequest { answer: 300_000, ..WorkRequest::default() };
                    let pace = TransferPace::Slow(16 * 1024, Duration::from_millis(20));
                    self.run(number, ask, pace).await;
                }
                2 => {
                    let ask = WorkRequest { pad: 2_000, ..WorkRequest::default() };
                    let pace = TransferPace::Slow(64, Duration::from_millis(10));
                    self.run(number, ask, pace).await;
                }
                3 => {
                    let pad =
                        SYNC_BYTES - WorkRequest::default().event(CallKind::Sync, number).len();
                    let ask = WorkRequest { pad, ..WorkRequest::default() };
                    self.run(number, ask, TransferPace::Quick).await;
                }
                kind => {
                    let invalid = self.target.invalid_request(kind, number);
                    let at = Instant::now();
                    let mut connection = ClientConnection::to(&self.target.access.api);
                    let answered = connection.exchange(&invalid.bytes, TransferPace::Quick).await;
                    self.check_refusal(number, at, &invalid, answered);
                }
            }
        }
    }

    /// Sends a part of a request and disconnects.
    async fn send_truncated(&mut self, number: u64) {
        self.target.count(CallKind::Invalid, "truncated request");
        let event = WorkRequest::default().event(CallKind::Invalid, number);
        let missing = self.rng.random_range(1..event.len());
        let whole = self.target.api(&path_of(SYNC), &[], &event);
        let part = whole.get(..whole.len() - missing).unwrap_or_default();
        // It does not matter whether a truncated request reaches the server.
        let _ = ClientConnection::to(&self.target.access.api).send_and_leave(part).await;
    }

    /// A valid call, sent and read slowly or as large as permitted.
    async fn run(&self, number: u64, ask: WorkRequest, pace: TransferPace) {
        let at = Instant::now();
        let bytes = self.target.api(&path_of(SYNC), &[], &ask.event(CallKind::Sync, number));
        let answered = ClientConnection::to(&self.target.access.api).exchange(&bytes, pace).await;
        self.target.check_answer(&SentCall { kind: CallKind::Sync, number, ask, at }, answered);
    }

    fn check_refusal(
        &self,
        number: u64,
        at: Instant,
        invalid: &InvalidRequest,
        answered: Result<HttpAnswer, RequestFailure>,
    ) {
        let name = invalid.name;
        match answered {
            Ok(answer) if invalid.statuses.contains(&answer.status) => {
                self.target.count(CallKind::Invalid, format!("{name}: {}", answer.status));
            }
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body);
                let body: String = body.chars().take(200).collect();
                self.target.report_violation(&format!(
                    "{name} (event {number}): {}: {body}",
                    answer.status
                ));
            }
            Err(RequestFailure::Disconnected(_)) if invalid.may_disconnect => {
                self.target.count(CallKind::Invalid, format!("{name}: disconnected"));
            }
            Err(failure) => {
                self.target.check_missing_answer(CallKind::Invalid, number, at, &failure);
            }
        }
    }
}

impl ServerUnderTest {
    fn invalid_request(&self, kind: u32, number: u64) -> InvalidRequest {
        let path = path_of(SYNC);
        let small = WorkRequest::default().event(CallKind::Invalid, number);
        let api = |body: &[u8]| self.api(&path, &[], body);
        match kind {
            4 => {
                let key = [("authorization", "Basic bm86eWVz")];
                InvalidRequest::new("wrong key", request("POST", &path, &key, &small), &[401])
            }
            5 => {
                let cut = small.get(..small.len() - 1).unwrap_or_default();
                InvalidRequest::new("invalid JSON", api(cut), &[400])
            }
            6 => InvalidRequest::new("not UTF-8", api(b"{\"a\": \"\xff\"}"), &[400]),
            7 => {
                let event = sized(CallKind::Invalid, number, SYNC_BYTES + 1);
                InvalidRequest::new("6 MB + 1", api(&event), &[413]).may_disconnect()
            }
            8 => {
                let event = sized(CallKind::Invalid, number, QUEUED_BYTES + 1);
                let bytes = self.api(&path_of(QUEUED), &[("prefer", "respond-async")], &event);
                InvalidRequest::new("128 KB + 1", bytes, &[413]).may_disconnect()
            }
            9 => {
                let bytes = self.api(&path_of("no-such-function"), &[], &small);
                InvalidRequest::new("unknown function", bytes, &[404])
            }
            10 => {
                let garbage = b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_vec();
                InvalidRequest::new("not HTTP", garbage, &[400]).may_disconnect()
            }
            _ => {
                let long = "x".repeat(1_000_000);
                let bytes = request("POST", &path, &[("x-long", &long)], &small);
                InvalidRequest::new("head of 1 MB", bytes, &[400, 431]).may_disconnect()
            }
        }
    }
}

fn path_of(function: &str) -> String {
    format!("/v1/functions/{function}/invocations")
}

/// An event of exactly this many bytes.
fn sized(kind: CallKind, number: u64, bytes: usize) -> Vec<u8> {
    let pad = bytes - WorkRequest::default().event(kind, number).len();
    WorkRequest { pad, ..WorkRequest::default() }.event(kind, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sized_event_has_its_size() {
        assert_eq!(sized(CallKind::Invalid, 12, SYNC_BYTES + 1).len(), SYNC_BYTES + 1);
    }
}
