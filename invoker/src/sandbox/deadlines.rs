//! Deadlines of events, and the reading of output while an event runs that takes longer than a moment.
//!
//! A timer for each event was not enough: entering one into the runtime's timers wakes the reactor,
//! and a warm call, all of 173 µs at the client (`sync_python_1` in docs/promises.md), woke it five
//! times where two are needed. So one task checks all sandboxes every 5 ms while any of them is in
//! use, and sleeps until the next deadline otherwise. A warm call only notes its deadline under the
//! mutex of its own sandbox.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hanshu_core::{RequestId, lock};
use tokio::sync::Notify;
use tokio::time::{self, Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::sandbox::logs::SandboxLog;
use crate::tasks::BackgroundTasks;

/// Between two checks: a deadline is noticed at most so late, and output is read while its event runs
/// if the event takes longer. Until then the pipe holds it.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);
/// Checks without a new event before the task sleeps.
const IDLE_CHECKS: u32 = 20;

/// The event that runs in a sandbox.
#[derive(Debug)]
pub(crate) struct EventWatch {
    event: Mutex<Option<WatchedEvent>>,
    log: Arc<SandboxLog>,
}

/// An event that was handed to a sandbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CurrentEvent {
    pub(crate) request_id: RequestId,
    pub(crate) begun: Instant,
    pub(crate) deadline: Instant,
}

#[derive(Debug)]
struct WatchedEvent {
    event: CurrentEvent,
    expired: bool,
    waker: Waker,
    /// Reads the output.
    follower: Option<AbortOnDropHandle<()>>,
}

/// Resolves when an event's deadline has passed. The event is watched from the first poll until this
/// is dropped.
pub(crate) struct DeadlineExpiry<'a> {
    watch: &'a EventWatch,
    watcher: &'a DeadlineWatcher,
    event: CurrentEvent,
    watched: bool,
}

/// The sandboxes to check, and whether the task that does so sleeps.
#[derive(Debug, Default)]
pub(crate) struct DeadlineWatcher {
    sandboxes: Mutex<Vec<Weak<EventWatch>>>,
    asleep: AtomicBool,
    wake: Notify,
}

/// When to check again.
enum NextCheck {
    /// An event has just begun.
    Soon,
    /// At the next deadline, if there is one.
    At(Option<Instant>),
}

impl EventWatch {
    /// Of a sandbox whose output goes to `log`.
    pub(crate) fn new(log: Arc<SandboxLog>) -> Self {
        Self { event: Mutex::default(), log }
    }

    /// Watches an event until its deadline.
    pub(crate) fn until_deadline<'a>(
        &'a self,
        watcher: &'a DeadlineWatcher,
        event: CurrentEvent,
    ) -> DeadlineExpiry<'a> {
        DeadlineExpiry { watch: self, watcher, event, watched: false }
    }

    fn check(&self, tasks: &BackgroundTasks, now: Instant) -> NextCheck {
        let mut watched = lock(&self.event);
        let Some(watched) = watched.as_mut() else { return NextCheck::At(None) };
        let CurrentEvent { request_id, begun, deadline } = watched.event;
        if watched.expired {
            return NextCheck::At(None);
        }
        if deadline <= now {
            tracing::debug!(%request_id, "An event has reached its deadline");
            watched.expired = true;
            watched.waker.wake_by_ref();
            return NextCheck::At(None);
        }
        if watched.follower.is_some() {
            return NextCheck::At(Some(deadline));
        }
        if begun + CHECK_INTERVAL <= now {
            let log = Arc::clone(&self.log);
            let follower = tasks.spawn(async move { log.follow().await });
            watched.follower = Some(AbortOnDropHandle::new(follower));
            return NextCheck::At(Some(deadline));
        }
        NextCheck::Soon
    }
}

impl Future for DeadlineExpiry<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut watched = lock(&this.watch.event);
        match watched.as_mut() {
            Some(watched) if this.watched => {
                if watched.expired {
                    return Poll::Ready(());
                }
                watched.waker.clone_from(cx.waker());
            }
            _ => {
                let (event, waker) = (this.event, cx.waker().clone());
                *watched = Some(WatchedEvent { event, expired: false, waker, follower: None });
                drop(watched);
                this.watched = true;
                this.watcher.event_begun();
            }
        }
        Poll::Pending
    }
}

impl Drop for DeadlineExpiry<'_> {
    fn drop(&mut self) {
        if self.watched {
            // Dropped after the mutex is unlocked: it may end the follower.
            let watched = lock(&self.watch.event).take();
            drop(watched);
        }
    }
}

impl DeadlineWatcher {
    /// Checks this sandbox from now on, as long as it exists.
    pub(crate) fn add(&self, sandbox: &Arc<EventWatch>) {
        lock(&self.sandboxes).push(Arc::downgrade(sandbox));
    }

    fn event_begun(&self) {
        // Either this sees that the task sleeps, or the task's last check sees the event.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    fn check(&self, tasks: &BackgroundTasks, now: Instant) -> NextCheck {
        let mut next = NextCheck::At(None);
        lock(&self.sandboxes).retain(|sandbox| {
            let Some(sandbox) = sandbox.upgrade() else { return false };
            next = match (&next, sandbox.check(tasks, now)) {
                (NextCheck::Soon, _) | (_, NextCheck::Soon) => NextCheck::Soon,
                (NextCheck::At(one), NextCheck::At(other)) => {
                    NextCheck::At(one.iter().copied().chain(other).min())
                }
            };
            true
        });
        next
    }

    async fn sleep(&self, tasks: &BackgroundTasks) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        match self.check(tasks, Instant::now()) {
            NextCheck::Soon => {}
            NextCheck::At(None) => self.wake.notified().await,
            NextCheck::At(Some(deadline)) => {
                let _ = time::timeout_at(deadline, self.wake.notified()).await;
            }
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}

/// Checks the sandboxes until it is dropped.
pub(crate) async fn run(watcher: Arc<DeadlineWatcher>, tasks: BackgroundTasks) {
    let mut idle_checks = 0;
    loop {
        time::sleep(CHECK_INTERVAL).await;
        idle_checks = match watcher.check(&tasks, Instant::now()) {
            NextCheck::Soon => 0,
            NextCheck::At(_) => idle_checks + 1,
        };
        if IDLE_CHECKS <= idle_checks {
            watcher.sleep(&tasks).await;
            idle_checks = 0;
        }
    }
}
