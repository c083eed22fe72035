//! The shell around the decisions of one function's pool.
//!
//! The state is behind one mutex that is held for microseconds. A warm caller runs the decision
//! itself and has its sandbox before the mutex is unlocked: no task, no mailbox, nothing shared with
//! other functions. Only starts and stops are tasks of their own, on the general runtime.

mod cancellation;
mod waiting_caller;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hanshu_core::{Refusal, RequestId, Revision, lock};
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::{self, Instant};

use super::acquire_error::AcquireError;
use super::lease::{LeaseOwner, SandboxLease};
use super::state::{
    LaneId, PoolAction, PoolActions, PoolCounts, PoolInput, PoolRules, PoolState, RefusalReason,
    SandboxKey, WaiterId,
};
use crate::sandbox::exchange::DataConnection;
use crate::sandbox::instance::SandboxInstance;
use crate::sandbox::launch::StartFailure;
use crate::tasks::BackgroundTasks;
pub(crate) use cancellation::CancelTarget;
use waiting_caller::{WaitQueueEntry, WaitingCaller};

/// A caller whose time is over while a start is in progress for it asks again after this.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Starts sandboxes for pools.
pub(crate) trait SandboxStarter: Send + Sync + std::fmt::Debug {
    /// Starts one in a task of its own, which reports the result to the pool by
    /// [`FunctionPool::started`] or [`FunctionPool::start_failed`], unless
    /// [`FunctionPool::start_blocked`] has cancelled it.
    fn start(&self, pool: Arc<FunctionPool>, key: SandboxKey, revision: Arc<Revision>);
}

/// What the pools of a node have in common.
#[derive(Debug)]
pub(crate) struct PoolContext {
    /// All but each function's own concurrency.
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

/// The right to use one sandbox of a pool.
pub(crate) type Lease = SandboxLease<FunctionPool>;

/// What a waiting caller gets in the end.
pub(crate) type AcquireResult = Result<Lease, AcquireError>;

#[derive(Debug)]
struct PoolInner {
    state: PoolState,
    sandboxes: HashMap<SandboxKey, PoolSlot>,
    wait_queue: HashMap<WaiterId, WaitingCaller>,
    lanes: HashMap<LaneId, Arc<Revision>>,
    /// Starts in progress, and whether the backend has started the sandbox.
    starts: HashMap<SandboxKey, Arc<AtomicBool>>,
    next_waiter: u64,
    next_lane: u32,
    ticking: bool,
}

/// A sandbox that is up. Its user has its connection.
#[derive(Debug)]
struct PoolSlot {
    instance: Arc<SandboxInstance>,
    conn: Option<Box<DataConnection>>,
    /// The invocation that it is granted to.
    request_id: Option<RequestId>,
}

/// What is done once the mutex is unlocked.
#[derive(Debug)]
enum PoolEffect {
    Answer(oneshot::Sender<AcquireResult>, Box<AcquireResult>),
    /// A lease for a caller that is gone: dropping it locks the mutex.
    GiveBack(Lease),
    Start(SandboxKey, Arc<Revision>),
    Stop(SandboxKey, Arc<SandboxInstance>),
}

type PoolEffects = SmallVec<[PoolEffect; 2]>;

/// What an input led to for the one who reported it.
#[derive(Debug, Default)]
struct AppliedInput {
    /// The start is not wanted any more.
    cancelled: bool,
    /// The sandbox that the maintenance borrows.
    borrowed: Option<Lease>,
}

impl FunctionPool {
    pub(crate) fn new(context: Arc<PoolContext>) -> Arc<Self> {
        let inner = PoolInner {
            state: PoolState::new(context.rules),
            sandboxes: HashMap::new(),
            wait_queue: HashMap::new(),
            lanes: HashMap::new(),
            starts: HashMap::new(),
            next_waiter: 0,
            next_lane: 0,
            ticking: false,
        };
        Arc::new(Self { context, inner: Mutex::new(inner) })
    }

    /// Opens a lane for a revision. The function's concurrency is that of its newest lane.
    pub(crate) fn open_lane(&self, revision: &Revision) -> LaneId {
        let mut inner = lock(&self.inner);
        let lane = LaneId(inner.next_lane);
        inner.next_lane = inner.next_lane.wrapping_add(1);
        inner.state.rules.concurrency = revision.config.concurrency;
        lane
    }

    /// No new events are expected for the lane: idle sandboxes are stopped now, others when they are
    /// returned.
    pub(crate) fn retire_lane(self: &Arc<Self>, lane: LaneId) {
        self.apply(PoolInput::Retired { lane });
    }

    /// A sandbox of the lane, which is this revision's, warm or cold, for one invocation. Waits at most
    /// `wait`, or until a start that is in progress for this caller has ended.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        request_id: RequestId,
        lane: LaneId,
        revision: &Arc<Revision>,
        wait: Duration,
    ) -> AcquireResult {
        let begun = Instant::now();
        let mut entry = match self.request(begun, request_id, lane, revision) {
            Ok(result) => return result,
            Err(entry) => entry,
        };
        let mut ask_at = begun + wait;
        loop {
            match time::timeout_at(ask_at, &mut entry.result).await {
                Ok(Ok(result)) => {
                    entry.answered = true;
                    return result.map(|mut lease| {
                        lease.waited = true;
                        lease
                    });
                }
                Ok(Err(_)) => return Err(AcquireError::unavailable("the pool is gone")),
                Err(_) => {
                    self.expire(lane, entry.waiter);
                    ask_at = Instant::now() + ASK_AGAIN;
                }
            }
        }
    }

    /// A caller's waiting time is over.
    fn expire(self: &Arc<Self>, lane: LaneId, waiter: WaiterId) {
        let loading: Vec<_> = {
            let inner = lock(&self.inner);
            let started = inner.starts.iter().filter(|(_, flag)| flag.load(Ordering::Acquire));
            started.map(|(key, _)| *key).collect()
        };
        for key in loading {
            self.start_loading(key);
        }
        self.apply(PoolInput::Expired { lane, waiter });
    }

    /// A start waits for room; reported again and again while it does. `true`: it is not wanted any
    /// more.
    pub(crate) fn start_blocked(self: &Arc<Self>, key: SandboxKey) -> bool {
        self.apply(PoolInput::Blocked { key }).cancelled
    }

    /// A start found room.
    pub(crate) fn start_unblocked(self: &Arc<Self>, key: SandboxKey) {
        self.apply(PoolInput::Unblocked { key });
    }

    /// A sandbox was started and loads the user's code.
    pub(crate) fn start_loading(self: &Arc<Self>, key: SandboxKey) {
        self.apply(PoolInput::Loading { key });
    }

    /// `started` tells, until the start is over, whether the backend has started the sandbox.
    pub(crate) fn watch_start(&self, key: SandboxKey, started: Arc<AtomicBool>) {
        lock(&self.inner).starts.insert(key, started);
    }

    /// Takes note that a sandbox did not come up.
    pub(crate) fn start_failed(self: &Arc<Self>, key: SandboxKey, failure: StartFailure) {
        let mut inner = lock(&self.inner);
        inner.starts.remove(&key);
        let actions = inner.state.on(Instant::now(), PoolInput::StartFailed { key });
        let (effects, _) = self.collect_effects(&mut inner, actions, Some(failure));
        drop(inner);
        self.perform(effects);
    }

    /// A sandbox is ready.
    pub(crate) fn started(
        self: &Arc<Self>,
        key: SandboxKey,
        instance: Arc<SandboxInstance>,
        conn: DataConnection,
    ) {
        let took = instance.init;
        let mut inner = lock(&self.inner);
        inner.starts.remove(&key);
        inner
            .sandboxes
            .insert(key, PoolSlot { instance, conn: Some(Box::new(conn)), request_id: None });
        let actions = inner.state.on(Instant::now(), PoolInput::Started { key, took });
        let (effects, _) = self.collect_effects(&mut inner, actions, None);
        drop(inner);
        self.perform(effects);
    }

    /// A sandbox ended by itself.
    pub(crate) fn died(self: &Arc<Self>, key: SandboxKey) {
        self.apply(PoolInput::Died { key });
    }

    /// How many sandboxes are in which state.
    pub(crate) fn counts(&self) -> PoolCounts {
        lock(&self.inner).state.counts()
    }

    /// Whether no caller waits and no sandbox is left.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.inner).state.is_empty()
    }

    /// Idle sandboxes and since when, in no order.
    pub(crate) fn idle(&self) -> Vec<(SandboxKey, Instant, Arc<SandboxInstance>)> {
        let inner = lock(&self.inner);
        let known = |(key, since)| {
            inner.sandboxes.get(&key).map(|slot| (key, since, Arc::clone(&slot.instance)))
        };
        inner.state.idle().filter_map(known).collect()
    }

    /// Takes an idle sandbox for the maintenance; `None` if it is not idle any more.
    pub(crate) fn borrow(self: &Arc<Self>, key: SandboxKey, idle_since: Instant) -> Option<Lease> {
        let borrowed = self.apply(PoolInput::Borrowed { key }).borrowed;
        borrowed.map(|lease| lease.borrowed(idle_since))
    }

    /// Stops an idle sandbox; does nothing if it is not idle any more.
    pub(crate) fn evict(self: &Arc<Self>, key: SandboxKey) {
        self.apply(PoolInput::Evicted { key });
    }

    /// Does what only the passing of time makes necessary.
    pub(crate) fn tick(self: &Arc<Self>) {
        self.apply(PoolInput::Tick);
        let mut inner = lock(&self.inner);
        let PoolInner { state, lanes, .. } = &mut *inner;
        lanes.retain(|lane, _| state.has_lane(*lane));
    }

    /// Refuses who waits and stops idle sandboxes; others are stopped when they are returned.
    pub(crate) fn shut_down(self: &Arc<Self>) {
        self.apply(PoolInput::Shutdown);
    }

    /// Ends every sandbox that is up, used or not.
    pub(crate) fn kill_all(&self) {
        for slot in lock(&self.inner).sandboxes.values() {
            slot.instance.handle.kill_for_shutdown();
        }
    }

    /// The decision on a new caller: its result at once, or its entry in the wait queue.
    fn request(
        self: &Arc<Self>,
        now: Instant,
        request_id: RequestId,
        lane: LaneId,
        revision: &Arc<Revision>,
    ) -> Result<AcquireResult, WaitQueueEntry> {
        let mut inner = lock(&self.inner);
        let waiter = WaiterId(inner.next_waiter);
        inner.next_waiter = inner.next_waiter.wrapping_add(1);
        let actions = inner.state.on(now, PoolInput::Requested { lane, waiter });
        match actions.as_slice() {
            [PoolAction::Grant { key, .. }] => {
                let lease = self.lease(&mut inner, *key, Some(request_id));
                return Ok(lease.ok_or_else(|| AcquireError::unavailable("the sandbox is gone")));
            }
            [PoolAction::Refuse { reason, .. }] => {
                return Ok(Err(self.to_acquire_error(*reason, None)));
            }
            _ => {}
        }
        let (sender, result) = oneshot::channel();
        inner.wait_queue.insert(waiter, WaitingCaller { request_id, lane, result: sender });
        inner.lanes.entry(lane).or_insert_with(|| Arc::clone(revision));
        let (effects, _) = self.collect_effects(&mut inner, actions, None);
        let start_ticking = !std::mem::replace(&mut inner.ticking, true);
        drop(inner);
        if start_ticking {
            self.context.tasks.spawn(Arc::clone(self).tick_while_anybody_waits());
        }
        self.perform(effects);
        Err(WaitQueueEntry { pool: Arc::clone(self), lane, waiter, result, answered: false })
    }

    /// Decides on an input and carries out the decision.
    fn apply(self: &Arc<Self>, input: PoolInput) -> AppliedInput {
        let mut inner = lock(&self.inner);
        let actions = inner.state.on(Instant::now(), input);
        let (effects, applied) = self.collect_effects(&mut inner, actions, None);
        drop(inner);
        self.perform(effects);
        applied
    }

    /// Collects, under the mutex, what the actions need.
    fn collect_effects(
        self: &Arc<Self>,
        inner: &mut PoolInner,
        actions: PoolActions,
        mut failure: Option<StartFailure>,
    ) -> (PoolEffects, AppliedInput) {
        let (mut effects, mut applied) = (PoolEffects::new(), AppliedInput::default());
        for action in actions {
            match action {
                PoolAction::Grant { waiter, key } => {
                    let caller = inner.wait_queue.remove(&waiter);
                    let request_id = caller.as_ref().map(|caller| caller.request_id);
                    match (caller, self.lease(inner, key, request_id)) {
                        (Some(caller), Some(lease)) => {
                            effects.push(PoolEffect::Answer(caller.result, Box::new(Ok(lease))));
                        }
                        (None, Some(lease)) => effects.push(PoolEffect::GiveBack(lease)),
                        (_, None) => {}
                    }
                }
                PoolAction::Refuse { waiter, reason } => {
                    if let Some(caller) = inner.wait_queue.remove(&waiter) {
                        let error = self.to_acquire_error(reason, failure.as_mut());
                        effects.push(PoolEffect::Answer(caller.result, Box::new(Err(error))));
                    }
                }
                PoolAction::Start { key, lane } => {
                    if let Some(revision) = inner.lanes.get(&lane) {
                        effects.push(PoolEffect::Start(key, Arc::clone(revision)));
                    }
                }
                PoolAction::Stop { key } => {
                    if let Some(slot) = inner.sandboxes.remove(&key) {
                        effects.push(PoolEffect::Stop(key, slot.instance));
                    }
                }
                PoolAction::Cancel { .. } => applied.cancelled = true,
                PoolAction::Lend { key } => applied.borrowed = self.lease(inner, key, None),
            }
        }
        (effects, applied)
    }

    fn perform(self: &Arc<Self>, effects: PoolEffects) {
        for effect in effects {
            match effect {
                // A caller that is gone drops the result, and with it the lease.
                PoolEffect::Answer(sender, result) => drop(sender.send(*result)),
                PoolEffect::GiveBack(lease) => drop(lease),
                PoolEffect::Start(key, revision) => {
                    self.context.starter.start(Arc::clone(self), key, revision);
                }
                PoolEffect::Stop(key, instance) => {
                    instance.mark_leaving();
                    let pool = Arc::clone(self);
                    self.context.tasks.spawn(async move {
                        instance.remove().await;
                        pool.apply(PoolInput::Stopped { key });
                    });
                }
            }
        }
    }

    fn lease(
        self: &Arc<Self>,
        inner: &mut PoolInner,
        key: SandboxKey,
        request_id: Option<RequestId>,
    ) -> Option<Lease> {
        let slot = inner.sandboxes.get_mut(&key)?;
        slot.request_id = request_id;
        let (instance, conn) = (Arc::clone(&slot.instance), slot.conn.take());
        Some(SandboxLease::new(Arc::clone(self), key, instance, conn))
    }

    fn to_acquire_error(
        &self,
        reason: RefusalReason,
        failure: Option<&mut StartFailure>,
    ) -> AcquireError {
        let PoolContext { backend, memory_mb, .. } = &*self.context;
        match reason {
            RefusalReason::WaitQueueFull { waiting } => Refusal::WaitQueueFull { waiting }.into(),
            RefusalReason::Concurrency { limit } => Refusal::Concurrency { limit }.into(),
            RefusalReason::NoRoom => {
                let reason = format!("the node's memory of {memory_mb} MB is in use");
                Refusal::Capacity { reason }.into()
            }
            RefusalReason::StartSlow => AcquireError::unavailable(&format!(
                "no sandbox was started in time: the {backend} backend is slow or does not answer"
            )),
            RefusalReason::TooSlow { busy } => {
                let reason = format!("all {busy} sandboxes of the function stayed busy");
                Refusal::Capacity { reason }.into()
            }
            RefusalReason::StartFailed => match failure {
                Some(failure) => AcquireError::start_failed(failure),
                None => AcquireError::unavailable("the sandbox did not start"),
            },
            RefusalReason::Stopping => AcquireError::unavailable("this node is stopping"),
        }
    }

    /// Only while a caller waits does the passing of time justify starts.
    async fn tick_while_anybody_waits(self: Arc<Self>) {
        let pause = lock(&self.inner).state.rules.target_wait / 2;
        let pause = pause.max(Duration::from_millis(1));
        loop {
            time::sleep(pause).await;
            self.tick();
            let mut inner = lock(&self.inner);
            if inner.state.waiting() == 0 {
                inner.ticking = false;
                return;
            }
        }
    }
}

impl LeaseOwner for FunctionPool {
    fn take_back(
        self: &Arc<Self>,
        key: SandboxKey,
        conn: Option<Box<DataConnection>>,
        input: PoolInput,
    ) {
        let mut inner = lock(&self.inner);
        if let Some(slot) = inner.sandboxes.get_mut(&key) {
            slot.conn = conn;
            slot.request_id = None;
        }
        let actions = inner.state.on(Instant::now(), input);
        let (effects, _) = self.collect_effects(&mut inner, actions, None);
        drop(inner);
        self.perform(effects);
    }
}
