//! One function's sandboxes: a thin shell around the decisions of `state.rs`.
//!
//! The state sits behind one short mutex. A warm caller runs the decision itself and has its
//! sandbox before the lock is let go: no task, no mailbox, nothing shared with other functions.
//! Only starts and stops are tasks of their own, on the general runtime.

mod lease;
pub(crate) mod state;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hanshu_core::{Refusal, Revision, Verdict};
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::{self, Instant};

pub(crate) use lease::Lease;
use state::{Action, Actions, Counts, Input, LaneId, Rules, SandboxKey, State, WaiterId, Why};

use crate::sandbox::exchange::DataConn;
use crate::sandbox::instance::Instance;
use crate::sandbox::launch::StartFailure;
use crate::sandbox::logs::Log;
use crate::tasks::BackgroundTasks;

/// A waiter whose time is over, and for whom a start is under way, asks again after this.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Starts sandboxes for pools.
pub(crate) trait StartSandbox: Send + Sync + std::fmt::Debug {
    /// Starts one in a task of its own, which tells the pool how it went: once by
    /// [`Pool::started`], [`Pool::start_failed`], or by heeding [`Pool::start_blocked`].
    fn start(&self, pool: Arc<Pool>, key: SandboxKey, revision: Arc<Revision>);
}

/// What the pools of a node have in common.
#[derive(Debug)]
pub(crate) struct PoolContext {
    /// But for each function's concurrency.
    pub(crate) rules: Rules,
    pub(crate) tasks: BackgroundTasks,
    pub(crate) starter: Arc<dyn StartSandbox>,
    /// The backend's name, for refusals.
    pub(crate) backend: &'static str,
    /// MiB of the node, for refusals.
    pub(crate) memory_mb: u64,
}

/// One function's sandboxes.
#[derive(Debug)]
pub(crate) struct Pool {
    context: Arc<PoolContext>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    slots: HashMap<SandboxKey, Slot>,
    line: HashMap<WaiterId, oneshot::Sender<Reply>>,
    lanes: HashMap<LaneId, Arc<Revision>>,
    /// Starts under way, and whether the backend has done its part.
    starts: HashMap<SandboxKey, Arc<AtomicBool>>,
    next_waiter: u64,
    next_lane: u32,
    ticking: bool,
}

/// A sandbox that is up. Whoever uses it has its connection.
#[derive(Debug)]
struct Slot {
    instance: Arc<Instance>,
    conn: Option<Box<DataConn>>,
}

/// What somebody in line gets in the end.
pub(crate) type Reply = Result<Lease, Turned>;

/// Why somebody got no sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Turned {
    pub(crate) verdict: Verdict,
    /// What the sandbox that did not come up has printed.
    pub(crate) log: Option<Arc<Log>>,
    /// How long that took.
    pub(crate) init: Option<Duration>,
}

/// What is done once the lock is let go.
#[derive(Debug)]
enum Effect {
    Answer(oneshot::Sender<Reply>, Box<Reply>),
    /// A lease for somebody who is gone: it must not end under the lock.
    GiveBack(Lease),
    Start(SandboxKey, Arc<Revision>),
    Stop(SandboxKey, Arc<Instance>),
}

type Effects = SmallVec<[Effect; 2]>;

/// What an input led to, beside what was done at once.
#[derive(Debug, Default)]
pub(crate) struct Fed {
    /// The start is not wanted any more.
    cancelled: bool,
    /// The sandbox that was asked for.
    lent: Option<Lease>,
}

impl Pool {
    pub(crate) fn new(context: Arc<PoolContext>) -> Arc<Self> {
        let inner = Inner {
            state: State::new(context.rules),
            slots: HashMap::new(),
            line: HashMap::new(),
            lanes: HashMap::new(),
            starts: HashMap::new(),
            next_waiter: 0,
            next_lane: 0,
            ticking: false,
        };
        Arc::new(Self { context, inner: Mutex::new(inner) })
    }

    /// Opens a lane for a revision. The function's concurrency is that of its newest lane.
    pub(crate) fn open(&self, revision: &Revision) -> LaneId {
        let mut inner = self.lock();
        let lane = LaneId(inner.next_lane);
        inner.next_lane = inner.next_lane.wrapping_add(1);
        inner.state.rules.concurrency = revision.config.concurrency;
        lane
    }

    /// No new events are to be expected for the lane: idle sandboxes go now, used ones when they
    /// are given back.
    pub(crate) fn retire(self: &Arc<Self>, lane: LaneId) {
        self.feed(Input::Retired { lane });
    }

    /// A sandbox of the lane, which is this revision's, warm or cold. Stands in line at most
    /// `wait`, or until a start that is under way for this caller has ended.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        lane: LaneId,
        revision: &Arc<Revision>,
        wait: Duration,
    ) -> Reply {
        let begun = Instant::now();
        let mut place = match self.request(begun, lane, revision) {
            Ok(reply) => return reply,
            Err(place) => place,
        };
        let mut patience = begun + wait;
        loop {
            match time::timeout_at(patience, &mut place.reply).await {
                Ok(Ok(reply)) => {
                    place.answered = true;
                    return reply.map(|mut lease| {
                        lease.waited = true;
                        lease
                    });
                }
                Ok(Err(_)) => return Err(Turned::of(unavailable("the pool is gone"))),
                Err(_) => {
                    self.expire(lane, place.waiter);
                    patience = Instant::now() + ASK_AGAIN;
                }
            }
        }
    }

    /// Somebody's time in line is over.
    fn expire(self: &Arc<Self>, lane: LaneId, waiter: WaiterId) {
        let loading: Vec<_> = {
            let inner = self.lock();
            let up = inner.starts.iter().filter(|(_, up)| up.load(Ordering::Acquire));
            up.map(|(key, _)| *key).collect()
        };
        for key in loading {
            self.feed(Input::Loading { key });
        }
        self.feed(Input::Expired { lane, waiter });
    }

    /// A start waits for room; asked again and again while it does. `true`: it is not wanted any
    /// more.
    pub(crate) fn start_blocked(self: &Arc<Self>, key: SandboxKey) -> bool {
        self.feed(Input::Blocked { key }).cancelled
    }

    /// A start found room.
    pub(crate) fn start_unblocked(self: &Arc<Self>, key: SandboxKey) {
        self.feed(Input::Unblocked { key });
    }

    /// A sandbox is up and loads the user's code.
    pub(crate) fn start_loading(self: &Arc<Self>, key: SandboxKey) {
        self.feed(Input::Loading { key });
    }

    /// A sandbox ended by itself.
    pub(crate) fn died(self: &Arc<Self>, key: SandboxKey) {
        self.feed(Input::Died { key });
    }

    /// Remembers, until the start is over, where to see how far it is.
    pub(crate) fn watch_start(&self, key: SandboxKey, up: Arc<AtomicBool>) {
        self.lock().starts.insert(key, up);
    }

    /// How many sandboxes are in which state.
    pub(crate) fn counts(&self) -> Counts {
        self.lock().state.counts()
    }

    /// Whether nobody waits and no sandbox is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().state.is_empty()
    }

    /// Idle sandboxes and since when, in no order.
    pub(crate) fn idle(&self) -> Vec<(SandboxKey, Instant, Arc<Instance>)> {
        let inner = self.lock();
        let known = |(key, since)| {
            inner.slots.get(&key).map(|slot| (key, since, Arc::clone(&slot.instance)))
        };
        inner.state.idle().filter_map(known).collect()
    }

    /// Takes an idle sandbox for the platform's own use; `None` if it is not idle any more.
    pub(crate) fn borrow(self: &Arc<Self>, key: SandboxKey, idle_since: Instant) -> Option<Lease> {
        self.feed(Input::Borrowed { key }).lent.map(|lease| lease.lent(idle_since))
    }

    /// Stops an idle sandbox; does nothing if it is not idle any more.
    pub(crate) fn evict(self: &Arc<Self>, key: SandboxKey) {
        self.feed(Input::Evicted { key });
    }

    /// Lets time pass.
    pub(crate) fn tick(self: &Arc<Self>) {
        self.feed(Input::Tick);
        let mut inner = self.lock();
        let Inner { state, lanes, .. } = &mut *inner;
        lanes.retain(|lane, _| state.has_lane(*lane));
    }

    /// Refuses who waits and stops what is idle; what is used goes when it is given back.
    pub(crate) fn shut(self: &Arc<Self>) {
        self.feed(Input::Shutdown);
    }

    /// Ends every sandbox that is up, whoever uses it.
    pub(crate) fn take_all_away(&self) {
        for slot in self.lock().slots.values() {
            slot.instance.leash.take_away();
        }
    }

    fn request(
        self: &Arc<Self>,
        now: Instant,
        lane: LaneId,
        revision: &Arc<Revision>,
    ) -> Result<Reply, PlaceInLine> {
        let mut inner = self.lock();
        let waiter = WaiterId(inner.next_waiter);
        inner.next_waiter = inner.next_waiter.wrapping_add(1);
        let actions = inner.state.on(now, Input::Requested { lane, waiter });
        match actions.as_slice() {
            [Action::Grant { key, .. }] => {
                let lease = self.lease(&mut inner, *key);
                return Ok(lease.ok_or_else(|| Turned::of(unavailable("the sandbox is gone"))));
            }
            [Action::Refuse { why, .. }] => return Ok(Err(self.turned(*why, None))),
            _ => {}
        }
        let (sender, reply) = oneshot::channel();
        inner.line.insert(waiter, sender);
        inner.lanes.entry(lane).or_insert_with(|| Arc::clone(revision));
        let (effects, _) = self.effects(&mut inner, actions, None);
        let start_ticking = !std::mem::replace(&mut inner.ticking, true);
        drop(inner);
        if start_ticking {
            self.context.tasks.spawn(Arc::clone(self).tick_while_somebody_waits());
        }
        self.perform(effects);
        Err(PlaceInLine { pool: Arc::clone(self), lane, waiter, reply, answered: false })
    }

    /// What happened, decided and done.
    fn feed(self: &Arc<Self>, input: Input) -> Fed {
        let mut inner = self.lock();
        let actions = inner.state.on(Instant::now(), input);
        let (effects, fed) = self.effects(&mut inner, actions, None);
        drop(inner);
        self.perform(effects);
        fed
    }

    /// A start failed, for this reason.
    pub(crate) fn start_failed(self: &Arc<Self>, key: SandboxKey, failure: StartFailure) {
        let mut inner = self.lock();
        inner.starts.remove(&key);
        let actions = inner.state.on(Instant::now(), Input::StartFailed { key });
        let (effects, _) = self.effects(&mut inner, actions, Some(failure));
        drop(inner);
        self.perform(effects);
    }

    /// A sandbox came up.
    pub(crate) fn started(
        self: &Arc<Self>,
        key: SandboxKey,
        instance: Arc<Instance>,
        conn: DataConn,
    ) {
        let took = instance.init;
        let mut inner = self.lock();
        inner.starts.remove(&key);
        inner.slots.insert(key, Slot { instance, conn: Some(Box::new(conn)) });
        let actions = inner.state.on(Instant::now(), Input::Started { key, took });
        let (effects, _) = self.effects(&mut inner, actions, None);
        drop(inner);
        self.perform(effects);
    }

    /// A lease ends.
    fn take_back(self: &Arc<Self>, key: SandboxKey, conn: Option<Box<DataConn>>, input: Input) {
        let mut inner = self.lock();
        if let Some(slot) = inner.slots.get_mut(&key) {
            slot.conn = conn;
        }
        let actions = inner.state.on(Instant::now(), input);
        let (effects, _) = self.effects(&mut inner, actions, None);
        drop(inner);
        self.perform(effects);
    }

    /// Gathers, under the lock, what the actions need.
    fn effects(
        self: &Arc<Self>,
        inner: &mut Inner,
        actions: Actions,
        mut failure: Option<StartFailure>,
    ) -> (Effects, Fed) {
        let (mut effects, mut fed) = (Effects::new(), Fed::default());
        for action in actions {
            match action {
                Action::Grant { waiter, key } => {
                    let sender = inner.line.remove(&waiter);
                    match (sender, self.lease(inner, key)) {
                        (Some(sender), Some(lease)) => {
                            effects.push(Effect::Answer(sender, Box::new(Ok(lease))));
                        }
                        (None, Some(lease)) => effects.push(Effect::GiveBack(lease)),
                        (_, None) => {}
                    }
                }
                Action::Refuse { waiter, why } => {
                    if let Some(sender) = inner.line.remove(&waiter) {
                        let turned = self.turned(why, failure.as_mut());
                        effects.push(Effect::Answer(sender, Box::new(Err(turned))));
                    }
                }
                Action::Start { key, lane } => {
                    if let Some(revision) = inner.lanes.get(&lane) {
                        effects.push(Effect::Start(key, Arc::clone(revision)));
                    }
                }
                Action::Stop { key } => {
                    if let Some(slot) = inner.slots.remove(&key) {
                        effects.push(Effect::Stop(key, slot.instance));
                    }
                }
                Action::Cancel { .. } => fed.cancelled = true,
                Action::Lend { key } => fed.lent = self.lease(inner, key),
            }
        }
        (effects, fed)
    }

    fn perform(self: &Arc<Self>, effects: Effects) {
        for effect in effects {
            match effect {
                // Whoever is gone drops the reply, and with it the lease.
                Effect::Answer(sender, reply) => drop(sender.send(*reply)),
                Effect::GiveBack(lease) => drop(lease),
                Effect::Start(key, revision) => {
                    self.context.starter.start(Arc::clone(self), key, revision);
                }
                Effect::Stop(key, instance) => {
                    instance.leaving();
                    let pool = Arc::clone(self);
                    self.context.tasks.spawn(async move {
                        instance.remove().await;
                        pool.feed(Input::Stopped { key });
                    });
                }
            }
        }
    }

    fn lease(self: &Arc<Self>, inner: &mut Inner, key: SandboxKey) -> Option<Lease> {
        let slot = inner.slots.get_mut(&key)?;
        Some(Lease::new(Arc::clone(self), key, Arc::clone(&slot.instance), slot.conn.take()))
    }

    fn turned(&self, why: Why, failure: Option<&mut StartFailure>) -> Turned {
        let refusal = match why {
            Why::WaitQueueFull { waiting } => Refusal::WaitQueueFull { waiting },
            Why::Concurrency { limit } => Refusal::Concurrency { limit },
            Why::NoRoom => Refusal::Capacity {
                reason: format!("the node's memory of {} MB is in use", self.context.memory_mb),
            },
            Why::StartSlow => {
                let backend = self.context.backend;
                return Turned::of(unavailable(&format!(
                    "no sandbox was started in time: the {backend} backend is slow or does not answer"
                )));
            }
            Why::TooSlow { busy } => Refusal::Capacity {
                reason: format!("all {busy} sandboxes of the function stayed busy"),
            },
            Why::StartFailed => {
                let Some(failure) = failure else {
                    return Turned::of(unavailable("the sandbox did not start"));
                };
                let (verdict, init) = (failure.verdict.clone(), Some(failure.took));
                return Turned { verdict, log: failure.log.take(), init };
            }
            Why::Stopping => return Turned::of(unavailable("this node is stopping")),
        };
        Turned::of(Verdict::Refused(refusal))
    }

    /// Time is a reason to start sandboxes only while somebody waits.
    async fn tick_while_somebody_waits(self: Arc<Self>) {
        let pause = (self.lock().state.rules.target_wait / 2).max(Duration::from_millis(1));
        loop {
            time::sleep(pause).await;
            self.tick();
            let mut inner = self.lock();
            if inner.state.waiting() == 0 {
                inner.ticking = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turned {
    pub(crate) fn of(verdict: Verdict) -> Self {
        Self { verdict, log: None, init: None }
    }
}

pub(crate) fn unavailable(reason: &str) -> Verdict {
    Verdict::Refused(Refusal::Unavailable { reason: reason.into() })
}

/// A caller's place in line, left when dropped.
#[derive(Debug)]
struct PlaceInLine {
    pool: Arc<Pool>,
    lane: LaneId,
    waiter: WaiterId,
    reply: oneshot::Receiver<Reply>,
    answered: bool,
}

impl Drop for PlaceInLine {
    fn drop(&mut self) {
        if !self.answered {
            self.pool.feed(Input::Abandoned { lane: self.lane, waiter: self.waiter });
            self.pool.lock().line.remove(&self.waiter);
        }
    }
}
