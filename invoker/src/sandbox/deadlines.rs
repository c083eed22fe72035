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
    state: Mutex<WatchState>,
    log: Arc<SandboxLog>,
}

#[derive(Debug, Default)]
struct WatchState {
    event: Option<WatchedEvent>,
    /// An invocation that was cancelled when it had the sandbox, but its event was not watched yet.
    cancelled_early: Option<RequestId>,
}

/// What a cancellation found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventCancellation {
    /// The event runs: its deadline is the end of the grace now, unless it was earlier.
    Began,
    /// The event runs and was cancelled before.
    Repeated,
    /// The event is not watched: if it is about to begin, its deadline passes at once.
    Early,
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
    cancelled: bool,
    waker: Waker,
    /// Reads the output.
    follower: Option<AbortOnDropHandle<()>>,
}

/// Resolves when an event's deadline has passed. The event is watched from the first poll until
/// [`EventWatch::end`]; until then another one of these may go on waiting for it.
pub(crate) struct DeadlineExpiry<'a> {
    watch: &'a EventWatch,
    watcher: &'a DeadlineWatcher,
    event: CurrentEvent,
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
        Self { state: Mutex::default(), log }
    }

    /// Watches an event until its deadline.
    pub(crate) fn until_deadline<'a>(
        &'a self,
        watcher: &'a DeadlineWatcher,
        event: CurrentEvent,
    ) -> DeadlineExpiry<'a> {
        DeadlineExpiry { watch: self, watcher, event }
    }

    /// Cancels an event: its deadline passes when `grace` is over.
    pub(crate) fn cancel(
        &self,
        watcher: &DeadlineWatcher,
        request_id: RequestId,
        grace: Duration,
    ) -> EventCancellation {
        let mut state = lock(&self.state);
        match state.event.as_mut() {
            Some(watched) if watched.event.request_id == request_id => {
                if std::mem::replace(&mut watched.cancelled, true) {
                    return EventCancellation::Repeated;
                }
                let event = &mut watched.event;
                event.deadline = event.deadline.min(Instant::now() + grace);
            }
            Some(_) | None => {
                state.cancelled_early = Some(request_id);
                return EventCancellation::Early;
            }
        }
        drop(state);
        watcher.deadline_changed();
        EventCancellation::Began
    }

    /// Stops watching an event, which has ended; returns whether it was cancelled before.
    pub(crate) fn end(&self, request_id: RequestId) -> bool {
        let mut state = lock(&self.state);
        let early = state.cancelled_early.take() == Some(request_id);
        let watched = state.event.take();
        // Before the event is dropped, which may end the follower.
        drop(state);
        early || watched.is_some_and(|watched| watched.cancelled)
    }

    fn check(&self, tasks: &BackgroundTasks, now: Instant) -> NextCheck {
        let mut state = lock(&self.state);
        let Some(watched) = state.event.as_mut() else { return NextCheck::At(None) };
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
        let mut state = lock(&this.watch.state);
        match state.event.as_mut() {
            Some(watched) if watched.event.request_id == this.event.request_id => {
                if watched.expired {
                    return Poll::Ready(());
                }
                watched.waker.clone_from(cx.waker());
            }
            Some(_) | None => {
                let (event, waker) = (this.event, cx.waker().clone());
                let cancelled = state.cancelled_early.take() == Some(event.request_id);
                let watched =
                    WatchedEvent { event, expired: cancelled, cancelled, waker, follower: None };
                let before = state.event.replace(watched);
                drop(state);
                drop(before);
                if cancelled {
                    return Poll::Ready(());
                }
                this.watcher.deadline_changed();
            }
        }
        Poll::Pending
    }
}

impl DeadlineWatcher {
    /// Checks this sandbox from now on, as long as it exists.
    pub(crate) fn add(&self, sandbox: &Arc<EventWatch>) {
        lock(&self.sandboxes).push(Arc::downgrade(sandbox));
    }

    /// An event has begun, or its deadline has become an earlier one.
    fn deadline_changed(&self) {
        // Either this sees that the task sleeps, or the task's last check sees the deadline.
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
