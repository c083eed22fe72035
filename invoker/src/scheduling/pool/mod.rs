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
use state::{
    LaneId, PoolAction, PoolActions, PoolCounts, PoolInput, PoolRules, PoolState, RefusalReason,
    SandboxKey, WaiterId,
};

use crate::sandbox::exchange::DataConnection;
use crate::sandbox::instance::SandboxInstance;
use crate::sandbox::launch::StartFailure;
use crate::sandbox::logs::SandboxLog;
use crate::tasks::BackgroundTasks;

/// A waiter whose time is over, and for whom a start is under way, asks again after this.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Starts sandboxes for pools.
pub(crate) trait SandboxStarter: Send + Sync + std::fmt::Debug {
    /// Starts one in a task of its own, which tells the pool how it went: once by
    /// [`FunctionPool::started`], [`FunctionPool::start_failed`], or by heeding [`FunctionPool::start_blocked`].
    fn start(&self, pool: Arc<FunctionPool>, key: SandboxKey, revision: Arc<Revision>);
}

/// What the pools of a node have in common.
#[derive(Debug)]
pub(crate) struct PoolContext {
    /// But for each function's concurrency.
    pub(crate) rules: PoolRules,
    pub(crate) tasks: BackgroundTasks,
    pub(crate) starter: Arc<dyn SandboxStarter>,
    /// The backend's name, for refusals.
    pub(crate) backend: &'static str,
    /// MiB of the node, for refusals.
    pub(crate) memory_mb: u64,
}

/// One function's sandboxes.
#[derive(Debug)]
pub(crate) struct FunctionPool {
    context: Arc<PoolContext>,
    inner: Mutex<PoolInner>,
}

#[derive(Debug)]
struct PoolInner {
    state: PoolState,
    slots: HashMap<SandboxKey, PoolSlot>,
    line: HashMap<WaiterId, oneshot::Sender<AcquireResult>>,
    lanes: HashMap<LaneId, Arc<Revision>>,
    /// Starts under way, and whether the backend has done its part.
    starts: HashMap<SandboxKey, Arc<AtomicBool>>,
    next_waiter: u64,
    next_lane: u32,
    ticking: bool,
}

/// A sandbox that is up. Whoever uses it has its connection.
#[derive(Debug)]
struct PoolSlot {
    instance: Arc<SandboxInstance>,
    conn: Option<Box<DataConnection>>,
}

/// What somebody in line gets in the end.
pub(crate) type AcquireResult = Result<Lease, AcquireError>;

/// Why somebody got no sandbox.
#[derive(Clone, Debug)]
pub(crate) struct AcquireError {
    pub(crate) verdict: Verdict,
    /// What the sandbox that did not come up has printed.
    pub(crate) log: Option<Arc<SandboxLog>>,
    /// How long that took.
    pub(crate) init: Option<Duration>,
}

/// What is done once the lock is let go.
#[derive(Debug)]
enum PoolEffect {
    Answer(oneshot::Sender<AcquireResult>, Box<AcquireResult>),
    /// A lease for somebody who is gone: it must not end under the lock.
    GiveBack(Lease),
    Start(SandboxKey, Arc<Revision>),
    Stop(SandboxKey, Arc<SandboxInstance>),
}

type PoolEffects = SmallVec<[PoolEffect; 2]>;

/// What an input led to, beside what was done at once.
#[derive(Debug, Default)]
pub(crate) struct FeedResult {
    /// The start is not wanted any more.
    cancelled: bool,
    /// The sandbox that was asked for.
    lent: Option<Lease>,
}

impl FunctionPool {
    pub(crate) fn new(context: Arc<PoolContext>) -> Arc<Self> {
        let inner = PoolInner {
            state: PoolState::new(context.rules),
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
        self.feed(PoolInput::Retired { lane });
    }

    /// A sandbox of the lane, which is this revision's, warm or cold. Stands in line at most
    /// `wait`, or until a start that is under way for this caller has ended.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        lane: LaneId,
        revision: &Arc<Revision>,
        wait: Duration,
    ) -> AcquireResult {
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
                Ok(Err(_)) => return Err(AcquireError::of(unavailable("the pool is gone"))),
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
            self.feed(PoolInput::Loading { key });
        }
        self.feed(PoolInput::Expired { lane, waiter });
    }

    /// A start waits for room; asked again and again while it does. `true`: it is not wanted any
    /// more.
    pub(crate) fn start_blocked(self: &Arc<Self>, key: SandboxKey) -> bool {
        self.feed(PoolInput::Blocked { key }).cancelled
    }

    /// A start found room.
    pub(crate) fn start_unblocked(self: &Arc<Self>, key: SandboxKey) {
        self.feed(PoolInput::Unblocked { key });
    }

    /// A sandbox is up and loads the user's code.
    pub(crate) fn start_loading(self: &Arc<Self>, key: SandboxKey) {
        self.feed(PoolInput::Loading { key });
    }

    /// A sandbox ended by itself.
    pub(crate) fn died(self: &Arc<Self>, key: SandboxKey) {
        self.feed(PoolInput::Died { key });
    }

    /// Remembers, until the start is over, where to see how far it is.
    pub(crate) fn watch_start(&self, key: SandboxKey, up: Arc<AtomicBool>) {
        self.lock().starts.insert(key, up);
    }

    /// How many sandboxes are in which state.
    pub(crate) fn counts(&self) -> PoolCounts {
        self.lock().state.counts()
    }

    /// Whether nobody waits and no sandbox is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().state.is_empty()
    }

    /// Idle sandboxes and since when, in no order.
    pub(crate) fn idle(&self) -> Vec<(SandboxKey, Instant, Arc<SandboxInstance>)> {
        let inner = self.lock();
        let known = |(key, since)| {
            inner.slots.get(&key).map(|slot| (key, since, Arc::clone(&slot.instance)))
        };
        inner.state.idle().filter_map(known).collect()
    }

    /// Takes an idle sandbox for the platform's own use; `None` if it is not idle any more.
    pub(crate) fn borrow(self: &Arc<Self>, key: SandboxKey, idle_since: Instant) -> Option<Lease> {
        self.feed(PoolInput::Borrowed { key }).lent.map(|lease| lease.lent(idle_since))
    }

    /// Stops an idle sandbox; does nothing if it is not idle any more.
    pub(crate) fn evict(self: &Arc<Self>, key: SandboxKey) {
        self.feed(PoolInput::Evicted { key });
    }

    /// Lets time pass.
    pub(crate) fn tick(self: &Arc<Self>) {
        self.feed(PoolInput::Tick);
        let mut inner = self.lock();
        let PoolInner { state, lanes, .. } = &mut *inner;
        lanes.retain(|lane, _| state.has_lane(*lane));
    }

    /// Refuses who waits and stops what is idle; what is used goes when it is given back.
    pub(crate) fn shut(self: &Arc<Self>) {
        self.feed(PoolInput::Shutdown);
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
    ) -> Result<AcquireResult, WaitQueueEntry> {
        let mut inner = self.lock();
        let waiter = WaiterId(inner.next_waiter);
        inner.next_waiter = inner.next_waiter.wrapping_add(1);
        let actions = inner.state.on(now, PoolInput::Requested { lane, waiter });
        match actions.as_slice() {
            [PoolAction::Grant { key, .. }] => {
                let lease = self.lease(&mut inner, *key);
                return Ok(
                    lease.ok_or_else(|| AcquireError::of(unavailable("the sandbox is gone")))
                );
            }
            [PoolAction::Refuse { why, .. }] => return Ok(Err(self.turned(*why, None))),
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
        Err(WaitQueueEntry { pool: Arc::clone(self), lane, waiter, reply, answered: false })
    }

    /// What happened, decided and done.
    fn feed(self: &Arc<Self>, input: PoolInput) -> FeedResult {
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
        let actions = inner.state.on(Instant::now(), PoolInput::StartFailed { key });
        let (effects, _) = self.effects(&mut inner, actions, Some(failure));
        drop(inner);
        self.perform(effects);
    }

    /// A sandbox came up.
    pub(crate) fn started(
        self: &Arc<Self>,
        key: SandboxKey,
        instance: Arc<SandboxInstance>,
        conn: DataConnection,
    ) {
        let took = instance.init;
        let mut inner = self.lock();
        inner.starts.remove(&key);
        inner.slots.insert(key, PoolSlot { instance, conn: Some(Box::new(conn)) });
        let actions = inner.state.on(Instant::now(), PoolInput::Started { key, took });
        let (effects, _) = self.effects(&mut inner, actions, None);
        drop(inner);
        self.perform(effects);
    }

    /// A lease ends.
    fn take_back(
        self: &Arc<Self>,
        key: SandboxKey,
        conn: Option<Box<DataConnection>>,
        input: PoolInput,
    ) {
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
        inner: &mut PoolInner,
        actions: PoolActions,
        mut failure: Option<StartFailure>,
    ) -> (PoolEffects, FeedResult) {
        let (mut effects, mut fed) = (PoolEffects::new(), FeedResult::default());
        for action in actions {
            match action {
                PoolAction::Grant { waiter, key } => {
                    let sender = inner.line.remove(&waiter);
                    match (sender, self.lease(inner, key)) {
                        (Some(sender), Some(lease)) => {
                            effects.push(PoolEffect::Answer(sender, Box::new(Ok(lease))));
                        }
                        (None, Some(lease)) => effects.push(PoolEffect::GiveBack(lease)),
                        (_, None) => {}
                    }
                }
                PoolAction::Refuse { waiter, why } => {
                    if let Some(sender) = inner.line.remove(&waiter) {
                        let turned = self.turned(why, failure.as_mut());
                        effects.push(PoolEffect::Answer(sender, Box::new(Err(turned))));
                    }
                }
                PoolAction::Start { key, lane } => {
                    if let Some(revision) = inner.lanes.get(&lane) {
                        effects.push(PoolEffect::Start(key, Arc::clone(revision)));
                    }
                }
                PoolAction::Stop { key } => {
                    if let Some(slot) = inner.slots.remove(&key) {
                        effects.push(PoolEffect::Stop(key, slot.instance));
                    }
                }
                PoolAction::Cancel { .. } => fed.cancelled = true,
                PoolAction::Lend { key } => fed.lent = self.lease(inner, key),
            }
        }
        (effects, fed)
    }

    fn perform(self: &Arc<Self>, effects: PoolEffects) {
        for effect in effects {
            match effect {
                // Whoever is gone drops the reply, and with it the lease.
                PoolEffect::Answer(sender, reply) => drop(sender.send(*reply)),
                PoolEffect::GiveBack(lease) => drop(lease),
                PoolEffect::Start(key, revision) => {
                    self.context.starter.start(Arc::clone(self), key, revision);
                }
                PoolEffect::Stop(key, instance) => {
                    instance.leaving();
                    let pool = Arc::clone(self);
                    self.context.tasks.spawn(async move {
                        instance.remove().await;
                        pool.feed(PoolInput::Stopped { key });
                    });
                }
            }
        }
    }

    fn lease(self: &Arc<Self>, inner: &mut PoolInner, key: SandboxKey) -> Option<Lease> {
        let slot = inner.slots.get_mut(&key)?;
        Some(Lease::new(Arc::clone(self), key, Arc::clone(&slot.instance), slot.conn.take()))
    }

    fn turned(&self, why: RefusalReason, failure: Option<&mut StartFailure>) -> AcquireError {
        let refusal = match why {
            RefusalReason::WaitQueueFull { waiting } => Refusal::WaitQueueFull { waiting },
            RefusalReason::Concurrency { limit } => Refusal::Concurrency { limit },
            RefusalReason::NoRoom => Refusal::Capacity {
                reason: format!("the node's memory of {} MB is in use", self.context.memory_mb),
            },
            RefusalReason::StartSlow => {
                let backend = self.context.backend;
                return AcquireError::of(unavailable(&format!(
                    "no sandbox was started in time: the {backend} backend is slow or does not answer"
                )));
            }
            RefusalReason::TooSlow { busy } => Refusal::Capacity {
                reason: format!("all {busy} sandboxes of the function stayed busy"),
            },
            RefusalReason::StartFailed => {
                let Some(failure) = failure else {
                    return AcquireError::of(unavailable("the sandbox did not start"));
                };
                let (verdict, init) = (failure.verdict.clone(), Some(failure.took));
                return AcquireError { verdict, log: failure.log.take(), init };
            }
            RefusalReason::Stopping => {
                return AcquireError::of(unavailable("this node is stopping"));
            }
        };
        AcquireError::of(Verdict::Refused(refusal))
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

    fn lock(&self) -> MutexGuard<'_, PoolInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AcquireError {
    pub(crate) fn of(verdict: Verdict) -> Self {
        Self { verdict, log: None, init: None }
    }
}

pub(crate) fn unavailable(reason: &str) -> Verdict {
    Verdict::Refused(Refusal::Unavailable { reason: reason.into() })
}

/// A caller's place in line, left when dropped.
#[derive(Debug)]
struct WaitQueueEntry {
    pool: Arc<FunctionPool>,
    lane: LaneId,
    waiter: WaiterId,
    reply: oneshot::Receiver<AcquireResult>,
    answered: bool,
}

impl Drop for WaitQueueEntry {
    fn drop(&mut self) {
        if !self.answered {
            self.pool.feed(PoolInput::Abandoned { lane: self.lane, waiter: self.waiter });
            self.pool.lock().line.remove(&self.waiter);
        }
    }
}
