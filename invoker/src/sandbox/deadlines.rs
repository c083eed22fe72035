//! Deadlines of events, and the reading of output while an event runs that takes longer than a
//! moment: without a timer for each event. One task looks at all sandboxes, at a fixed pace while
//! any of them is in use, and sleeps otherwise.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{self, Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::sandbox::logs::SandboxLog;
use crate::tasks::BackgroundTasks;

/// Between two looks: a deadline is noticed at most so late, and output is read while its event
/// runs if that takes so long. Until then the pipe holds it.
const PACE: Duration = Duration::from_millis(5);
/// Looks that find nothing to do before the task sleeps.
const IDLE_LOOKS: u32 = 20;

/// What is known of the event that runs in a sandbox.
#[derive(Debug)]
pub(crate) struct EventWatch {
    event: Mutex<Option<WatchedEvent>>,
    log: Arc<SandboxLog>,
}

#[derive(Debug)]
struct WatchedEvent {
    begun: Instant,
    deadline: Instant,
    expired: bool,
    waker: Waker,
    /// Reads the output.
    follower: Option<AbortOnDropHandle<()>>,
}

/// Resolves when an event's deadline has passed. The event is watched from the first poll until
/// this is dropped.
pub(crate) struct DeadlineExpiry<'a> {
    watch: &'a EventWatch,
    rounds: &'a DeadlineWatcher,
    begun: Instant,
    deadline: Instant,
    watched: bool,
}

/// The sandboxes to look at, and whether anybody does.
#[derive(Debug, Default)]
pub(crate) struct DeadlineWatcher {
    sandboxes: Mutex<Vec<Weak<EventWatch>>>,
    asleep: AtomicBool,
    wake: Notify,
}

/// When to look again.
enum NextCheck {
    /// An event has just begun.
    Soon,
    /// Nothing but a deadline is to be expected.
    At(Option<Instant>),
}

impl EventWatch {
    /// Of a sandbox whose output goes to `log`.
    pub(crate) fn new(log: Arc<SandboxLog>) -> Self {
        Self { event: Mutex::default(), log }
    }

    /// Watches an event that has `begun` until `deadline`.
    pub(crate) fn until<'a>(
        &'a self,
        rounds: &'a DeadlineWatcher,
        begun: Instant,
        deadline: Instant,
    ) -> DeadlineExpiry<'a> {
        DeadlineExpiry { watch: self, rounds, begun, deadline, watched: false }
    }

    fn look(&self, tasks: &BackgroundTasks, now: Instant) -> NextCheck {
        let mut event = self.lock();
        let Some(event) = event.as_mut() else { return NextCheck::At(None) };
        if event.expired {
            return NextCheck::At(None);
        }
        if event.deadline <= now {
            event.expired = true;
            event.waker.wake_by_ref();
            return NextCheck::At(None);
        }
        if event.follower.is_some() {
            return NextCheck::At(Some(event.deadline));
        }
        if event.begun + PACE <= now {
            let log = Arc::clone(&self.log);
            let follower = tasks.spawn(async move { log.follow().await });
            event.follower = Some(AbortOnDropHandle::new(follower));
            return NextCheck::At(Some(event.deadline));
        }
        NextCheck::Soon
    }

    fn lock(&self) -> MutexGuard<'_, Option<WatchedEvent>> {
        self.event.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for DeadlineExpiry<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut event = this.watch.lock();
        match event.as_mut() {
            Some(event) if this.watched => {
                if event.expired {
                    return Poll::Ready(());
                }
                event.waker.clone_from(cx.waker());
            }
            _ => {
                let Self { begun, deadline, .. } = *this;
                let waker = cx.waker().clone();
                *event =
                    Some(WatchedEvent { begun, deadline, expired: false, waker, follower: None });
                drop(event);
                this.watched = true;
                this.rounds.begin();
            }
        }
        Poll::Pending
    }
}

impl Drop for DeadlineExpiry<'_> {
    fn drop(&mut self) {
        if self.watched {
            let event = self.watch.lock().take();
            drop(event);
        }
    }
}

impl DeadlineWatcher {
    /// Looks at this sandbox from now on, as long as it is there.
    pub(crate) fn add(&self, sandbox: &Arc<EventWatch>) {
        self.lock().push(Arc::downgrade(sandbox));
    }

    /// An event is watched now.
    fn begin(&self) {
        // Either this sees that the task sleeps, or the task's last look sees the event.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    fn look(&self, tasks: &BackgroundTasks, now: Instant) -> NextCheck {
        let mut next = NextCheck::At(None);
        self.lock().retain(|sandbox| {
            let Some(sandbox) = sandbox.upgrade() else { return false };
            next = match (&next, sandbox.look(tasks, now)) {
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
        match self.look(tasks, Instant::now()) {
            NextCheck::Soon => {}
            NextCheck::At(None) => self.wake.notified().await,
            NextCheck::At(Some(deadline)) => {
                let _ = time::timeout_at(deadline, self.wake.notified()).await;
            }
        }
        self.asleep.store(false, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<EventWatch>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the sandboxes for as long as it is polled.
pub(crate) async fn run(rounds: Arc<DeadlineWatcher>, tasks: BackgroundTasks) {
    let mut idle_looks = 0;
    loop {
        time::sleep(PACE).await;
        idle_looks = match rounds.look(&tasks, Instant::now()) {
            NextCheck::Soon => 0,
            NextCheck::At(_) => idle_looks + 1,
        };
        if IDLE_LOOKS <= idle_looks {
            rounds.sleep(&tasks).await;
            idle_looks = 0;
        }
    }
}
