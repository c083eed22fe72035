//! Fires timers: one task with a heap for all of them. Every node may fire every tick; the queue
//! keeps the first push of a tick and tells the others that it has it.
//!
//! Ticks that were missed while no node ran are not replayed. A trigger has one push on its way
//! at a time, so that its ticks reach the queue in order and the high-water mark refuses none.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hanshu_core::ports::{PushOutcome, TimerTick};
use hanshu_core::{
    Event, Origin, Qualifier, RequestId, Timestamp, Trigger, TriggerId, TriggerSet, TriggerSpec,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::error::Error;
use crate::intake::{Accepted, Call, Intake};
use crate::metrics;
use crate::schedule::Schedule;
use crate::stop::Stop;
use crate::watched::TriggersView;

/// Settings of the timers.
#[derive(Clone, Debug)]
pub struct TimerOptions {
    /// The zone of timers that name none; IANA.
    pub zone: String,
    /// A tick that could not be queued for so long is given up, and counted.
    pub late_max: Duration,
    /// Pushes on their way at once.
    pub pushes_max: usize,
}

/// Fires the enabled timers.
#[derive(Debug)]
pub struct Timers {
    intake: Arc<Intake>,
    options: TimerOptions,
    /// What the timers were made from.
    triggers: TriggerSet,
    timers: HashMap<TriggerId, Timer>,
    /// When which timer ticks next; outdated entries are recognised when they come up.
    due: BinaryHeap<Reverse<(Timestamp, TriggerId)>>,
    /// The latest time seen: a clock that was set back is noticed.
    seen: Timestamp,
}

#[derive(Debug)]
struct Timer {
    schedule: Schedule,
    message: Arc<str>,
    /// The tick that it waits for, or whose push is on its way.
    at: Timestamp,
    pushing: bool,
}

/// A push that is over: whose, and of which tick.
type Pushing = FuturesUnordered<BoxFuture<'static, (TriggerId, Timestamp)>>;

/// The machine's clock may be set: it is looked at so often at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A clock set back by less is not worth a word.
const JUMP_MIN: Duration = Duration::from_secs(2);
/// Between tries of one push: doubles up to the second figure.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// One try of a push.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

impl Default for TimerOptions {
    fn default() -> Self {
        Self { zone: "UTC".into(), late_max: Duration::from_secs(60), pushes_max: 256 }
    }
}

/// Fires a timer now, through the same door as its ticks; `hanshu trigger fire`.
///
/// # Errors
/// As [`Intake::accept`]; [`Error::NotATimer`].
pub async fn fire(intake: &Intake, trigger: &Trigger) -> Result<Accepted, Error> {
    let TriggerSpec::Timer { argument, .. } = &trigger.spec else {
        return Err(Error::NotATimer(trigger.id.to_string()));
    };
    intake.accept(call(&trigger.id, argument, intake.clock.now()), None).await
}

impl Timers {
    /// No timers yet: [`Self::run`] takes them from the view.
    pub fn new(intake: Arc<Intake>, options: TimerOptions) -> Self {
        let seen = intake.clock.now();
        let (triggers, timers, due) = (TriggerSet::default(), HashMap::new(), BinaryHeap::new());
        Self { intake, options, triggers, timers, due, seen }
    }

    /// Fires until `stop.intake`; then waits for the pushes on their way, at most until
    /// `stop.work`.
    pub async fn run(mut self, mut view: TriggersView, stop: Stop) {
        let mut pushing = Pushing::new();
        self.reconcile(view.take());
        while !stop.intake.is_cancelled() {
            self.notice_clock();
            self.start_due(&mut pushing, &stop.intake);
            let wait = self.until_next(pushing.len());
            tokio::select! {
                () = stop.intake.cancelled() => {}
                Some((id, at)) = pushing.next() => self.pushed(&id, at),
                () = view.changed(wait) => self.reconcile(view.take()),
            }
        }
        let drained = async { while pushing.next().await.is_some() {} };
        let _ = stop.work.run_until_cancelled(drained).await;
    }

    /// Makes the timers those of the triggers. Timers that did not change keep their tick.
    fn reconcile(&mut self, triggers: TriggerSet) {
        let before = std::mem::replace(&mut self.triggers, triggers.clone());
        for changed in triggers.changed_since(&before) {
            for old in changed.before {
                let stays = |new: &Trigger| new.enabled && new.id == old.id && new.spec == old.spec;
                if !changed.after.iter().any(stays) {
                    self.timers.remove(&old.id);
                }
            }
            self.add(changed.after.iter());
        }
        // What was removed or changed over and over must not fill the heap.
        if 2 * self.timers.len() + 64 < self.due.len() {
            let waiting = self.timers.iter().filter(|(_, timer)| !timer.pushing);
            self.due = waiting.map(|(id, timer)| Reverse((timer.at, id.clone()))).collect();
        }
    }

    /// Starts the timers that do not run yet.
    fn add<'a>(&mut self, triggers: impl Iterator<Item = &'a Trigger>) {
        let now = self.intake.clock.now();
        for trigger in triggers.filter(|trigger| trigger.enabled) {
            if !self.timers.contains_key(&trigger.id)
                && let Some(timer) = self.timer(trigger, now)
            {
                self.due.push(Reverse((timer.at, trigger.id.clone())));
                self.timers.insert(trigger.id.clone(), timer);
            }
        }
    }

    fn timer(&self, trigger: &Trigger, now: Timestamp) -> Option<Timer> {
        let TriggerSpec::Timer { cron, timezone, argument } = &trigger.spec else { return None };
        let zone = timezone.as_deref().unwrap_or(&self.options.zone);
        let schedule = Schedule::parse(cron, zone)
            .inspect_err(|error| warn!(%error, trigger = %trigger.id, "A timer is left out"))
            .ok()?;
        let at = schedule.next(now)?;
        let message = argument.as_str().into();
        Some(Timer { schedule, message, at, pushing: false })
    }

    /// After a clock was set back, timers wait for their next tick by the new time. (Until the
    /// old time is reached again, the queue refuses their ticks as duplicates.)
    fn notice_clock(&mut self) {
        let now = self.intake.clock.now();
        if now + JUMP_MIN < self.seen {
            warn!("The clock was set back; timers go by the new time");
            self.due.clear();
            self.timers.retain(|id, timer| {
                if timer.pushing {
                    return true;
                }
                let Some(at) = timer.schedule.next(now) else { return false };
                timer.at = at;
                self.due.push(Reverse((at, id.clone())));
                true
            });
            // Some may have had no tick left by the old time.
            self.add(self.triggers.clone().iter());
            self.seen = now;
        }
        self.seen = self.seen.max(now);
    }

    fn until_next(&self, pushing: usize) -> Duration {
        if self.options.pushes_max <= pushing {
            return LOOK_EVERY;
        }
        let Some(Reverse((at, _))) = self.due.peek() else { return LOOK_EVERY };
        let until = at.duration_since(self.intake.clock.now());
        Duration::try_from(until).unwrap_or_default().min(LOOK_EVERY)
    }

    /// Starts the pushes of all ticks that are due, as far as there is room.
    fn start_due(&mut self, pushing: &mut Pushing, stop: &CancellationToken) {
        let now = self.intake.clock.now();
        while pushing.len() < self.options.pushes_max
            && let Some(Reverse((at, _))) = self.due.peek()
            && *at <= now
            && let Some(Reverse((at, id))) = self.due.pop()
        {
            let Some(timer) = self.timers.get_mut(&id) else { continue };
            if timer.pushing || timer.at != at {
                continue;
            }
            timer.pushing = true;
            let push = Push {
                intake: self.intake.clone(),
                call: call(&id, &timer.message, at),
                tick: TimerTick { trigger: id, at },
                late_max: self.options.late_max,
                stop: stop.clone(),
            };
            pushing.push(Box::pin(push.run()));
        }
    }

    /// A push is over: the timer waits for its next tick. Those that came up meanwhile follow at
    /// once, if they are not too old.
    fn pushed(&mut self, id: &TriggerId, at: Timestamp) {
        let now = self.intake.clock.now();
        let Some(timer) = self.timers.get_mut(id) else { return };
        if !timer.pushing || timer.at != at {
            return;
        }
        timer.pushing = false;
        let oldest = now - self.options.late_max;
        let mut next = timer.schedule.next(at);
        if next.is_some_and(|next| next < oldest) {
            metrics::tick("skipped");
            warn!(trigger = %id, "Ticks were skipped: the clock jumped, or the queue was away");
            next = timer.schedule.next(oldest);
        }
        match next {
            Some(next) => {
                timer.at = next;
                self.due.push(Reverse((next, id.clone())));
            }
            None => {
                self.timers.remove(id);
            }
        }
    }
}

/// One tick on its way into the queue.
struct Push {
    intake: Arc<Intake>,
    call: Call,
    tick: TimerTick,
    late_max: Duration,
    stop: CancellationToken,
}

impl Push {
    /// Tries until it is queued, refused for good, or too late.
    async fn run(self) -> (TriggerId, Timestamp) {
        let mut pause = RETRY.0;
        loop {
            let push = self.intake.accept(self.call.clone(), Some(self.tick.clone()));
            let error = match tokio::time::timeout(PUSH_TIMEOUT, push).await {
                Ok(Ok(Accepted { pushed: PushOutcome::Accepted, .. })) => {
                    return self.over("queued");
                }
                Ok(Ok(Accepted { pushed: PushOutcome::Duplicate, .. })) => {
                    return self.over("duplicate");
                }
                Ok(Err(error)) if !is_passing(&error) => {
                    warn!(%error, trigger = %self.tick.trigger, "A tick was refused");
                    return self.over("refused");
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the queue did not answer in time".to_owned(),
            };
            let late = self.tick.at + self.late_max;
            if late <= self.intake.clock.now() + pause || self.stop.is_cancelled() {
                warn!(error, trigger = %self.tick.trigger, "A tick was given up");
                return self.over("late");
            }
            debug!(error, trigger = %self.tick.trigger, "A tick could not be queued yet");
            let _ = self.stop.run_until_cancelled(sleep(pause)).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    fn over(self, how: &'static str) -> (TriggerId, Timestamp) {
        metrics::tick(how);
        (self.tick.trigger, self.tick.at)
    }
}

fn is_passing(error: &Error) -> bool {
    use hanshu_core::ErrorKind;
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Internal => true,
        // A full queue stays full for longer than a tick is worth.
        ErrorKind::Throttled
        | ErrorKind::Invalid
        | ErrorKind::Unauthenticated
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::Conflict => false,
    }
}

fn call(id: &TriggerId, message: &str, at: Timestamp) -> Call {
    let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
    let event = serde_json::json!({
        "Type": "Timer",
        "TriggerName": id.name,
        "Time": at.to_string(),
        "Message": message,
    });
    Call {
        request_id: RequestId::new(),
        namespace: id.function.namespace.clone(),
        function: id.function.name.clone(),
        qualifier: Qualifier::Latest,
        event: Event { origin: Origin::Timer(id.name.clone()), payload: event.to_string().into() },
        tail: false,
    }
}

#[cfg(test)]
#[path = "timer_tests.rs"]
mod tests;
