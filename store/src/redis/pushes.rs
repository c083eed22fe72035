//! The task through which events are pushed: whatever waits for it goes to Redis together, so that
//! one script, one round trip and one sync to disk serve up to [`TOGETHER_MAX`] callers.

use std::collections::VecDeque;
use std::sync::Arc;

use hanshu_core::ports::{NewEvent, PushOutcome, QueueError};
use redis::Script;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::call::Link;
use super::keys::Keys;
use crate::stored;
use crate::wake::Wake;

/// Events in one script, at most: others of Redis wait as long as it runs.
const TOGETHER_MAX: usize = 64;
/// Bytes of payload in one script, at most, unless one event alone has more.
const TOGETHER_BYTES: usize = 1 << 20;
/// Events that wait for the task, at most; further callers wait for their place.
const WAITING_MAX: usize = 4 * TOGETHER_MAX;

/// Where events go in.
#[derive(Debug)]
pub(super) struct Pushes {
    jobs: mpsc::Sender<Job>,
    link: Link,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Job {
    event: NewEvent,
    origin: String,
    reply: oneshot::Sender<Result<PushOutcome, QueueError>>,
}

/// The task. It ends when it is closed, or when nobody can push any more.
#[derive(Debug)]
struct Pusher {
    script: Script,
    link: Link,
    keys: Keys,
    wake: Arc<Wake>,
}

impl Pushes {
    /// Starts the task.
    pub(super) fn start(link: Link, keys: Keys, wake: Arc<Wake>, tasks: &TaskTracker) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let stop = CancellationToken::new();
        let script = Script::new(include_str!("push.lua"));
        let pusher = Pusher { script, link: link.clone(), keys, wake };
        tasks.spawn(pusher.serve(waiting, stop.clone()));
        Self { jobs, link, stop }
    }

    /// Pushes an event. Whoever stops waiting before it is under way pushes nothing.
    pub(super) async fn push(&self, event: NewEvent) -> Result<PushOutcome, QueueError> {
        let origin = stored::origin_text(&event.event.origin)?;
        let (reply, answer) = oneshot::channel();
        let pushed = async {
            self.jobs.send(Job { event, origin, reply }).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        self.link.in_time(pushed).await
    }

    /// Ends the task, once it has pushed what it was given.
    pub(super) fn close(&self) {
        self.stop.cancel();
    }
}

impl Pusher {
    async fn serve(self, mut jobs: mpsc::Receiver<Job>, stop: CancellationToken) {
        let (mut received, mut waiting) = (Vec::with_capacity(TOGETHER_MAX), VecDeque::new());
        let mut stopping = false;
        loop {
            let count = tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    jobs.close();
                    continue;
                }
                count = jobs.recv_many(&mut received, TOGETHER_MAX) => count,
            };
            if count == 0 {
                return;
            }
            waiting.extend(received.drain(..));
            while !waiting.is_empty() {
                self.push(take_some(&mut waiting)).await;
            }
        }
    }

    async fn push(&self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let answers = self.ask(&jobs).await;
        if answers.as_ref().is_ok_and(|answers| answers.iter().any(|(what, _)| *what == 0)) {
            self.wake.ring();
        }
        let mut answers = answers.map(Vec::into_iter);
        for Job { event, reply, .. } in jobs {
            let outcome = match &mut answers {
                Ok(answers) => match answers.next() {
                    Some((0, _)) => Ok(PushOutcome::Accepted),
                    Some((1, _)) => Ok(PushOutcome::Duplicate),
                    Some((_, waiting)) => Err(QueueError::Full { queue: event.queue, waiting }),
                    None => Err(QueueError::Internal("Redis answered for fewer events".into())),
                },
                Err(error) => Err(error.clone()),
            };
            drop(reply.send(outcome));
        }
    }

    /// What became of each, and how many wait in its queue.
    async fn ask(&self, jobs: &[Job]) -> Result<Vec<(u8, u64)>, QueueError> {
        let keys = &self.keys;
        let mut push = self.script.prepare_invoke();
        push.key(keys.queues()).key(keys.seq()).key(keys.ticks()).key(keys.pins());
        for Job { event, origin, .. } in jobs {
            push.key(keys.waiting(&event.queue)).key(keys.event(event.request_id));
            let (tick, tick_at) = event.tick.as_ref().map_or((String::new(), 0), |tick| {
                (tick.trigger.to_string(), tick.at.as_microsecond())
            });
            let accepted = event.accepted_at.as_microsecond();
            push.arg(event.queue.to_string()).arg(event.request_id.to_string()).arg(accepted);
            push.arg(event.max_waiting).arg(tick).arg(tick_at).arg(event.revision.as_str());
            push.arg(event.version.to_string()).arg(origin);
            push.arg(accepted).arg(event.expires_at.as_microsecond());
            push.arg(&event.event.payload[..]);
        }
        self.link.run(&push).await
    }
}

/// The first of those who wait, as many as may go together; not those whose callers are gone.
fn take_some(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let (mut some, mut bytes) = (Vec::new(), 0);
    while let Some(job) = waiting.pop_front_if(|job| {
        some.is_empty() || bytes + job.event.event.payload.len() <= TOGETHER_BYTES
    }) {
        if !job.reply.is_closed() {
            bytes += job.event.event.payload.len();
            some.push(job);
        }
    }
    some
}

fn ended() -> QueueError {
    QueueError::Internal("the queue's task has ended".into())
}
