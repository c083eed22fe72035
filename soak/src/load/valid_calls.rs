//! Valid calls: synchronous, queued and through an HTTP trigger. Some disconnect early.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::time::timeout;

use super::{LoadClient, SentCall};
use crate::http_client::{ClientConnection, HttpAnswer, RequestFailure, TransferPace, request};
use crate::run_ledger::CallKind;
use crate::test_function::{QUEUED, SYNC};

/// Largest padding of a synchronous event and its answer, bytes: 6 MB less room for the rest.
const SYNC_MAX: usize = 6 * 1024 * 1024 - 1_000;
/// Likewise of a queued event: 128 KB.
const QUEUED_MAX: usize = 128 * 1024 - 1_000;
/// Likewise through an HTTP trigger.
const WEB_MAX: usize = 256 * 1024;
/// While this many accepted events are open, none is added, so that the rest can be waited for at
/// the end on a slow machine too.
const OPEN_MAX: usize = 500;
/// Share of calls that disconnect before their answer.
const HANG_UPS: f64 = 0.06;

impl LoadClient {
    /// Makes synchronous calls, one after the other.
    pub(super) async fn call_sync(mut self) {
        let mut connection = ClientConnection::to(&self.target.access.api);
        while self.pause().await {
            let sent = self.new_call(CallKind::Sync, SYNC_MAX);
            let path = format!("/v1/functions/{SYNC}/invocations");
            let bytes = self.target.api(&path, &[], &sent.ask.event(CallKind::Sync, sent.number));
            self.call(&mut connection, &sent, &bytes).await;
        }
    }

    /// Makes requests to the HTTP trigger, one after the other.
    pub(super) async fn call_web(mut self) {
        let mut connection = ClientConnection::to(&self.target.access.web);
        while self.pause().await {
            let sent = self.new_call(CallKind::Web, WEB_MAX);
            let json = [("content-type", "application/json")];
            let body = sent.ask.event(CallKind::Web, sent.number);
            let bytes = request("POST", "/soak/x", &json, &body);
            self.call(&mut connection, &sent, &bytes).await;
        }
    }

    /// Queues events, one after the other.
    pub(super) async fn call_queued(mut self) {
        let mut connection = ClientConnection::to(&self.target.access.api);
        while self.pause().await {
            if OPEN_MAX <= self.target.ledger.open_count() {
                continue;
            }
            let mut sent = self.new_call(CallKind::Queued, QUEUED_MAX);
            sent.ask.answer = sent.ask.answer.min(10_000);
            let path = format!("/v1/functions/{QUEUED}/invocations");
            let event = sent.ask.event(CallKind::Queued, sent.number);
            let bytes = self.target.api(&path, &[("prefer", "respond-async")], &event);
            let answered = connection.exchange(&bytes, TransferPace::Quick).await;
            self.check_acceptance(&sent, answered);
        }
    }

    fn new_call(&mut self, kind: CallKind, largest: usize) -> SentCall {
        let ask = self.ask(largest);
        SentCall { kind, number: self.target.ledger.next_event_number(), ask, at: Instant::now() }
    }

    async fn call(&mut self, connection: &mut ClientConnection, sent: &SentCall, bytes: &[u8]) {
        if !self.rng.random_bool(HANG_UPS) {
            let answered = connection.exchange(bytes, TransferPace::Quick).await;
            return self.target.check_answer(sent, answered);
        }
        let patience = Duration::from_millis(self.rng.random_range(0..60));
        match timeout(patience, connection.exchange(bytes, TransferPace::Quick)).await {
            Ok(answered) => self.target.check_answer(sent, answered),
            Err(_) => {
                connection.close();
                self.target.count(sent.kind, "disconnected early");
            }
        }
    }

    fn check_acceptance(&self, sent: &SentCall, answered: Result<HttpAnswer, RequestFailure>) {
        match answered {
            Ok(answer) if answer.status == 202 => {
                self.target.count(sent.kind, "202");
                self.target.ledger.event_accepted(sent.number, &answer.request_id);
            }
            // Only 202 is a promise; after a broken connection the event may have run or not.
            other => self.target.check_answer(sent, other),
        }
    }
}
