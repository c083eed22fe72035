//! Hand-written implementations of the ports, for the tests of this crate.

mod echo_invoker;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hanshu_core::ports::{
    CancelOutcome, CatalogError, Claim, EventEnd, EventQueue, EventSource, HoldStatus, Invoke,
    NewEvent, PushOutcome, QueueError, QueueName, QueueStats, ReadyQueues, Receipt, RetryOutcome,
    RevisionCatalog,
};
use hanshu_core::{
    AsyncPolicy, AsyncState, Attempt, Clock, Digest, FunctionConfig, FunctionId, FunctionName,
    InvocationState, Namespace, NodeId, Qualifier, RequestId, Revision, Timestamp, TriggerId,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::dispatch_context::DispatchContext;
use crate::intake::{EventIntake, IntakeOptions};
use crate::retry::RetryPolicy;

pub(crate) use echo_invoker::EchoInvoker;

pub(crate) const START: &str = "2026-11-22T18:00:00Z";

pub(crate) fn function_id(name: &str) -> FunctionId {
    FunctionId { namespace: Namespace::default(), name: name.parse().unwrap() }
}

pub(crate) fn trigger_id(name: &str) -> TriggerId {
    TriggerId { function: function_id("hello"), name: name.parse().unwrap() }
}

pub(crate) fn revision(name: &str, concurrency: Option<u32>) -> Revision {
    Revision {
        function: function_id(name),
        version: Qualifier::Latest,
        digest: Digest::from_bytes([7; 32]),
        code: Digest::from_bytes([8; 32]),
        config: FunctionConfig {
            runtime: "python".parse().unwrap(),
            handler: "index.main_handler".into(),
            memory_mb: 128,
            timeout: Duration::from_secs(3),
            init_timeout: Duration::from_secs(65),
            concurrency,
            network: None,
            async_policy: AsyncPolicy::default(),
            env: BTreeMap::new(),
        },
    }
}

/// Wall-clock time that goes with tokio's (paused) time, and can be set.
#[derive(Debug)]
pub(crate) struct TokioClock(Mutex<(Timestamp, Instant)>);

impl TokioClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new((START.parse().unwrap(), Instant::now()))))
    }

    pub(crate) fn set(&self, to: Timestamp) {
        *self.0.lock().unwrap() = (to, Instant::now());
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let (start, at) = *self.0.lock().unwrap();
        start + at.elapsed()
    }
}

/// A catalog of fixed revisions.
#[derive(Default)]
pub(crate) struct FakeCatalog(pub(crate) Mutex<HashMap<FunctionId, Arc<Revision>>>);

impl FakeCatalog {
    pub(crate) fn of(revisions: impl IntoIterator<Item = Revision>) -> Arc<Self> {
        let entries = revisions.into_iter().map(|r| (r.function.clone(), Arc::new(r)));
        Arc::new(Self(Mutex::new(entries.collect())))
    }

    fn find(&self, id: FunctionId) -> Result<Arc<Revision>, CatalogError> {
        self.0.lock().unwrap().get(&id).cloned().ok_or(CatalogError::NoFunction(id))
    }
}

#[async_trait]
impl RevisionCatalog for FakeCatalog {
    fn resolve(
        &self,
        namespace: &Namespace,
        name: &FunctionName,
        _: Qualifier,
    ) -> Result<Arc<Revision>, CatalogError> {
        self.find(FunctionId { namespace: namespace.clone(), name: name.clone() })
    }

    async fn pinned(
        &self,
        function: &FunctionId,
        _: Qualifier,
        _: &Digest,
    ) -> Result<Arc<Revision>, CatalogError> {
        self.find(function.clone())
    }
}

/// An event in the fake queue.
#[derive(Debug)]
pub(crate) struct StoredEvent {
    pub(crate) event: NewEvent,
    pub(crate) due: Timestamp,
    pub(crate) held_until: Option<Timestamp>,
    pub(crate) claims: u64,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) ended: Option<EventEnd>,
    pub(crate) cancel_requested: bool,
}

/// A queue in memory with the contract of the real ones.
pub(crate) struct FakeQueue(Arc<FakeQueueState>);

pub(crate) struct FakeQueueState {
    clock: Arc<dyn Clock>,
    pub(crate) kept: Mutex<Vec<StoredEvent>>,
    ticks: Mutex<HashMap<TriggerId, Timestamp>>,
    /// While set, every call fails.
    pub(crate) unavailable: Mutex<bool>,
    changed: Notify,
}

impl FakeQueue {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self(Arc::new(FakeQueueState {
            clock,
            kept: Mutex::default(),
            ticks: Mutex::default(),
            unavailable: Mutex::default(),
            changed: Notify::new(),
        })))
    }
}

impl std::ops::Deref for FakeQueue {
    type Target = FakeQueueState;

    fn deref(&self) -> &FakeQueueState {
        &self.0
    }
}

/// What a receipt of the fake queue holds.
struct FakeClaim {
    request_id: RequestId,
    claim: u64,
}

impl FakeQueueState {
    fn kept(&self) -> Result<MutexGuard<'_, Vec<StoredEvent>>, QueueError> {
        if *self.unavailable.lock().unwrap() {
            return Err(QueueError::Unavailable("unavailable on purpose".into()));
        }
        Ok(self.kept.lock().unwrap())
    }

    fn claimed<T>(
        &self,
        receipt: &Receipt,
        settle: impl FnOnce(&mut StoredEvent, Timestamp) -> T,
    ) -> Result<T, QueueError> {
        let FakeClaim { request_id, claim } = receipt.token::<FakeClaim>().unwrap();
        let mut kept = self.kept()?;
        let ours = kept.iter_mut().find(|kept| {
            let same = kept.event.request_id == *request_id;
            same && kept.claims == *claim && kept.held_until.is_some()
        });
        let settled = match ours {
            Some(kept) => settle(kept, self.clock.now()),
            None => return Err(QueueError::Stale(request_id.to_string())),
        };
        drop(kept);
        self.changed.notify_one();
        Ok(settled)
    }

    /// How the events ended so far, by payload.
    pub(crate) fn ended(&self) -> Vec<(Bytes, EventEnd)> {
        let kept = self.kept.lock().unwrap();
        let ended =
            kept.iter().filter_map(|k| Some((k.event.event.payload.clone(), k.ended.clone()?)));
        ended.collect()
    }
}

impl FakeQueue {
    /// Pushes an event of a function, from outside.
    pub(crate) async fn add(&self, function: &str, payload: &'static str) -> RequestId {
        let request_id = RequestId::new();
        let accepted_at = self.clock.now();
        let event = NewEvent {
            request_id,
            queue: QueueName { function: function_id(function), trigger: None },
            version: Qualifier::Latest,
            revision: Digest::from_bytes([7; 32]),
            event: hanshu_core::Event {
                origin: hanshu_core::Origin::Direct,
                payload: Bytes::from_static(payload.as_bytes()),
            },
            accepted_at,
            expires_at: accepted_at + Duration::from_secs(21_600),
            max_waiting: 100_000,
            tick: None,
            rerun_of: None,
        };
        self.push(event).await.unwrap();
        request_id
    }
}

#[async_trait]
impl EventQueue for FakeQueue {
    async fn push(&self, event: NewEvent) -> Result<PushOutcome, QueueError> {
        let mut kept = self.kept()?;
        if let Some(tick) = &event.tick {
            let mut ticks = self.ticks.lock().unwrap();
            if ticks.get(&tick.trigger).is_some_and(|mark| tick.at <= *mark) {
                return Ok(PushOutcome::Duplicate);
            }
            ticks.insert(tick.trigger.clone(), tick.at);
        }
        let due = event.accepted_at;
        kept.push(StoredEvent {
            event,
            due,
            held_until: None,
            claims: 0,
            attempts: vec![],
            ended: None,
            cancel_requested: false,
        });
        drop(kept);
        self.changed.notify_one();
        Ok(PushOutcome::Accepted)
    }

    async fn ready(&self, max: usize) -> Result<ReadyQueues, QueueError> {
        let kept = self.kept()?;
        let now = self.clock.now();
        let mut ready = ReadyQueues::default();
        for event in kept.iter().filter(|event| event.ended.is_none()) {
            let due = event.held_until.unwrap_or(event.due);
            if now < due {
                ready.next_due = Some(ready.next_due.map_or(due, |next: Timestamp| next.min(due)));
            } else if ready.queues.len() < max && !ready.queues.contains(&event.event.queue) {
                ready.queues.push(event.event.queue.clone());
            }
        }
        Ok(ready)
    }

    async fn changed(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.changed.notified()).await;
    }

    fn source(&self, queue: &QueueName) -> Arc<dyn EventSource> {
        Arc::new(FakeSource { queue: queue.clone(), events: self.0.clone() })
    }

    async fn state(&self, _: RequestId) -> Result<Option<AsyncState>, QueueError> {
        Ok(None)
    }

    async fn cancel(&self, request_id: RequestId) -> Result<CancelOutcome, QueueError> {
        let mut kept = self.kept()?;
        let kept = kept.iter_mut().find(|kept| kept.event.request_id == request_id);
        Ok(match kept {
            None => CancelOutcome::Unknown,
            Some(StoredEvent { ended: Some(end), .. }) => CancelOutcome::Ended(match end {
                EventEnd::Succeeded(_) => InvocationState::Succeeded,
                EventEnd::Failed(_) => InvocationState::Failed,
                EventEnd::Expired(_) => InvocationState::Expired,
                EventEnd::Cancelled => InvocationState::Cancelled,
            }),
            Some(kept) if kept.held_until.is_some() => {
                kept.cancel_requested = true;
                CancelOutcome::Requested
            }
            Some(kept) => {
                kept.ended = Some(EventEnd::Cancelled);
                CancelOutcome::Cancelled
            }
        })
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        Ok(Vec::new())
    }

    async fn collect(&self, _: Timestamp) -> Result<u64, QueueError> {
        Ok(0)
    }

    async fn pinned(&self) -> Result<Vec<Digest>, QueueError> {
        Ok(Vec::new())
    }

    async fn durability_warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

struct FakeSource {
    queue: QueueName,
    events: Arc<FakeQueueState>,
}

#[async_trait]
impl EventSource for FakeSource {
    async fn claim(
        &self,
        max: usize,
        hold: Duration,
        _: &NodeId,
    ) -> Result<Vec<Claim>, QueueError> {
        let mut kept = self.events.kept()?;
        let now = self.events.clock.now();
        let due = kept.iter_mut().filter(|kept| {
            kept.ended.is_none()
                && kept.event.queue == self.queue
                && kept.held_until.unwrap_or(kept.due) <= now
        });
        Ok(due
            .take(max)
            .map(|kept| {
                kept.claims += 1;
                kept.held_until = Some(now + hold);
                let (request_id, claim) = (kept.event.request_id, kept.claims);
                Claim {
                    receipt: Receipt::new(FakeClaim { request_id, claim }),
                    request_id,
                    queue: self.queue.clone(),
                    version: kept.event.version,
                    revision: kept.event.revision.clone(),
                    payload: kept.event.event.payload.clone(),
                    origin: kept.event.event.origin.clone(),
                    attempt: u32::try_from(kept.attempts.len()).unwrap() + 1,
                    tries: u32::try_from(kept.claims).unwrap(),
                    accepted_at: kept.event.accepted_at,
                    expires_at: kept.event.expires_at,
                    cancel_requested: kept.cancel_requested,
                }
            })
            .collect())
    }

    async fn extend(&self, receipt: &Receipt, hold: Duration) -> Result<HoldStatus, QueueError> {
        self.events.claimed(receipt, |kept, now| {
            kept.held_until = Some(now + hold);
            match kept.cancel_requested {
                true => HoldStatus::CancelRequested,
                false => HoldStatus::Extended,
            }
        })
    }

    async fn end(
        &self,
        receipt: &Receipt,
        attempt: Option<Attempt>,
        ended: EventEnd,
    ) -> Result<(), QueueError> {
        self.events.claimed(receipt, |kept, _| {
            kept.attempts.extend(attempt);
            kept.ended = Some(ended);
            kept.held_until = None;
        })
    }

    async fn retry(
        &self,
        receipt: &Receipt,
        due: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<RetryOutcome, QueueError> {
        self.events.claimed(receipt, |kept, _| {
            kept.attempts.extend(attempt);
            kept.due = due;
            kept.held_until = None;
            if kept.cancel_requested {
                kept.ended = Some(EventEnd::Cancelled);
                return RetryOutcome::Cancelled;
            }
            RetryOutcome::Waiting
        })
    }
}

/// A dispatch context of a node of its own, with everything on the test's runtime.
pub(crate) fn context(
    queue: Arc<dyn EventQueue>,
    catalog: Arc<FakeCatalog>,
    invoke: Arc<dyn Invoke>,
    clock: Arc<dyn Clock>,
) -> DispatchContext {
    DispatchContext {
        queue,
        catalog,
        invoke,
        clock,
        node: NodeId::new(),
        data: tokio::runtime::Handle::current(),
        policy: RetryPolicy::default(),
    }
}

/// An intake with an [`EchoInvoker`].
pub(crate) fn intake(
    catalog: Arc<FakeCatalog>,
    queue: Arc<dyn EventQueue>,
    clock: Arc<dyn Clock>,
) -> Arc<EventIntake> {
    Arc::new(EventIntake {
        catalog,
        invoke: Arc::new(EchoInvoker::new()),
        queue,
        clock,
        general: tokio::runtime::Handle::current(),
        options: IntakeOptions::default(),
    })
}
