//! Queues in Redis 7 or newer: one hash for each event, sorted sets for who waits and who is
//! held, a script wherever several keys change at once.
//!
//! Sorted sets, not streams with consumer groups: a hold is as long as its claim says and can be
//! renewed, an event that is put back stands where its due time says, and the earliest time of
//! every queue is one lookup. A pending list knows only how long ago something was read, and is
//! searched from its start.

mod call;
mod durability;
mod keys;
mod pushes;
mod source;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{
    EventQueue, EventSource, NewEvent, PushOutcome, QueueError, QueueName, QueueStats, ReadyQueues,
};
use hanshu_core::{AsyncState, Clock, Digest, RequestId, Timestamp};
use tokio_util::task::TaskTracker;

use crate::stored::{self, StoredState};
use crate::wake::Wake;
use call::{Link, Scripts};
use keys::Keys;
use pushes::Pushes;
use source::RedisSource;

/// How Redis is used.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// Keeps installations apart that share one Redis: part of every key. Letters, digits, `-`.
    pub name: String,
    /// The longest wait for one answer.
    pub deadline: Duration,
    /// How long Redis keeps an ended event should nobody collect it. Longer than the keep time
    /// that `collect` is called with.
    pub keep: Duration,
}

/// Queues in Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RedisQueue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Link,
    scripts: Scripts,
    keys: Keys,
    clock: Arc<dyn Clock>,
    keep: Duration,
    wake: Arc<Wake>,
    pushes: Pushes,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            name: "hanshu".into(),
            deadline: Duration::from_secs(5),
            keep: Duration::from_secs(25 * 3600),
        }
    }
}

impl RedisQueue {
    /// How soon `changed` notices what another process pushed.
    const POLL: Duration = Duration::from_millis(200);
    /// Ended events dropped by one script, so that Redis serves others in between.
    const COLLECT_MAX: usize = 500;

    /// Connects to `redis://…`. What pushes runs on `tasks` until the queue is closed, or until this
    /// and all its clones and sources are dropped.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`] if nobody answers there, or not within the deadline, or if it
    /// is older than Redis 7.
    pub async fn connect(
        url: &str,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
        options: &RedisOptions,
    ) -> Result<Self, QueueError> {
        let link = Link::connect(url, options.deadline).await?;
        durability::check_version(&link).await?;
        let (keys, wake) = (Keys::of(&options.name), Arc::new(Wake::default()));
        let pushes = Pushes::start(link.clone(), keys.clone(), Arc::clone(&wake), tasks);
        let (scripts, keep) = (Scripts::default(), options.keep);
        Ok(Self(Arc::new(Inner { link, scripts, keys, clock, keep, wake, pushes })))
    }

    async fn stats_of(
        &self,
        queue: QueueName,
        dead_lettered: u64,
    ) -> Result<QueueStats, QueueError> {
        let Inner { link, scripts, keys, .. } = &*self.0;
        let mut stats = scripts.stats.prepare_invoke();
        stats.key(keys.waiting(&queue)).key(keys.held(&queue)).key(keys.retried(&queue));
        stats.arg(keys.events());
        let (waiting, running, oldest): (u64, u64, String) = link.run(&stats).await?;
        let oldest = match oldest.as_str() {
            "" => None,
            text => {
                let us = text.parse().map_err(|error| stored::unreadable(&queue, error))?;
                Some(stored::time(us)?)
            }
        };
        Ok(QueueStats { queue, waiting, running, oldest, dead_lettered })
    }
}

#[async_trait]
impl EventQueue for RedisQueue {
    async fn push(&self, event: NewEvent) -> Result<PushOutcome, QueueError> {
        self.0.pushes.push(event).await
    }

    async fn ready(&self, max: usize) -> Result<ReadyQueues, QueueError> {
        let Inner { link, keys, clock, .. } = &*self.0;
        let now = clock.now().as_microsecond();
        let mut range = redis::cmd("ZRANGE");
        range.arg(keys.queues()).arg(0).arg(max.saturating_sub(1)).arg("WITHSCORES");
        let first: Vec<(String, i64)> = link.ask(&range).await?;
        let next_due = match first.first() {
            Some((_, at)) if now < *at => Some(stored::time(*at)?),
            Some(_) | None => None,
        };
        let due = first.into_iter().take_while(|(_, at)| *at <= now).take(max);
        let queues = due.map(|(name, _)| queue_name(&name)).collect::<Result<_, _>>()?;
        Ok(ReadyQueues { queues, next_due })
    }

    async fn changed(&self, at_most: Duration) {
        self.0.wake.wait(at_most.min(Self::POLL)).await;
    }

    fn source(&self, queue: &QueueName) -> Arc<dyn EventSource> {
        Arc::new(RedisSource { inner: Arc::clone(&self.0), queue: queue.clone() })
    }

    async fn state(&self, request_id: RequestId) -> Result<Option<AsyncState>, QueueError> {
        let Inner { link, keys, .. } = &*self.0;
        let mut fields = redis::cmd("HMGET");
        fields.arg(keys.event(request_id)).arg(&[
            "queue", "version", "origin", "state", "attempts", "begun", "accepted", "ended",
            "result", "error",
        ]);
        let row: Row = link.ask(&fields).await?;
        // A hash always has a queue; one without is a hash that is not there.
        let (Some(queue), Some(version), Some(origin), Some(state)) = (row.0, row.1, row.2, row.3)
        else {
            return Ok(None);
        };
        let row = StoredState {
            request_id,
            queue,
            version,
            origin,
            state,
            attempts: row.4.unwrap_or_default(),
            begun: row.5.unwrap_or_default(),
            accepted_us: row.6.unwrap_or_default(),
            ended_us: row.7,
            result: row.8,
            error: row.9,
        };
        row.try_into().map(Some)
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        let Inner { link, keys, .. } = &*self.0;
        let mut all = redis::cmd("ZRANGE");
        let live: Vec<String> = link.ask(all.arg(keys.queues()).arg(0).arg(-1)).await?;
        let mut dead_lettered: std::collections::BTreeMap<String, u64> =
            link.ask(redis::cmd("HGETALL").arg(keys.dead_lettered())).await?;
        for name in live {
            dead_lettered.entry(name).or_insert(0);
        }
        let mut stats = Vec::with_capacity(dead_lettered.len());
        for (name, dead_lettered) in dead_lettered {
            stats.push(self.stats_of(queue_name(&name)?, dead_lettered).await?);
        }
        Ok(stats)
    }

    async fn collect(&self, ended_before: Timestamp) -> Result<u64, QueueError> {
        let Inner { link, scripts, keys, .. } = &*self.0;
        let mut collect = scripts.collect.prepare_invoke();
        collect.key(keys.ended()).key(keys.dead_lettered());
        collect.arg(ended_before.as_microsecond()).arg(Self::COLLECT_MAX).arg(keys.events());
        let mut dropped = 0;
        loop {
            let some: usize = link.run(&collect).await?;
            dropped += some as u64;
            if some < Self::COLLECT_MAX {
                return Ok(dropped);
            }
        }
    }

    async fn pinned(&self) -> Result<Vec<Digest>, QueueError> {
        let Inner { link, keys, .. } = &*self.0;
        let pins: Vec<String> = link.ask(redis::cmd("HKEYS").arg(keys.pins())).await?;
        pins.iter()
            .map(|text| text.parse().map_err(|error| stored::unreadable(text, error)))
            .collect()
    }

    async fn durability_warnings(&self) -> Vec<String> {
        durability::durability_warnings(&self.0.link).await
    }

    fn close(&self) {
        self.0.pushes.close();
    }
}

/// queue, version, origin, state, attempts, begun, accepted, ended, result, error
type Row = (
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<String>,
);

fn queue_name(text: &str) -> Result<QueueName, QueueError> {
    text.parse().map_err(|error| stored::unreadable(text, error))
}
