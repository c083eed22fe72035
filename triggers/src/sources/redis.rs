//! Redis stream triggers: batches of entries run one after another, each acknowledged when the
//! function has returned. Every node may read; on each, one batch of a trigger runs at a time.
//!
//! A batch that fails as often as the function's attempts allow is taken apart: each entry runs
//! once more by itself, in order, and only those that fail then are dead-lettered.

use std::collections::HashMap;
use std::time::Duration;

use hanshu_core::{
    Event, Failure, Invocation, InvocationMode, Origin, PAYLOAD_BYTES_MAX, Qualifier, Refusal,
    RequestId, Revision, Trigger, TriggerId, TriggerSet, TriggerSpec, Verdict,
};
use redis::RedisResult;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::batch::{self, Entry};
use super::group::{self, Batch, Group, GroupOptions};
use super::state::SourceStates;
use crate::dispatcher::{self, Parts};
use crate::metrics;
use crate::stop::Stop;
use crate::watched::TriggersView;

/// Reads the streams of the enabled Redis triggers.
#[derive(Debug)]
pub struct RedisSources {
    parts: Parts,
    states: SourceStates,
    readers: HashMap<TriggerId, Active>,
    tasks: TaskTracker,
}

/// A reader that runs.
#[derive(Debug)]
struct Active {
    spec: TriggerSpec,
    /// Cancelled when the trigger is switched off, changed or removed.
    stop: CancellationToken,
    /// Closed when the reader has ended.
    ended: CancellationToken,
}

/// Reads one stream.
struct Reader {
    parts: Parts,
    states: SourceStates,
    id: TriggerId,
    url: hanshu_core::Secret,
    options: GroupOptions,
    stop: Stop,
    group: Option<Group>,
    /// Errors of Redis in a row.
    errors: u32,
    /// Whether entries may be ours from before.
    own: bool,
    reclaimed_at: Option<Instant>,
}

/// How an attempt at a batch ended.
enum Tried {
    Done,
    Failed(Failure),
    Refused(Refusal),
    /// The server stops, or another consumer has taken over.
    CutOff,
}

/// What Redis is told of a batch.
enum End<'a> {
    Acknowledge(&'a [String]),
    Attempt(&'a [String], u32),
    Bury(&'a [Entry], &'a str),
}

/// Triggers are looked at so often in any case.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Entries are held by being touched so often.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// A consumer that has not touched an entry for the function's timeout and this is dead.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// Dead consumers are looked for so often.
const RECLAIM_EVERY: Duration = Duration::from_secs(15);
/// After an error of Redis: doubles up to the second figure.
const AWAY_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

impl RedisSources {
    /// Nothing is read yet: [`Self::run`] takes the triggers from the view.
    pub fn new(parts: Parts, states: SourceStates) -> Self {
        Self { parts, states, readers: HashMap::new(), tasks: TaskTracker::new() }
    }

    /// Reads until `stop.intake`; batches that run may end until `stop.work`. What is cut off
    /// stays this node's in the stream, and runs again at its next start, or on another node.
    pub async fn run(mut self, mut view: TriggersView, stop: Stop) {
        while !stop.intake.is_cancelled() {
            self.reconcile(&view.take(), &stop);
            stop.intake.run_until_cancelled(view.changed(LOOK_EVERY)).await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn reconcile(&mut self, triggers: &TriggerSet, stop: &Stop) {
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
            if trigger.is_none() {
                self.states.forget(id);
            }
            ending.insert(id.clone(), active.ended.clone());
            false
        });
        for (id, trigger) in wanted {
            if !self.readers.contains_key(id) {
                self.start(trigger, ending.remove(id), stop);
            }
        }
    }

    fn start(&mut self, trigger: &Trigger, before: Option<CancellationToken>, stop: &Stop) {
        let TriggerSpec::Redis { url, stream, batch } = &trigger.spec else { return };
        let token = stop.intake.child_token();
        let reader = Reader {
            parts: self.parts.clone(),
            states: self.states.clone(),
            id: trigger.id.clone(),
            url: url.clone(),
            options: GroupOptions {
                stream: stream.clone(),
                group: format!("hanshu:{}", trigger.id),
                consumer: self.parts.node.to_string(),
                batch: *batch,
            },
            stop: Stop { intake: token.clone(), work: stop.work.clone() },
            group: None,
            errors: 0,
            own: true,
            reclaimed_at: None,
        };
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        self.tasks.spawn(async move {
            let _ended = guard;
            if let Some(before) = before {
                before.cancelled().await;
            }
            reader.run().await;
        });
        let active = Active { spec: trigger.spec.clone(), stop: token, ended };
        self.readers.insert(trigger.id.clone(), active);
    }
}

impl Reader {
    async fn run(mut self) {
        while !self.stop.intake.is_cancelled() {
            // Not raced against the stop: entries that were given to us would wait for a restart.
            match self.next().await {
                Ok(batch) => {
                    self.present();
                    if !batch.entries.is_empty() {
                        self.work(batch).await;
                    }
                }
                Err(error) => self.away(&error).await,
            }
        }
    }

    /// What comes first: what is ours from before, or was a dead consumer's; then what is new.
    async fn next(&mut self) -> RedisResult<Batch> {
        let idle_min = self.function().map_or(DEAD_AFTER, |f| f.config.timeout + DEAD_AFTER);
        let due = self.reclaimed_at.is_none_or(|at| RECLAIM_EVERY <= at.elapsed());
        let group = match &mut self.group {
            Some(group) => group,
            none => {
                let group = Group::connect(self.url.expose(), self.options.clone()).await?;
                self.own = true;
                none.insert(group)
            }
        };
        if 0 < self.errors || self.reclaimed_at.is_none() {
            let dead_lettered = group.dead_lettered().await?;
            let now = self.parts.clock.now();
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
    async fn work(&mut self, mut batch: Batch) {
        let attempts_max = self.function().map_or(u32::MAX, |f| f.config.async_policy.max_attempts);
        if attempts_max < batch.attempt && 1 < batch.entries.len() {
            // Of a batch that failed for good: each entry runs once more by itself.
            self.own = true;
            batch.entries.truncate(1);
        }
        let stream = self.options.stream.clone();
        let (payload, taken) = batch::event(&stream, &batch.entries, PAYLOAD_BYTES_MAX);
        if taken < batch.entries.len() {
            // The rest is ours already and comes next.
            self.own = true;
            batch.entries.truncate(taken.max(1));
        }
        if taken == 0 {
            return self
                .dead_letter(&batch, "the entry is larger than an event may be (6 MB)")
                .await;
        }
        let request_id = RequestId::new();
        let ids: Vec<String> = batch.entries.iter().map(|entry| entry.id.clone()).collect();
        let mut refusals = 0;
        loop {
            let event =
                Event { origin: Origin::Redis(self.id.name.clone()), payload: payload.clone() };
            let (tried, policy) = match self.function() {
                None => (gone(&self.id), Default::default()),
                Some(function) => {
                    let policy = function.config.async_policy.clone();
                    let mode = InvocationMode::Async { attempt: batch.attempt };
                    let invocation = Invocation { request_id, function, event, mode };
                    (self.attempt(invocation, &ids).await, policy)
                }
            };
            let pause = match tried {
                Tried::Done => {
                    metrics::batch("done");
                    return self.settle(&End::Acknowledge(&ids)).await;
                }
                Tried::Failed(_)
                    if policy.max_attempts <= batch.attempt && 1 < batch.entries.len() =>
                {
                    metrics::batch("failed");
                    self.own = true;
                    let alone = policy.max_attempts.saturating_add(1);
                    return self.settle(&End::Attempt(&ids, alone)).await;
                }
                Tried::Failed(failure) if policy.max_attempts <= batch.attempt => {
                    return self.dead_letter(&batch, &failure.error_message).await;
                }
                Tried::Failed(_) => {
                    metrics::batch("failed");
                    batch.attempt += 1;
                    refusals = 0;
                    let next = batch.attempt;
                    self.settle(&End::Attempt(&ids, next)).await;
                    policy.retry_delay
                }
                Tried::Refused(refusal) => {
                    metrics::batch("refused");
                    refusals += 1;
                    self.parts.policy.pause(&refusal, refusals, rand::random())
                }
                Tried::CutOff => {
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

    fn function(&self) -> Option<std::sync::Arc<Revision>> {
        let (namespace, name) = (&self.id.function.namespace, &self.id.function.name);
        self.parts.catalog.resolve(namespace, name, Qualifier::Latest).ok()
    }

    async fn attempt(&mut self, invocation: Invocation, ids: &[String]) -> Tried {
        let mut running = dispatcher::spawn(&self.parts, invocation);
        let work = self.stop.work.clone();
        loop {
            tokio::select! {
                biased;
                outcome = running.answer() => {
                    return match outcome.verdict {
                        Verdict::Returned(_) => Tried::Done,
                        Verdict::Failed(failure) => Tried::Failed(failure),
                        Verdict::Refused(refusal) => Tried::Refused(refusal),
                    };
                }
                () = work.cancelled() => return Tried::CutOff,
                () = sleep(RENEW_EVERY) => {
                    if !self.renew(ids).await {
                        return Tried::CutOff;
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

    /// Whether the entries may still be ours. Redis being away does not mean that they are not.
    async fn renew(&mut self, ids: &[String]) -> bool {
        let Some(group) = &mut self.group else { return true };
        match group.renew(ids).await {
            Ok(true) => true,
            Ok(false) => {
                warn!(trigger = %self.id, "Another node took over a running batch of a stream");
                false
            }
            Err(error) => {
                let now = self.parts.clock.now();
                self.states.note(&self.id, Some(group::reason(&error)), now);
                true
            }
        }
    }

    async fn dead_letter(&mut self, batch: &Batch, reason: &str) {
        metrics::batch("dead_lettered");
        let (number, first) = (batch.entries.len(), batch.entries.first().map(|e| &e.id));
        warn!(trigger = %self.id, number, first, "Entries of a stream were dead_lettered");
        let reason: String = reason.chars().take(1_000).collect();
        self.settle(&End::Bury(&batch.entries, &reason)).await;
        if let Some(group) = &mut self.group
            && let Ok(dead_lettered) = group.dead_lettered().await
        {
            self.states.dead_lettered(&self.id, dead_lettered);
        }
    }

    /// Says the end of a batch to Redis, however long it is away, until the server stops: a batch
    /// whose end is not known there runs again.
    async fn settle(&mut self, end: &End<'_>) {
        loop {
            let settled = match &mut self.group {
                Some(group) => end.say(group).await,
                None => match Group::connect(self.url.expose(), self.options.clone()).await {
                    Ok(group) => end.say(self.group.insert(group)).await,
                    Err(error) => Err(error),
                },
            };
            match settled {
                Ok(()) => return self.present(),
                Err(error) => self.away(&error).await,
            }
            self.own = true;
            if self.stop.intake.is_cancelled() {
                warn!(trigger = %self.id, "The end of a batch could not be kept: it runs again");
                return;
            }
        }
    }

    fn present(&mut self) {
        self.errors = 0;
        if self.states.note(&self.id, None, self.parts.clock.now()) {
            info!(trigger = %self.id, "The stream is read");
        }
    }

    /// Redis failed: a new connection after a while.
    async fn away(&mut self, error: &redis::RedisError) {
        self.group = None;
        let reason = group::reason(error);
        if self.states.note(&self.id, Some(reason.clone()), self.parts.clock.now()) {
            warn!(reason, trigger = %self.id, "The stream cannot be read");
        }
        let factor = 1u32 << self.errors.min(16);
        self.errors = self.errors.saturating_add(1);
        let pause = AWAY_PAUSE.0.saturating_mul(factor).min(AWAY_PAUSE.1);
        self.stop.intake.run_until_cancelled(sleep(pause)).await;
    }
}

impl End<'_> {
    async fn say(&self, group: &mut Group) -> RedisResult<()> {
        match self {
            Self::Acknowledge(ids) => group.acknowledge(ids).await,
            Self::Attempt(ids, attempt) => group.set_attempt(ids, *attempt).await,
            Self::Bury(entries, reason) => group.dead_letter(entries, reason).await,
        }
    }
}

fn gone(id: &TriggerId) -> Tried {
    // The trigger itself is about to go, or the catalog is a moment behind.
    Tried::Refused(Refusal::Unavailable { reason: format!("function `{}` is gone", id.function) })
}

#[cfg(test)]
#[path = "redis_tests.rs"]
mod tests;
