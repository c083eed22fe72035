//! Honest calls: synchronous, queued, through an HTTP trigger. Some hang up.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::time::timeout;

use super::{Client, Sent};
use crate::functions::{QUEUED, SYNC};
use crate::http::{Answer, Line, Pace, Trouble, request};
use crate::ledger::Way;

/// Largest padding of a synchronous event and answer, bytes: 6 MB with room for the rest.
const SYNC_MAX: usize = 6 * 1024 * 1024 - 1_000;
/// The same of a queued event: 128 KB.
const QUEUED_MAX: usize = 128 * 1024 - 1_000;
/// The same through an HTTP trigger.
const WEB_MAX: usize = 256 * 1024;
/// Accepted events that are not known to have ended: with more, none is added. So what is left
/// at the end can be waited for, however slow the machine.
const OPEN_MAX: usize = 500;
/// Share of calls that hang up before their answer.
const HANG_UPS: f64 = 0.06;

impl Client {
    /// Synchronous calls, one after the other.
    pub(super) async fn call_sync(mut self) {
        let mut line = Line::to(&self.world.access.api);
        while self.think().await {
            let sent = self.sent(Way::Sync, SYNC_MAX);
            let path = format!("/v1/functions/{SYNC}/invocations");
            let bytes = self.world.api(&path, &[], &sent.ask.event(Way::Sync, sent.number));
            self.call(&mut line, &sent, &bytes).await;
        }
    }

    /// Requests to the HTTP trigger.
    pub(super) async fn call_web(mut self) {
        let mut line = Line::to(&self.world.access.web);
        while self.think().await {
            let sent = self.sent(Way::Web, WEB_MAX);
            let json = [("content-type", "application/json")];
            let body = sent.ask.event(Way::Web, sent.number);
            let bytes = request("POST", "/soak/x", &json, &body);
            self.call(&mut line, &sent, &bytes).await;
        }
    }

    /// Queued events.
    pub(super) async fn call_queued(mut self) {
        let mut line = Line::to(&self.world.access.api);
        while self.think().await {
            if OPEN_MAX <= self.world.ledger.open_count() {
                continue;
            }
            let mut sent = self.sent(Way::Queued, QUEUED_MAX);
            sent.ask.answer = sent.ask.answer.min(10_000);
            let path = format!("/v1/functions/{QUEUED}/invocations");
            let event = sent.ask.event(Way::Queued, sent.number);
            let bytes = self.world.api(&path, &[("prefer", "respond-async")], &event);
            let answered = line.exchange(&bytes, Pace::Quick).await;
            self.accepted(&sent, answered);
        }
    }

    fn sent(&mut self, way: Way, largest: usize) -> Sent {
        let ask = self.ask(largest);
        Sent { way, number: self.world.ledger.next(), ask, at: Instant::now() }
    }

    async fn call(&mut self, line: &mut Line, sent: &Sent, bytes: &[u8]) {
        if !self.rng.random_bool(HANG_UPS) {
            let answered = line.exchange(bytes, Pace::Quick).await;
            return self.world.judge(sent, answered);
        }
        let patience = Duration::from_millis(self.rng.random_range(0..60));
        match timeout(patience, line.exchange(bytes, Pace::Quick)).await {
            Ok(answered) => self.world.judge(sent, answered),
            Err(_) => {
                line.drop();
                self.world.count(sent.way, "hung up");
            }
        }
    }

    fn accepted(&self, sent: &Sent, answered: Result<Answer, Trouble>) {
        match answered {
            Ok(answer) if answer.status == 202 => {
                self.world.count(sent.way, "202");
                self.world.ledger.accepted(sent.number, &answer.request_id);
            }
            // Nothing but 202 promises anything; it may run all the same where it broke.
            other => self.world.judge(sent, other),
        }
    }
}
