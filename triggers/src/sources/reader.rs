//! Reads one stream: batches run one after another, each acknowledged when the function has
//! returned. Every node may read a stream; on each, one batch of a trigger runs at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hanshu_core::{
    AsyncPolicy, Backoff, Event, Invocation, InvocationMode, Origin, PAYLOAD_BYTES_MAX, Qualifier,
    Refusal, RequestId, Revision, TriggerId, TriggerKind, Verdict,
};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::batch_decision::{BatchDecision, BatchProgress, after_attempt, entries_together};
use super::batch_event::batch_event;
use super::consumer::{
    ConsumerIdentity, StreamBatch, StreamConsumer, StreamEntry, StreamError, StreamSource,
};
use super::stream_status::StreamStatusMap;
use crate::dispatch_context::DispatchContext;
use crate::metrics;
use crate::stop_signals::StopSignals;

/// Reads the stream of one trigger.
pub(super) struct StreamReader {
    pub(super) context: DispatchContext,
    pub(super) statuses: StreamStatusMap,
    pub(super) id: TriggerId,
    pub(super) kind: TriggerKind,
    pub(super) source: Arc<dyn StreamSource>,
    pub(super) identity: ConsumerIdentity,
    pub(super) stop: StopSignals,
    /// Runs of batches: a stop waits for them.
    pub(super) tasks: TaskTracker,
    /// `None` before the first connect and after an error.
    pub(super) consumer: Option<Box<dyn StreamConsumer>>,
    /// Consecutive errors of the broker.
    pub(super) errors: u32,
}

/// A change of a batch that the broker stores.
enum BatchSettlement<'a> {
    Acknowledge(&'a [String]),
    SetAttempt(&'a [String], u32),
    DeadLetter(&'a [StreamEntry], &'a str),
}

/// How an attempt at a batch ended.
enum AttemptEnd {
    Finished(Verdict),
    /// The server stops, or another consumer has taken the batch over.
    CutOff,
}

/// Entries are renewed this often, so that other consumers leave them alone.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// A consumer that has not renewed an entry for the function's timeout and this is dead.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// After consecutive errors of the broker.
const RECONNECT_BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
/// Characters of the reason that a dead-lettered entry carries.
const REASON_CHARS_MAX: usize = 1_000;
const TOO_LARGE: &str = "the entry is larger than an event may be (6 MB)";

impl StreamReader {
    /// Reads until `stop.intake`; a batch that runs may end until `stop.work`.
    pub(super) async fn run(mut self) {
        while !self.stop.intake.is_cancelled() {
            // Not raced against the stop: entries that the broker has given to this consumer would
            // wait for a restart.
            match self.read().await {
                Ok(batch) => {
                    self.set_available();
                    if !batch.entries.is_empty() {
                        self.work_off(batch).await;
                    }
                }
                Err(error) => self.set_unavailable(&error).await,
            }
        }
    }

    async fn read(&mut self) -> Result<StreamBatch, StreamError> {
        let timeout = self.revision().map_or(Duration::ZERO, |function| function.config.timeout);
        self.connected().await?.read(timeout + DEAD_AFTER).await
    }

    async fn connected(&mut self) -> Result<&mut Box<dyn StreamConsumer>, StreamError> {
        match &mut self.consumer {
            Some(consumer) => Ok(consumer),
            none => {
                let mut consumer = self.source.connect(&self.identity).await?;
                let dead_lettered = consumer.dead_lettered().await?;
                self.statuses.set(&self.id, None, self.context.clock.now());
                self.statuses.set_dead_lettered(&self.id, dead_lettered);
                Ok(none.insert(consumer))
            }
        }
    }

    /// The next read begins with what this consumer holds.
    fn redeliver(&mut self) {
        if let Some(consumer) = &mut self.consumer {
            consumer.redeliver();
        }
    }

    /// Runs a batch to its end: done, split, dead-lettered, or left to be read again.
    async fn work_off(&mut self, mut batch: StreamBatch) {
        let payload = self.take_together(&mut batch);
        let ids: Vec<String> = batch.entries.iter().map(|entry| entry.id.clone()).collect();
        let Some(payload) = payload else { return self.dead_letter(&batch, TOO_LARGE).await };
        let request_id = RequestId::new();
        let mut refusals = 0;
        loop {
            let (end, policy) = match self.revision() {
                Some(function) => {
                    let policy = function.config.async_policy.clone();
                    let event = self.event(payload.clone());
                    let mode = InvocationMode::Async { attempt: batch.attempt };
                    let invocation = Invocation { request_id, function, event, mode };
                    (self.attempt(invocation, &ids).await, policy)
                }
                None => (AttemptEnd::Finished(self.function_gone()), AsyncPolicy::default()),
            };
            let AttemptEnd::Finished(verdict) = end else { return self.redeliver() };
            refusals = if matches!(verdict, Verdict::Refused(_)) { refusals + 1 } else { 0 };
            let progress = BatchProgress {
                entries: ids.len(),
                attempt: batch.attempt,
                refusals,
                jitter: rand::random(),
            };
            match after_attempt(&self.context.policy, &policy, &verdict, progress) {
                BatchDecision::Acknowledge => {
                    metrics::batch("done");
                    return self.settle(&BatchSettlement::Acknowledge(&ids)).await;
                }
                BatchDecision::Split { attempt } => {
                    metrics::batch("failed");
                    self.settle(&BatchSettlement::SetAttempt(&ids, attempt)).await;
                    return self.redeliver();
                }
                BatchDecision::DeadLetter { reason } => {
                    return self.dead_letter(&batch, &reason).await;
                }
                BatchDecision::Retry { attempt, pause } => {
                    metrics::batch("failed");
                    batch.attempt = attempt;
                    self.settle(&BatchSettlement::SetAttempt(&ids, attempt)).await;
                    if !self.hold_for(pause, &ids).await {
                        return self.redeliver();
                    }
                }
                BatchDecision::Repeat { pause } => {
                    metrics::batch("refused");
                    if !self.hold_for(pause, &ids).await {
                        return self.redeliver();
                    }
                }
            }
        }
    }

    /// Cuts a batch down to the entries that run together, and makes their event; `None` if not
    /// even the first entry fits into one. The other entries are read again next.
    fn take_together(&mut self, batch: &mut StreamBatch) -> Option<Bytes> {
        let policy = self.revision().map(|function| function.config.async_policy.clone());
        let read = batch.entries.len();
        let together = policy.map_or(read, |policy| entries_together(&policy, read, batch.attempt));
        batch.entries.truncate(together);
        let (payload, fitting) = batch_event(&*self.source, &batch.entries, PAYLOAD_BYTES_MAX);
        batch.entries.truncate(fitting.max(1));
        if batch.entries.len() < read {
            self.redeliver();
        }
        (0 < fitting).then_some(payload)
    }

    fn event(&self, payload: Bytes) -> Event {
        Event { origin: Origin::trigger_of(self.kind, self.id.name.clone()), payload }
    }

    fn revision(&self) -> Option<Arc<Revision>> {
        let (namespace, name) = (&self.id.function.namespace, &self.id.function.name);
        self.context.catalog.resolve(namespace, name, Qualifier::Latest).ok()
    }

    /// The trigger is about to be removed too, or the catalog is a moment behind.
    fn function_gone(&self) -> Verdict {
        let reason = format!("function `{}` is gone", self.id.function);
        Verdict::Refused(Refusal::Unavailable { reason })
    }

    async fn attempt(&mut self, invocation: Invocation, ids: &[String]) -> AttemptEnd {
        let mut running = self.context.spawn(&self.tasks, invocation);
        let work = self.stop.work.clone();
        loop {
            tokio::select! {
                biased;
                outcome = running.outcome() => return AttemptEnd::Finished(outcome.verdict),
                () = work.cancelled() => return AttemptEnd::CutOff,
                () = sleep(RENEW_INTERVAL) => {
                    if !self.renew(ids).await {
                        return AttemptEnd::CutOff;
                    }
                }
            }
        }
    }

    /// Waits while holding the entries; `false` if they are to be left.
    async fn hold_for(&mut self, pause: Duration, ids: &[String]) -> bool {
        let until = Instant::now() + pause;
        let intake = self.stop.intake.clone();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return !intake.is_cancelled();
            }
            let wait = sleep(left.min(RENEW_INTERVAL));
            if intake.run_until_cancelled(wait).await.is_none() {
                return false;
            }
            if RENEW_INTERVAL <= left && !self.renew(ids).await {
                return false;
            }
        }
    }

    /// Whether the entries may still be held here: an error of the broker does not mean that they
    /// are not.
    async fn renew(&mut self, ids: &[String]) -> bool {
        let Some(consumer) = &mut self.consumer else { return true };
        match consumer.renew(ids).await {
            Ok(true) => true,
            Ok(false) => {
                warn!(trigger = %self.id, "Another node took over a running batch of a stream");
                false
            }
            Err(error) => {
                let now = self.context.clock.now();
                self.statuses.set(&self.id, Some(error.to_string()), now);
                true
            }
        }
    }

    async fn dead_letter(&mut self, batch: &StreamBatch, reason: &str) {
        metrics::batch("dead_lettered");
        let (number, first) = (batch.entries.len(), batch.entries.first().map(|e| &e.id));
        warn!(trigger = %self.id, number, first, "Entries of a stream were dead-lettered");
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        self.settle(&BatchSettlement::DeadLetter(&batch.entries, &reason)).await;
        if let Some(consumer) = &mut self.consumer
            && let Ok(dead_lettered) = consumer.dead_lettered().await
        {
            self.statuses.set_dead_lettered(&self.id, dead_lettered);
        }
    }

    /// Stores a change of a batch, however long the broker is unavailable, until the server stops:
    /// a batch whose end is not stored runs again.
    async fn settle(&mut self, settlement: &BatchSettlement<'_>) {
        loop {
            let settled = match self.connected().await {
                Ok(consumer) => settlement.send(&mut **consumer).await,
                Err(error) => Err(error),
            };
            match settled {
                Ok(()) => return self.set_available(),
                Err(error) => self.set_unavailable(&error).await,
            }
            if self.stop.intake.is_cancelled() {
                warn!(trigger = %self.id, "The end of a batch could not be kept: it runs again");
                return;
            }
        }
    }

    fn set_available(&mut self) {
        self.errors = 0;
        if self.statuses.set(&self.id, None, self.context.clock.now()) {
            info!(trigger = %self.id, "The stream is read");
        }
    }

    /// After an error of the broker: a new connection after a while.
    async fn set_unavailable(&mut self, error: &StreamError) {
        self.consumer = None;
        let reason = error.to_string();
        if self.statuses.set(&self.id, Some(reason.clone()), self.context.clock.now()) {
            warn!(reason, trigger = %self.id, "The stream cannot be read");
        }
        self.errors = self.errors.saturating_add(1);
        let pause = RECONNECT_BACKOFF.delay(self.errors);
        self.stop.intake.run_until_cancelled(sleep(pause)).await;
    }
}

impl BatchSettlement<'_> {
    async fn send(&self, consumer: &mut dyn StreamConsumer) -> Result<(), StreamError> {
        match self {
            Self::Acknowledge(ids) => consumer.ack(ids).await,
            Self::SetAttempt(ids, attempt) => consumer.set_attempt(ids, *attempt).await,
            Self::DeadLetter(entries, reason) => consumer.dead_letter(entries, reason).await,
        }
    }
}

impl Drop for StreamReader {
    /// Not earlier: a batch that ends after the trigger was removed reports its state too.
    fn drop(&mut self) {
        self.statuses.forget(&self.id);
    }
}

#[cfg(test)]
mod tests;
