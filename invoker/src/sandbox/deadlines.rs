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

use crate::sandbox::logs::Log;
use crate::tasks::BackgroundTasks;

/// Between two looks: a deadline is noticed at most so late, and output is read while its event
/// runs if that takes so long. Until then the pipe holds it.
const PACE: Duration = Duration::from_millis(5);
/// Looks that find nothing to do before the task sleeps.
const IDLE_LOOKS: u32 = 20;

/// What is known of the event that runs in a sandbox.
#[derive(Debug)]
pub(crate) struct Watch {
    event: Mutex<Option<Watched>>,
    log: Arc<Log>,
}

#[derive(Debug)]
struct Watched {
    begun: Instant,
    deadline: Instant,
    expired: bool,
    waker: Waker,
    /// Reads the output.
    follower: Option<AbortOnDropHandle<()>>,
}

/// Resolves when an event's deadline has passed. The event is watched from the first poll until
/// this is dropped.
pub(crate) struct Expiry<'a> {
    watch: &'a Watch,
    rounds: &'a Rounds,
    begun: Instant,
    deadline: Instant,
    watched: bool,
}

/// The sandboxes to look at, and whether anybody does.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    sandboxes: Mutex<Vec<Weak<Watch>>>,
    asleep: AtomicBool,
    wake: Notify,
}

/// When to look again.
enum Next {
    /// An event has just begun.
    Soon,
    /// Nothing but a deadline is to be expected.
    At(Option<Instant>),
}

impl Watch {
    /// Of a sandbox whose output goes to `log`.
    pub(crate) fn new(log: Arc<Log>) -> Self {
        Self { event: Mutex::default(), log }
    }

    /// Watches an event that has `begun` until `deadline`.
    pub(crate) fn until<'a>(
        &'a self,
        rounds: &'a Rounds,
        begun: Instant,
        deadline: Instant,
    ) -> Expiry<'a> {
        Expiry { watch: self, rounds, begun, deadline, watched: false }
    }

    fn look(&self, tasks: &BackgroundTasks, now: Instant) -> Next {
        let mut event = self.lock();
        let Some(event) = event.as_mut() else { return Next::At(None) };
        if event.expired {
            return Next::At(None);
        }
        if event.deadline <= now {
            event.expired = true;
            event.waker.wake_by_ref();
            return Next::At(None);
        }
        if event.follower.is_some() {
            return Next::At(Some(event.deadline));
        }
        if event.begun + PACE <= now {
            let log = Arc::clone(&self.log);
            let follower = tasks.spawn(async move { log.follow().await });
            event.follower = Some(AbortOnDropHandle::new(follower));
            return Next::At(Some(event.deadline));
        }
        Next::Soon
    }

    fn lock(&self) -> MutexGuard<'_, Option<Watched>> {
        self.event.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for Expiry<'_> {
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
                *event = Some(Watched { begun, deadline, expired: false, waker, follower: None });
                drop(event);
                this.watched = true;
                this.rounds.begin();
            }
        }
        Poll::Pending
    }
}

impl Drop for Expiry<'_> {
    fn drop(&mut self) {
        if self.watched {
            let event = self.watch.lock().take();
            drop(event);
        }
    }
}

impl Rounds {
    /// Looks at this sandbox from now on, as long as it is there.
    pub(crate) fn add(&self, sandbox: &Arc<Watch>) {
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

    fn look(&self, tasks: &BackgroundTasks, now: Instant) -> Next {
        let mut next = Next::At(None);
        self.lock().retain(|sandbox| {
            let Some(sandbox) = sandbox.upgrade() else { return false };
            next = match (&next, sandbox.look(tasks, now)) {
                (Next::Soon, _) | (_, Next::Soon) => Next::Soon,
                (Next::At(one), Next::At(other)) => {
                    Next::At(one.iter().copied().chain(other).min())
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
            Next::Soon => {}
            Next::At(None) => self.wake.notified().await,
            Next::At(Some(deadline)) => {
                let _ = time::timeout_at(deadline, self.wake.notified()).await;
            }
        }
        self.asleep.store(false, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Watch>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the sandboxes for as long as it is polled.
pub(crate) async fn run(rounds: Arc<Rounds>, tasks: BackgroundTasks) {
    let mut idle_looks = 0;
    loop {
        time::sleep(PACE).await;
        idle_looks = match rounds.look(&tasks, Instant::now()) {
            Next::Soon => 0,
            Next::At(_) => idle_looks + 1,
        };
        if IDLE_LOOKS <= idle_looks {
            rounds.sleep(&tasks).await;
            idle_looks = 0;
        }
    }
}
