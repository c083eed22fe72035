//! The task that pushes events: all events that wait for it go to Redis in one batch, so that one
//! script, one round trip and one sync to disk serve up to [`BATCH_MAX`] callers.
//!
//! A script for each event needs a round trip and a turn of Redis for each. In batches Redis spends
//! a third less processor time on an event (docs/adr/0006-redis-queue.md).

use std::collections::VecDeque;
use std::sync::Arc;

use hanshu_core::ports::{NewEvent, PushOutcome, QueueError};
use redis::Script;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::RedisConnection;
use super::keys::RedisKeys;
use super::replies::PushReply;
use crate::ready_signal::ReadySignal;
use crate::stored::StoredNewEvent;

/// Events in one script, at most: Redis serves no other client while it runs.
const BATCH_MAX: usize = 64;
/// Bytes of payload in one script, at most, unless one event alone has more.
const BATCH_BYTES: usize = 1 << 20;
/// Events that wait for the task, at most; further callers wait to be let in.
const WAITING_MAX: usize = 4 * BATCH_MAX;

/// Hands events to the task.
#[derive(Debug)]
pub(super) struct PushSender {
    pushes: mpsc::Sender<PendingPush>,
    connection: RedisConnection,
    stop: CancellationToken,
}

#[derive(Debug)]
struct PendingPush {
    event: NewEvent,
    reply: oneshot::Sender<Result<PushOutcome, QueueError>>,
}

/// The task. It ends when it is closed, or when every sender is dropped.
#[derive(Debug)]
struct PushTask {
    script: Script,
    connection: RedisConnection,
    keys: RedisKeys,
    signal: Arc<ReadySignal>,
}

impl PushSender {
    /// Starts the task.
    pub(super) fn start(
        connection: RedisConnection,
        keys: RedisKeys,
        signal: Arc<ReadySignal>,
        tasks: &TaskTracker,
    ) -> Self {
        let (pushes, waiting) = mpsc::channel(WAITING_MAX);
        let stop = CancellationToken::new();
        let script = Script::new(include_str!("push.lua"));
        let pusher = PushTask { script, connection: connection.clone(), keys, signal };
        tasks.spawn(pusher.serve(waiting, stop.clone()));
        Self { pushes, connection, stop }
    }

    /// Pushes an event. A caller that stops waiting before its batch is sent pushes nothing.
    pub(super) async fn push(&self, event: NewEvent) -> Result<PushOutcome, QueueError> {
        let (reply, answer) = oneshot::channel();
        let pushed = async {
            self.pushes.send(PendingPush { event, reply }).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        self.connection.in_time(pushed).await
    }

    /// Ends the task, once it has pushed what it was given.
    pub(super) fn close(&self) {
        self.stop.cancel();
    }
}

impl PushTask {
    async fn serve(self, mut pushes: mpsc::Receiver<PendingPush>, stop: CancellationToken) {
        let (mut received, mut waiting) = (Vec::with_capacity(BATCH_MAX), VecDeque::new());
        let mut stopping = false;
        loop {
            let count = tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    pushes.close();
                    continue;
                }
                count = pushes.recv_many(&mut received, BATCH_MAX) => count,
            };
            if count == 0 {
                return;
            }
            waiting.extend(received.drain(..));
            while !waiting.is_empty() {
                self.push(next_batch(&mut waiting)).await;
            }
        }
    }

    async fn push(&self, pushes: Vec<PendingPush>) {
        if pushes.is_empty() {
            return;
        }
        let answers = self.send(&pushes).await;
        if answers.as_ref().is_ok_and(|answers| answers.iter().any(|answer| answer.code == 0)) {
            self.signal.notify();
        }
        let mut answers = answers.map(Vec::into_iter);
        for PendingPush { event, reply, .. } in pushes {
            let outcome = match &mut answers {
                Ok(answers) => match answers.next() {
                    Some(PushReply { code: 0, .. }) => Ok(PushOutcome::Accepted),
                    Some(PushReply { code: 1, .. }) => Ok(PushOutcome::Duplicate),
                    Some(PushReply { waiting, .. }) => {
                        Err(QueueError::Full { queue: event.queue, waiting })
                    }
                    None => Err(QueueError::Internal("Redis answered for fewer events".into())),
                },
                Err(error) => Err(error.clone()),
            };
            drop(reply.send(outcome));
        }
    }

    /// Pushes them with one script; returns the result of each.
    async fn send(&self, pushes: &[PendingPush]) -> Result<Vec<PushReply>, QueueError> {
        let keys = &self.keys;
        let mut push = self.script.prepare_invoke();
        push.key(keys.queues()).key(keys.seq()).key(keys.ticks()).key(keys.pins());
        for PendingPush { event, .. } in pushes {
            let stored = StoredNewEvent::of(event)?;
            push.key(keys.waiting(&event.queue)).key(keys.event(event.request_id));
            let (tick, tick_at) = event.tick.as_ref().map_or((String::new(), 0), |tick| {
                (tick.trigger.to_string(), tick.at.as_microsecond())
            });
            // An event is due when it is accepted.
            push.arg(stored.queue).arg(stored.request_id).arg(stored.accepted_us);
            push.arg(event.max_waiting).arg(tick).arg(tick_at).arg(stored.revision);
            push.arg(stored.version).arg(stored.origin);
            push.arg(stored.accepted_us).arg(stored.expires_us).arg(&stored.payload[..]);
            push.arg(stored.rerun_of.unwrap_or_default());
        }
        self.connection.run(&push).await
    }
}

/// The first of the waiting pushes, as many as one script may have; not those whose callers are
/// gone.
fn next_batch(waiting: &mut VecDeque<PendingPush>) -> Vec<PendingPush> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(push) = waiting.pop_front_if(|push| {
        batch.is_empty() || bytes + push.event.event.payload.len() <= BATCH_BYTES
    }) {
        if !push.reply.is_closed() {
            bytes += push.event.event.payload.len();
            batch.push(push);
        }
    }
    batch
}

fn ended() -> QueueError {
    QueueError::Internal("the queue's task has ended".into())
}
