//! Redis stream triggers: batches of entries run one after another, each acknowledged when the
//! function has returned. Every node may read; on each, one batch of a trigger runs at a time.
//!
//! A batch that fails as often as the function's attempts allow is taken apart: each entry runs
//! once more by itself, in order, and only those that fail then are dead-lettered.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use hanshu_core::{
    Backoff, Event, Failure, Invocation, InvocationMode, Origin, PAYLOAD_BYTES_MAX, Qualifier,
    Refusal, RequestId, Revision, Trigger, TriggerId, TriggerSet, TriggerSpec, Verdict,
};
use redis::RedisResult;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::batch_event::{StreamEntry, batch_event};
use super::consumer_group::{self, ConsumerGroup, ConsumerGroupOptions, StreamBatch};
use super::stream_status::StreamStatusMap;
use crate::dispatch_context::DispatchContext;
use crate::metrics;
use crate::stop_signals::StopSignals;
use crate::trigger_watch::TriggersView;

/// Reads the streams of the enabled Redis triggers.
#[derive(Debug)]
pub struct StreamSources {
    context: DispatchContext,
    states: StreamStatusMap,
    readers: HashMap<TriggerId, RunningReader>,
    tasks: TaskTracker,
}

/// A reader that runs.
#[derive(Debug)]
struct RunningReader {
    spec: TriggerSpec,
    /// Cancelled when the trigger is switched off, changed or removed.
    stop: CancellationToken,
    /// Closed when the reader has ended.
    ended: CancellationToken,
}

/// Reads one stream.
struct StreamReader {
    context: DispatchContext,
    states: StreamStatusMap,
    id: TriggerId,
    url: hanshu_core::Secret,
    options: ConsumerGroupOptions,
    stop: StopSignals,
    /// Runs of batches: a stop waits for them.
    tasks: TaskTracker,
    group: Option<ConsumerGroup>,
    /// Consecutive errors of Redis.
    errors: u32,
    /// Whether entries may be ours from before.
    own: bool,
    reclaimed_at: Option<Instant>,
}

/// How an attempt at a batch ended.
enum BatchAttempt {
    Done,
    Failed(Failure),
    Refused(Refusal),
    /// The server stops, or another consumer has taken over.
    CutOff,
}

/// The change to a batch that Redis stores.
enum BatchSettlement<'a> {
    Acknowledge(&'a [String]),
    Attempt(&'a [String], u32),
    DeadLetter(&'a [StreamEntry], &'a str),
}

/// Triggers are looked at so often in any case.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Entries are held by being touched so often.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// A consumer that has not touched an entry for the function's timeout and this is dead.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// Dead consumers are looked for so often.
const RECLAIM_EVERY: Duration = Duration::from_secs(15);
/// After consecutive errors of Redis.
const RECONNECT_BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

impl StreamSources {
    /// Nothing is read yet: [`Self::run`] takes the triggers from the view.
    pub fn new(context: DispatchContext, states: StreamStatusMap) -> Self {
        Self { context, states, readers: HashMap::new(), tasks: TaskTracker::new() }
    }

    /// Reads until `stop.intake`; batches that run may end until `stop.work`. What is cut off
    /// stays this node's in the stream, and runs again at its next start, or on another node.
    pub async fn run(mut self, mut view: TriggersView, stop: StopSignals) {
        while !stop.intake.is_cancelled() {
            self.reconcile(&view.take(), &stop);
            stop.intake.run_until_cancelled(view.changed(LOOK_EVERY)).await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn reconcile(&mut self, triggers: &TriggerSet, stop: &StopSignals) {
        let wanted = triggers.iter().filter(|trigger| trigger.enabled);
        let wanted = wanted.filter(|t| matches!(t.spec, TriggerSpec::Redis { .. }));
        let wanted: HashMap<_, _> = wanted.map(|trigger| (&trigger.id, trigger)).collect();
        // A changed trigger's new reader waits for the old one: they share a consumer's name.
        let mut ending = HashMap::new();
        self.readers.retain(|id, active| {
            let trigger = wanted.get(id);
            if trigger.is_some_and(|trigger| trigger.spec == active.spec) {
                return true;
            }
            active.stop.cancel();
            ending.insert(id.clone(), active.ended.clone());
            false
        });
        for (id, trigger) in wanted {
            if !self.readers.contains_key(id) {
                self.start(trigger, ending.remove(id), stop);
            }
        }
    }

    fn start(&mut self, trigger: &Trigger, before: Option<CancellationToken>, stop: &StopSignals) {
        let TriggerSpec::Redis { url, stream, batch } = &trigger.spec else { return };
        let token = stop.intake.child_token();
        let reader = StreamReader {
            context: self.context.clone(),
            states: self.states.clone(),
            id: trigger.id.clone(),
            url: url.clone(),
            options: ConsumerGroupOptions {
                stream: stream.clone(),
                group: format!("hanshu:{}", trigger.id),
                consumer: self.context.node.to_string(),
                batch: *batch,
            },
            stop: StopSignals { intake: token.clone(), work: stop.work.clone() },
            tasks: self.tasks.clone(),
            group: None,
            errors: 0,
            own: true,
            reclaimed_at: None,
        };
        let (states, id) = (self.states.clone(), trigger.id.clone());
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        self.tasks.spawn(async move {
            let _ended = guard;
            if let Some(before) = before {
                before.cancelled().await;
            }
            reader.run().await;
            // Not before: a batch that ends after the trigger was removed reports its state too.
            states.forget(&id);
        });
        let active = RunningReader { spec: trigger.spec.clone(), stop: token, ended };
        self.readers.insert(trigger.id.clone(), active);
    }
}

impl StreamReader {
    async fn run(mut self) {
        while !self.stop.intake.is_cancelled() {
            // Not raced against the stop: entries that were given to us would wait for a restart.
            match self.next().await {
                Ok(batch) => {
                    self.set_available();
                    if !batch.entries.is_empty() {
                        self.work(batch).await;
                    }
                }
                Err(error) => self.set_unavailable(&error).await,
            }
        }
    }

    /// What comes first: what is ours from before, or was a dead consumer's; then what is new.
    async fn next(&mut self) -> RedisResult<StreamBatch> {
        let idle_min = self.function().map_or(DEAD_AFTER, |f| f.config.timeout + DEAD_AFTER);
        let due = self.reclaimed_at.is_none_or(|at| RECLAIM_EVERY <= at.elapsed());
        let group = match &mut self.group {
            Some(group) => group,
            none => {
                let group = ConsumerGroup::connect(self.url.expose(), self.options.clone()).await?;
                self.own = true;
                none.insert(group)
            }
        };
        if 0 < self.errors || self.reclaimed_at.is_none() {
            let dead_lettered = group.dead_lettered().await?;
            let now = self.context.clock.now();
            self.states.note(&self.id, None, now);
            self.states.dead_lettered(&self.id, dead_lettered);
        }
        if due {
            self.own |= 0 < group.reclaim(idle_min).await?;
            self.reclaimed_at = Some(Instant::now());
        }
        if self.own {
            match group.own().await? {
                Some(batch) => return Ok(batch),
                None => self.own = false,
            }
        }
        group.read().await
    }

    /// Runs a batch to its end: done, dead-lettered, or left to be read again.
    async fn work(&mut self, mut batch: StreamBatch) {
        let attempts_max = self.function().map_or(u32::MAX, |f| f.config.async_policy.max_attempts);
        if attempts_max < batch.attempt && 1 < batch.entries.len() {
            // Of a batch that failed for good: each entry runs once more by itself.
            self.own = true;
            batch.entries.truncate(1);
        }
        let stream = &self.options.stream;
        let (payload, taken) = batch_event(stream, &batch.entries, PAYLOAD_BYTES_MAX);
        if taken < batch.entries.len() {
            // The rest is ours already and comes next.
            self.own = true;
            batch.entries.truncate(taken.max(1));
        }
        if taken == 0 {
            let reason = "the entry is larger than an event may be (6 MB)";
            return self.dead_letter(&batch, reason).await;
        }
        let request_id = RequestId::new();
        let ids: Vec<String> = batch.entries.iter().map(|entry| entry.id.clone()).collect();
        let mut refusals = 0;
        loop {
            let (tried, policy) = match self.function() {
                None => (gone(&self.id), Default::default()),
                Some(function) => {
                    let policy = function.config.async_policy.clone();
                    let event = self.event(payload.clone());
                    let mode = InvocationMode::Async { attempt: batch.attempt };
                    let invocation = Invocation { request_id, function, event, mode };
                    (self.attempt(invocation, &ids).await, policy)
                }
            };
            let pause = match tried {
                BatchAttempt::Done => {
                    metrics::batch("done");
                    return self.settle(&BatchSettlement::Acknowledge(&ids)).await;
                }
                BatchAttempt::Failed(_)
                    if policy.max_attempts <= batch.attempt && 1 < batch.entries.len() =>
                {
                    metrics::batch("failed");
                    self.own = true;
                    let alone = policy.max_attempts.saturating_add(1);
                    return self.settle(&BatchSettlement::Attempt(&ids, alone)).await;
                }
                BatchAttempt::Failed(failure) if policy.max_attempts <= batch.attempt => {
                    return self.dead_letter(&batch, &failure.error_message).await;
                }
                BatchAttempt::Failed(_) => {
                    metrics::batch("failed");
                    batch.attempt += 1;
                    refusals = 0;
                    self.settle(&BatchSettlement::Attempt(&ids, batch.attempt)).await;
                    policy.retry_delay
                }
                BatchAttempt::Refused(refusal) => {
                    metrics::batch("refused");
                    refusals += 1;
                    self.context.policy.pause(&refusal, refusals, rand::random())
                }
                BatchAttempt::CutOff => {
                    self.own = true;
                    return;
                }
            };
            if !self.hold_for(pause, &ids).await {
                self.own = true;
                return;
            }
        }
    }

    fn event(&self, payload: Bytes) -> Event {
        Event { origin: Origin::Redis(self.id.name.clone()), payload }
    }

    fn function(&self) -> Option<std::sync::Arc<Revision>> {
        let (namespace, name) = (&self.id.function.namespace, &self.id.function.name);
        self.context.catalog.resolve(namespace, name, Qualifier::Latest).ok()
    }

    async fn attempt(&mut self, invocation: Invocation, ids: &[String]) -> BatchAttempt {
        let mut running = self.context.spawn(&self.tasks, invocation);
        let work = self.stop.work.clone();
        loop {
            tokio::select! {
                biased;
                outcome = running.outcome() => {
                    return match outcome.verdict {
                        Verdict::Returned(_) => BatchAttempt::Done,
                        Verdict::Failed(failure) => BatchAttempt::Failed(failure),
                        Verdict::Refused(refusal) => BatchAttempt::Refused(refusal),
                    };
                }
                () = work.cancelled() => return BatchAttempt::CutOff,
                () = sleep(RENEW_EVERY) => {
                    if !self.renew(ids).await {
                        return BatchAttempt::CutOff;
                    }
                }
            }
        }
    }

    /// Waits with the entries held; `false` if they are to be left.
    async fn hold_for(&mut self, pause: Duration, ids: &[String]) -> bool {
        let until = Instant::now() + pause;
        let intake = self.stop.intake.clone();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return !intake.is_cancelled();
            }
            let wait = sleep(left.min(RENEW_EVERY));
            if intake.run_until_cancelled(wait).await.is_none() {
                return false;
            }
            if RENEW_EVERY <= left && !self.renew(ids).await {
                return false;
            }
        }
    }

    /// Whether the entries may still be ours. An error of Redis does not mean that they are not.
    async fn renew(&mut self, ids: &[String]) -> bool {
        let Some(group) = &mut self.group else { return true };
        match group.renew(ids).await {
            Ok(true) => true,
            Ok(false) => {
                warn!(trigger = %self.id, "Another node took over a running batch of a stream");
                false
            }
            Err(error) => {
                let now = self.context.clock.now();
                self.states.note(&self.id, Some(consumer_group::reason(&error)), now);
                true
            }
        }
    }

    async fn dead_letter(&mut self, batch: &StreamBatch, reason: &str) {
        metrics::batch("dead_lettered");
        let (number, first) = (batch.entries.len(), batch.entries.first().map(|e| &e.id));
        warn!(trigger = %self.id, number, first, "Entries of a stream were dead_lettered");
        let reason: String = reason.chars().take(1_000).collect();
        self.settle(&BatchSettlement::DeadLetter(&batch.entries, &reason)).await;
        if let Some(group) = &mut self.group
            && let Ok(dead_lettered) = group.dead_lettered().await
        {
            self.states.dead_lettered(&self.id, dead_lettered);
        }
    }

    /// Stores the end of a batch in Redis, however long that is unavailable, until the server stops:
    /// a batch whose end is not stored runs again.
    async fn settle(&mut self, end: &BatchSettlement<'_>) {
        loop {
            let settled = match &mut self.group {
                Some(group) => end.send(group).await,
                None => match ConsumerGroup::connect(self.url.expose(), self.options.clone()).await
                {
                    Ok(group) => end.send(self.group.insert(group)).await,
                    Err(error) => Err(error),
                },
            };
            match settled {
                Ok(()) => return self.set_available(),
                Err(error) => self.set_unavailable(&error).await,
            }
            self.own = true;
            if self.stop.intake.is_cancelled() {
                warn!(trigger = %self.id, "The end of a batch could not be kept: it runs again");
                return;
            }
        }
    }

    fn set_available(&mut self) {
        self.errors = 0;
        if self.states.note(&self.id, None, self.context.clock.now()) {
            info!(trigger = %self.id, "The stream is read");
        }
    }

    /// Redis failed: a new connection after a while.
    async fn set_unavailable(&mut self, error: &redis::RedisError) {
        self.group = None;
        let reason = consumer_group::reason(error);
        if self.states.note(&self.id, Some(reason.clone()), self.context.clock.now()) {
            warn!(reason, trigger = %self.id, "The stream cannot be read");
        }
        self.errors = self.errors.saturating_add(1);
        let pause = RECONNECT_BACKOFF.delay(self.errors);
        self.stop.intake.run_until_cancelled(sleep(pause)).await;
    }
}

impl BatchSettlement<'_> {
    async fn send(&self, group: &mut ConsumerGroup) -> RedisResult<()> {
        match self {
            Self::Acknowledge(ids) => group.acknowledge(ids).await,
            Self::Attempt(ids, attempt) => group.set_attempt(ids, *attempt).await,
            Self::DeadLetter(entries, reason) => group.dead_letter(entries, reason).await,
        }
    }
}

fn gone(id: &TriggerId) -> BatchAttempt {
    // The trigger itself is about to go, or the catalog is a moment behind.
    BatchAttempt::Refused(Refusal::Unavailable {
        reason: format!("function `{}` is gone", id.function),
    })
}

#[cfg(test)]
mod tests;
