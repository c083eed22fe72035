//! Fires timers: one task with one heap for all of them. Every node fires every tick; the queue
//! keeps the first push of a tick and answers the others that it is a duplicate.
//!
//! Ticks that were missed while no node ran are not replayed. A timer has one push in flight at a
//! time, so that its ticks reach the queue in order and the high-water mark refuses none.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hanshu_core::ports::{PushOutcome, TimerTick};
use hanshu_core::{
    Actor, Backoff, ErrorKind, TimerTrigger, Timestamp, Trigger, TriggerId, TriggerSet,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::rules::timer_call;
use crate::intake::{AcceptedEvent, EventIntake, FunctionCall};
use crate::intake_error::IntakeError;
use crate::metrics;
use crate::schedule::CronSchedule;
use crate::stop_signals::StopSignals;
use crate::trigger_watch::TriggersView;

/// Settings of the timers.
#[derive(Clone, Debug)]
pub struct TimerOptions {
    /// The IANA time zone of timers that name none.
    pub zone: String,
    /// A tick that could not be queued for this long is given up, and counted.
    pub late_max: Duration,
    /// Pushes in flight at once.
    pub pushes_max: usize,
}

/// Fires the enabled timers.
#[derive(Debug)]
pub struct TimerScheduler {
    intake: Arc<EventIntake>,
    options: TimerOptions,
    /// The triggers that the timers were made from.
    triggers: TriggerSet,
    timers: HashMap<TriggerId, ActiveTimer>,
    /// The next ticks; entries of changed timers are skipped when they come up.
    due: BinaryHeap<Reverse<TimerTickKey>>,
    /// The latest time seen, to notice a clock that was set back.
    latest_now: Timestamp,
}

#[derive(Debug)]
struct ActiveTimer {
    schedule: CronSchedule,
    message: Arc<str>,
    /// The tick that it waits for, or whose push is in flight.
    next_tick: Timestamp,
    pushing: bool,
}

/// A tick in the heap, earliest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TimerTickKey {
    at: Timestamp,
    timer: TriggerId,
}

/// Pushes in flight. Each returns its tick when it is over.
type InFlightPushes = FuturesUnordered<BoxFuture<'static, TimerTickKey>>;

/// The longest wait without a look at the clock, which may have been set.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A clock that was set back by less is ignored.
const CLOCK_JUMP_MIN: Duration = Duration::from_secs(2);
/// Between tries of one push.
const PUSH_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// Deadline of one try of a push.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

impl Default for TimerOptions {
    fn default() -> Self {
        Self { zone: "UTC".into(), late_max: Duration::from_secs(60), pushes_max: 256 }
    }
}

impl TimerScheduler {
    /// Starts without timers: [`Self::run`] takes them from the view.
    pub fn new(intake: Arc<EventIntake>, options: TimerOptions) -> Self {
        let latest_now = intake.clock.now();
        let (triggers, timers, due) = (TriggerSet::default(), HashMap::new(), BinaryHeap::new());
        Self { intake, options, triggers, timers, due, latest_now }
    }

    /// Fires until `stop.intake`; then waits for the pushes in flight, at most until `stop.work`.
    pub async fn run(mut self, mut view: TriggersView, stop: StopSignals) {
        let mut pushes = InFlightPushes::new();
        self.reconcile(view.take());
        while !stop.intake.is_cancelled() {
            self.check_clock();
            self.start_due(&mut pushes, &stop.intake);
            let wait = self.until_next(pushes.len());
            tokio::select! {
                () = stop.intake.cancelled() => {}
                Some(tick) = pushes.next() => self.push_ended(&tick),
                () = view.changed(wait) => self.reconcile(view.take()),
            }
        }
        let drained = async { while pushes.next().await.is_some() {} };
        let _ = stop.work.run_until_cancelled(drained).await;
    }

    /// Makes the timers match the triggers. Unchanged timers keep their next tick.
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
        // Timers that are removed or changed over and over must not fill the heap.
        if 2 * self.timers.len() + 64 < self.due.len() {
            let waiting = self.timers.iter().filter(|(_, timer)| !timer.pushing);
            self.due = waiting.map(|(id, timer)| tick_entry(id, timer.next_tick)).collect();
        }
    }

    /// Adds the enabled timers that are not active yet.
    fn add<'a>(&mut self, triggers: impl Iterator<Item = &'a Trigger>) {
        let now = self.intake.clock.now();
        for trigger in triggers.filter(|trigger| trigger.enabled) {
            if !self.timers.contains_key(&trigger.id)
                && let Some(timer) = self.active_timer(trigger, now)
            {
                self.due.push(tick_entry(&trigger.id, timer.next_tick));
                self.timers.insert(trigger.id.clone(), timer);
            }
        }
    }

    /// `None` for other kinds of triggers, and for timers that never tick again.
    fn active_timer(&self, trigger: &Trigger, now: Timestamp) -> Option<ActiveTimer> {
        let timer = trigger.spec.get::<TimerTrigger>()?;
        let zone = timer.timezone.as_deref().unwrap_or(&self.options.zone);
        let schedule = CronSchedule::parse(&timer.cron, zone)
            .inspect_err(|error| warn!(%error, trigger = %trigger.id, "A timer is left out"))
            .ok()?;
        let next_tick = schedule.next(now)?;
        let message = timer.argument.as_str().into();
        Some(ActiveTimer { schedule, message, next_tick, pushing: false })
    }

    /// After the clock was set back, timers wait for their next tick by the new time. (Until the
    /// old time is reached again, the queue refuses their ticks as duplicates.)
    fn check_clock(&mut self) {
        let now = self.intake.clock.now();
        if now + CLOCK_JUMP_MIN < self.latest_now {
            warn!("The clock was set back; timers go by the new time");
            self.due.clear();
            self.timers.retain(|id, timer| {
                if timer.pushing {
                    return true;
                }
                let Some(next_tick) = timer.schedule.next(now) else { return false };
                timer.next_tick = next_tick;
                self.due.push(tick_entry(id, next_tick));
                true
            });
            // Some may have had no tick left by the old time.
            self.add(self.triggers.clone().iter());
            self.latest_now = now;
        }
        self.latest_now = self.latest_now.max(now);
    }

    fn until_next(&self, pushes: usize) -> Duration {
        if self.options.pushes_max <= pushes {
            return CLOCK_CHECK_INTERVAL;
        }
        let Some(Reverse(tick)) = self.due.peek() else { return CLOCK_CHECK_INTERVAL };
        let until = tick.at.duration_since(self.intake.clock.now());
        Duration::try_from(until).unwrap_or_default().min(CLOCK_CHECK_INTERVAL)
    }

    /// Starts the pushes of all ticks that are due, up to the limit.
    fn start_due(&mut self, pushes: &mut InFlightPushes, stop: &CancellationToken) {
        let now = self.intake.clock.now();
        while pushes.len() < self.options.pushes_max
            && let Some(Reverse(next)) = self.due.peek()
            && next.at <= now
            && let Some(Reverse(TimerTickKey { at, timer: id })) = self.due.pop()
        {
            let Some(timer) = self.timers.get_mut(&id) else { continue };
            if timer.pushing || timer.next_tick != at {
                continue;
            }
            timer.pushing = true;
            let push = TickPush {
                intake: self.intake.clone(),
                call: timer_call(&id, &timer.message, at),
                tick: TimerTick { trigger: id, at },
                late_max: self.options.late_max,
                stop: stop.clone(),
            };
            pushes.push(Box::pin(push.run()));
        }
    }

    /// Makes a timer wait for the tick after the one that was pushed. Ticks that were due
    /// meanwhile follow at once, if they are not too old.
    fn push_ended(&mut self, tick: &TimerTickKey) {
        let now = self.intake.clock.now();
        let TimerTickKey { at, timer: id } = tick;
        let Some(timer) = self.timers.get_mut(id) else { return };
        if !timer.pushing || timer.next_tick != *at {
            return;
        }
        timer.pushing = false;
        let oldest = now - self.options.late_max;
        let mut next = timer.schedule.next(*at);
        if next.is_some_and(|next| next < oldest) {
            metrics::tick("skipped");
            warn!(
                trigger = %id,
                "Ticks were skipped: the clock jumped, or the queue was unavailable"
            );
            next = timer.schedule.next(oldest);
        }
        match next {
            Some(next) => {
                timer.next_tick = next;
                self.due.push(tick_entry(id, next));
            }
            None => {
                self.timers.remove(id);
            }
        }
    }
}

fn tick_entry(id: &TriggerId, at: Timestamp) -> Reverse<TimerTickKey> {
    Reverse(TimerTickKey { at, timer: id.clone() })
}

/// One tick on its way into the queue.
struct TickPush {
    intake: Arc<EventIntake>,
    call: FunctionCall,
    tick: TimerTick,
    late_max: Duration,
    stop: CancellationToken,
}

impl TickPush {
    /// Tries until the tick is queued, refused for good, or too late.
    async fn run(self) -> TimerTickKey {
        let actor = Actor::trigger(None);
        for tries in 1.. {
            let push = self.intake.accept(&actor, self.call.clone(), Some(self.tick.clone()));
            let error = match tokio::time::timeout(PUSH_TIMEOUT, push).await {
                Ok(Ok(AcceptedEvent { pushed: PushOutcome::Accepted, .. })) => {
                    metrics::tick("queued");
                    break;
                }
                Ok(Ok(AcceptedEvent { pushed: PushOutcome::Duplicate, .. })) => {
                    metrics::tick("duplicate");
                    break;
                }
                Ok(Err(error)) if !is_transient(&error) => {
                    warn!(%error, trigger = %self.tick.trigger, "A tick was refused");
                    metrics::tick("refused");
                    break;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the queue did not answer in time".to_owned(),
            };
            let pause = PUSH_BACKOFF.delay(tries);
            let late = self.tick.at + self.late_max;
            if late <= self.intake.clock.now() + pause || self.stop.is_cancelled() {
                warn!(error, trigger = %self.tick.trigger, "A tick was given up");
                metrics::tick("late");
                break;
            }
            debug!(error, trigger = %self.tick.trigger, "A tick could not be queued yet");
            let _ = self.stop.run_until_cancelled(sleep(pause)).await;
        }
        TimerTickKey { at: self.tick.at, timer: self.tick.trigger }
    }
}

/// Whether another try may succeed within the time that a tick is worth.
fn is_transient(error: &IntakeError) -> bool {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Internal => true,
        // A full queue stays full for longer than that.
        ErrorKind::Throttled
        | ErrorKind::Invalid
        | ErrorKind::Unauthenticated
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::Conflict => false,
    }
}

#[cfg(test)]
mod tests;
