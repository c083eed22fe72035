//! The load: calls of every kind, and the check of each answer.

mod cancellations;
mod event_states;
mod invalid_requests;
mod valid_calls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::event_log::EventLog;
use crate::http_client::{HttpAnswer, RequestFailure, request};
use crate::run_ledger::{CallKind, RunLedger};
use crate::services::ServerAccess;
use crate::test_function::WorkRequest;

pub(crate) use event_states::{EventState, poll_state};

/// One server with its ledger.
#[derive(Clone, Debug)]
pub(crate) struct ServerUnderTest {
    pub(crate) index: usize,
    pub(crate) access: ServerAccess,
    pub(crate) ledger: Arc<RunLedger>,
    pub(crate) event_log: Arc<EventLog>,
}

/// One client of a server, with a random generator of its own.
#[derive(Debug)]
struct LoadClient {
    target: ServerUnderTest,
    rng: StdRng,
    stop: CancellationToken,
}

/// Number of clients of each kind per server.
const SYNC_CLIENTS: u64 = 3;
const QUEUED_CLIENTS: u64 = 2;
const WEB_CLIENTS: u64 = 2;

/// Starts all clients of a server. Each ends after its current call once `stop` is cancelled.
pub(crate) fn start(
    target: &ServerUnderTest,
    seed: u64,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    let mut number = 0;
    let mut client = || {
        number += 1;
        let own = seed ^ ((target.index as u64) << 56) ^ (number << 48);
        LoadClient { target: target.clone(), rng: StdRng::seed_from_u64(own), stop: stop.clone() }
    };
    for _ in 0..SYNC_CLIENTS {
        tasks.spawn(client().call_sync());
    }
    for _ in 0..QUEUED_CLIENTS {
        tasks.spawn(client().call_queued());
    }
    for _ in 0..WEB_CLIENTS {
        tasks.spawn(client().call_web());
    }
    tasks.spawn(client().send_invalid_requests());
    tasks.spawn(client().poll_states());
    tasks.spawn(client().cancel_events());
}

impl LoadClient {
    /// Pauses between two calls; `false` when it is time to stop.
    async fn pause(&mut self) -> bool {
        let pause = Duration::from_millis(self.rng.random_range(5..120));
        self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }

    /// Mostly small, sometimes large; at most `largest` bytes.
    fn ask(&mut self, largest: usize) -> WorkRequest {
        let size = |rng: &mut StdRng| match rng.random_range(0..100) {
            0..75 => rng.random_range(0..200),
            75..93 => rng.random_range(0..largest.min(10_000)),
            93..99 => rng.random_range(0..largest.min(256 * 1024)),
            _ => rng.random_range(0..largest),
        };
        let (pad, answer) = (size(&mut self.rng), size(&mut self.rng));
        let sleep_ms = if self.rng.random_bool(0.3) { self.rng.random_range(0..300) } else { 0 };
        let log = if self.rng.random_bool(0.1) { self.rng.random_range(1..20_000) } else { 0 };
        WorkRequest { pad, answer, sleep_ms, log }
    }
}

impl ServerUnderTest {
    /// The bytes of an authorised API request.
    fn api(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let authorization = self.access.authorization();
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend_from_slice(headers);
        request("POST", path, &all, body)
    }

    fn count(&self, kind: CallKind, result: impl Into<String>) {
        self.ledger.count_call(kind, result);
    }

    pub(crate) fn report_violation(&self, text: &str) {
        self.event_log
            .report_violation(format!("{}: {text}", crate::fault_plan::server_name(self.index)));
    }

    /// Whether an outage since then explains a failed call.
    fn is_explained(&self, since: Instant) -> bool {
        self.event_log.explains_failure(self.index, since)
    }

    /// Checks the answer to a call that should run once and return what `ask` asks for.
    fn check_answer(&self, call: &SentCall, answered: Result<HttpAnswer, RequestFailure>) {
        let SentCall { kind, number, ask, at } = call;
        let answer = match answered {
            Ok(answer) => answer,
            Err(failure) => return self.check_missing_answer(*kind, *number, *at, &failure),
        };
        let what = || format!("{} event {number}", kind.as_str());
        self.count(*kind, answer.status.to_string());
        match (answer.status, answer.fault.as_str()) {
            (200, _) => {
                let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let pad = body["pad"].as_str().map(str::len);
                let same = body["number"] == *number && body["got"] == ask.pad;
                if !same || pad != Some(ask.answer) {
                    let start = String::from_utf8_lossy(&answer.body);
                    let start: String = start.chars().take(200).collect();
                    self.report_violation(&format!("{} got another's answer: {start}", what()));
                }
                let begun = self.ledger.run_count(*number);
                if begun != 1 {
                    self.report_violation(&format!(
                        "{} was answered and ran {begun} times",
                        what()
                    ));
                }
            }
            (429, "platform") => {
                if self.ledger.run_count(*number) != 0 {
                    self.report_violation(&format!("{} was refused with 429 and ran", what()));
                }
            }
            (503, "platform") if self.is_explained(*at) => {}
            (500 | 502 | 504, "function") if self.is_explained(*at) => {}
            (status, fault) => {
                let body = String::from_utf8_lossy(&answer.body);
                let body: String = body.chars().take(300).collect();
                let id = &answer.request_id;
                let took = at.elapsed();
                self.report_violation(&format!(
                    "{} ({id}): {status}, fault {fault}, after {took:?}: {body}",
                    what()
                ));
            }
        }
    }

    /// Only the end of the server's process explains a missing answer.
    fn check_missing_answer(
        &self,
        kind: CallKind,
        number: u64,
        at: Instant,
        failure: &RequestFailure,
    ) {
        let what =
            format!("{} event {number} after {:?}: {failure:?}", kind.as_str(), at.elapsed());
        match failure {
            RequestFailure::Disconnected(_) => {
                self.count(kind, "disconnected");
                if !self.event_log.explains_disconnect(self.index, at) {
                    self.report_violation(&what);
                }
            }
            RequestFailure::TimedOut | RequestFailure::Malformed(_) => {
                self.count(kind, "none");
                self.report_violation(&what);
            }
        }
    }
}

/// A call that was sent.
#[derive(Debug)]
struct SentCall {
    kind: CallKind,
    number: u64,
    ask: WorkRequest,
    at: Instant,
}
