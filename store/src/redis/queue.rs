//! The queues in Redis: pushing, readiness, states, figures, retention.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{
    CancelOutcome, EventQueue, EventSource, NewEvent, PushOutcome, QueueError, QueueName,
    QueueStats, ReadyQueues,
};
use hanshu_core::{AsyncState, Clock, Digest, InvocationState, RequestId, Timestamp};
use tokio_util::task::TaskTracker;

use super::connection::{QueueScripts, RedisConnection};
use super::context::RedisContext;
use super::durability;
use super::ended_stream::EndedStream;
use super::keys::RedisKeys;
use super::push_batches::PushSender;
use super::replies::{EventStateReply, QueueStatsReply, ReadyQueueReply};
use super::source::RedisEventSource;
use crate::ready_signal::ReadySignal;
use crate::stored::{self, StoredEventState};

/// How Redis is used.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// Keeps installations apart that share one Redis: part of every key. Letters, digits, `-`.
    pub name: String,
    /// The longest wait for one answer.
    pub deadline: Duration,
    /// How long Redis keeps an ended event if it is not collected. Longer than the keep time
    /// that `collect` is called with.
    pub keep: Duration,
}

/// Queues in Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RedisQueue(Arc<RedisContext>);

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
    /// [`QueueError::Unavailable`] if no server answers within the deadline, or if it
    /// is older than Redis 7.
    pub async fn connect(
        url: &str,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
        options: &RedisOptions,
    ) -> Result<Self, QueueError> {
        let connection = RedisConnection::connect(url, options.deadline).await?;
        durability::check_version(&connection).await?;
        let keys = RedisKeys::new(&options.name);
        let signal = Arc::new(ReadySignal::default());
        let pushes =
            PushSender::start(connection.clone(), keys.clone(), Arc::clone(&signal), tasks);
        let (scripts, keep) = (QueueScripts::default(), options.keep);
        Ok(Self(Arc::new(RedisContext { connection, scripts, keys, clock, keep, signal, pushes })))
    }

    /// Where ends are written, to be moved into a database.
    pub fn ended_stream(&self) -> EndedStream {
        EndedStream { context: Arc::clone(&self.0) }
    }

    async fn stats_of(
        &self,
        queue: QueueName,
        dead_lettered: u64,
    ) -> Result<QueueStats, QueueError> {
        let RedisContext { connection, scripts, keys, .. } = &*self.0;
        let mut stats = scripts.stats.prepare_invoke();
        stats.key(keys.waiting(&queue)).key(keys.held(&queue)).key(keys.retried(&queue));
        stats.arg(keys.events());
        let figures: QueueStatsReply = connection.run(&stats).await?;
        let oldest = match figures.oldest_us.as_str() {
            "" => None,
            text => {
                let us = text.parse().map_err(|error| stored::unreadable(&queue, error))?;
                Some(stored::time(us)?)
            }
        };
        let QueueStatsReply { waiting, running, .. } = figures;
        Ok(QueueStats { queue, waiting, running, oldest, dead_lettered })
    }
}

#[async_trait]
impl EventQueue for RedisQueue {
    async fn push(&self, event: NewEvent) -> Result<PushOutcome, QueueError> {
        self.0.pushes.push(event).await
    }

    async fn ready(&self, max: usize) -> Result<ReadyQueues, QueueError> {
        let RedisContext { connection, keys, clock, .. } = &*self.0;
        let now = clock.now().as_microsecond();
        let mut range = redis::cmd("ZRANGE");
        range.arg(keys.queues()).arg(0).arg(max.saturating_sub(1)).arg("WITHSCORES");
        let firsts: Vec<ReadyQueueReply> = connection.query(&range).await?;
        let next_due = match firsts.first() {
            Some(first) if now < first.at_us => Some(stored::time(first.at_us)?),
            Some(_) | None => None,
        };
        let due = firsts.into_iter().take_while(|first| first.at_us <= now).take(max);
        let queues = due.map(|first| queue_name(&first.queue)).collect::<Result<_, _>>()?;
        Ok(ReadyQueues { queues, next_due })
    }

    async fn changed(&self, at_most: Duration) {
        self.0.signal.wait(at_most.min(Self::POLL)).await;
    }

    fn source(&self, queue: &QueueName) -> Arc<dyn EventSource> {
        Arc::new(RedisEventSource::new(Arc::clone(&self.0), queue.clone()))
    }

    async fn state(&self, request_id: RequestId) -> Result<Option<AsyncState>, QueueError> {
        let RedisContext { connection, keys, .. } = &*self.0;
        let mut fields = redis::cmd("HMGET");
        fields.arg(keys.event(request_id)).arg(&EventStateReply::FIELDS);
        let reply: EventStateReply = connection.query(&fields).await?;
        // A hash always has a queue: without one there is no such hash.
        let (Some(queue), Some(version), Some(origin), Some(state)) =
            (reply.queue, reply.version, reply.origin, reply.state)
        else {
            return Ok(None);
        };
        let state = StoredEventState {
            request_id,
            queue,
            version,
            origin,
            state,
            attempts: reply.attempts.unwrap_or_default(),
            begun: reply.begun.unwrap_or_default(),
            accepted_us: reply.accepted_us.unwrap_or_default(),
            ended_us: reply.ended_us,
            result: reply.result,
            error: reply.error,
            rerun_of: reply.rerun_of,
        };
        state.try_into().map(Some)
    }

    async fn cancel(&self, request_id: RequestId) -> Result<CancelOutcome, QueueError> {
        let RedisContext { connection, scripts, keys, clock, keep, .. } = &*self.0;
        let mut queue = redis::cmd("HGET");
        queue.arg(keys.event(request_id)).arg("queue");
        let queue: Option<String> = connection.query(&queue).await?;
        let Some(queue) = queue else { return Ok(CancelOutcome::Unknown) };
        let queue = queue_name(&queue)?;
        let id = request_id.to_string();
        let mut cancel = scripts.cancel.prepare_invoke();
        cancel.key(keys.queues()).key(keys.waiting(&queue)).key(keys.held(&queue));
        cancel.key(keys.event(request_id)).key(keys.retried(&queue)).key(keys.ended());
        cancel.key(keys.pins()).key(keys.ended_stream());
        cancel.arg(queue.to_string()).arg(&id).arg(clock.now().as_microsecond());
        cancel.arg(i64::try_from(keep.as_millis()).unwrap_or(i64::from(u32::MAX)));
        cancel.arg(EndedStream::UNREAD_MAX);
        let found: String = connection.run(&cancel).await?;
        match found.as_str() {
            "" => Ok(CancelOutcome::Unknown),
            found => Ok(match stored::read_state(&id, found)? {
                InvocationState::Queued | InvocationState::Retrying => CancelOutcome::Cancelled,
                InvocationState::Running => CancelOutcome::Requested,
                ended @ (InvocationState::Succeeded
                | InvocationState::Failed
                | InvocationState::Expired
                | InvocationState::Cancelled) => CancelOutcome::Ended(ended),
            }),
        }
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        let RedisContext { connection, keys, .. } = &*self.0;
        let mut all = redis::cmd("ZRANGE");
        let live: Vec<String> = connection.query(all.arg(keys.queues()).arg(0).arg(-1)).await?;
        let mut dead_lettered: std::collections::BTreeMap<String, u64> =
            connection.query(redis::cmd("HGETALL").arg(keys.dead_lettered())).await?;
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
        let RedisContext { connection, scripts, keys, .. } = &*self.0;
        let mut collect = scripts.collect.prepare_invoke();
        collect.key(keys.ended()).key(keys.dead_lettered());
        collect.arg(ended_before.as_microsecond()).arg(Self::COLLECT_MAX).arg(keys.events());
        let mut dropped = 0;
        loop {
            let some: usize = connection.run(&collect).await?;
            dropped += some as u64;
            if some < Self::COLLECT_MAX {
                return Ok(dropped);
            }
        }
    }

    async fn pinned(&self) -> Result<Vec<Digest>, QueueError> {
        let RedisContext { connection, keys, .. } = &*self.0;
        let pins: Vec<String> = connection.query(redis::cmd("HKEYS").arg(keys.pins())).await?;
        pins.iter()
            .map(|text| text.parse().map_err(|error| stored::unreadable(text, error)))
            .collect()
    }

    async fn durability_warnings(&self) -> Vec<String> {
        durability::durability_warnings(&self.0.connection).await
    }

    fn close(&self) {
        self.0.pushes.close();
    }
}

fn queue_name(text: &str) -> Result<QueueName, QueueError> {
    text.parse().map_err(|error| stored::unreadable(text, error))
}
