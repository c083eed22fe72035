//! Faults at every call of the queue, from a seed, under virtual time: calls fail before or after
//! they are done, are slow, are done long after their caller gave up, or are not answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hanshu_core::ports::{
    CancelOutcome, CancelReach, Claim, EventEnd, EventQueue, EventSource, HoldStatus, Invoke,
    NewEvent, PushOutcome, QueueError, QueueName, QueueStats, ReadyQueues, Receipt, RetryOutcome,
};
use hanshu_core::{
    Actor, AsyncState, Attempt, Clock as _, Digest, Event, Failure, FunctionId, Invocation,
    Namespace, NodeId, Origin, Outcome, Qualifier, Refusal, Report, RequestId, StatusCode,
    TimerTrigger, Timestamp, Trigger, TriggerSpec, Verdict,
};
use proptest::prelude::*;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::dispatcher::{DispatcherOptions, QueueDispatcher};
use crate::intake::FunctionCall;
use crate::stop_signals::StopSignals;
use crate::test_support::{
    FakeCatalog, FakeQueue, START, TokioClock, context, intake, revision, trigger_id,
};
use crate::timer::{TimerOptions, TimerScheduler};
use crate::trigger_watch::TriggersFeed;

/// An adapter gives up a call that is not answered after this.
const ADAPTER_DEADLINE: Duration = Duration::from_secs(12);

/// What happens to a call.
#[derive(Clone, Copy, Debug)]
enum QueueFault {
    No,
    /// It fails and nothing is done.
    Before,
    /// It is done, and reported as failed.
    After,
    /// It takes so long.
    Slow(Duration),
    /// It is done after so long, whether or not anybody still waits.
    Late(Duration),
    /// It is not answered, and nothing is done.
    Silent,
}

/// The source of all random numbers of a test.
struct FaultDice(Mutex<FaultChance>);

struct FaultChance {
    state: u64,
    /// How many of a hundred calls meet a fault.
    faults: u64,
}

impl FaultDice {
    fn new(seed: u64, faults: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(FaultChance { state: seed | 1, faults })))
    }

    /// A number under `below`.
    fn number(&self, below: u64) -> u64 {
        let state = &mut self.0.lock().unwrap().state;
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 16) % below
    }

    fn no_more_faults(&self) {
        self.0.lock().unwrap().faults = 0;
    }

    fn fault(&self) -> QueueFault {
        let faults = self.0.lock().unwrap().faults;
        if faults <= self.number(100) {
            return QueueFault::No;
        }
        let ms = |most| Duration::from_millis(self.number(most));
        match self.number(5) {
            0 => QueueFault::Before,
            1 => QueueFault::After,
            2 => QueueFault::Slow(ms(15_000)),
            3 => QueueFault::Late(ms(45_000)),
            _ => QueueFault::Silent,
        }
    }

    /// Makes the call, unless a fault prevents it.
    async fn through<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, QueueError>> + Send + 'static,
    ) -> Result<T, QueueError> {
        let failed = || Err(QueueError::Unavailable("a fault on purpose".into()));
        match self.fault() {
            QueueFault::No => call.await,
            QueueFault::Before => failed(),
            QueueFault::After => {
                let _ = call.await;
                failed()
            }
            QueueFault::Slow(time) => {
                sleep(time).await;
                call.await
            }
            QueueFault::Late(time) => {
                let late = TaskTracker::new().spawn(async move {
                    sleep(time).await;
                    call.await
                });
                match timeout(ADAPTER_DEADLINE, late).await {
                    Ok(done) => done.unwrap(),
                    Err(_) => failed(),
                }
            }
            QueueFault::Silent => {
                sleep(ADAPTER_DEADLINE).await;
                failed()
            }
        }
    }
}

/// The queue in memory, behind faults.
struct FlakyQueue {
    inner: Arc<FakeQueue>,
    dice: Arc<FaultDice>,
}

#[async_trait]
impl EventQueue for FlakyQueue {
    async fn push(&self, event: NewEvent) -> Result<PushOutcome, QueueError> {
        let inner = self.inner.clone();
        self.dice.through(async move { inner.push(event).await }).await
    }

    async fn ready(&self, max: usize) -> Result<ReadyQueues, QueueError> {
        let inner = self.inner.clone();
        self.dice.through(async move { inner.ready(max).await }).await
    }

    async fn changed(&self, at_most: Duration) {
        self.inner.changed(at_most).await;
    }

    fn source(&self, queue: &QueueName) -> Arc<dyn EventSource> {
        Arc::new(FlakySource { inner: self.inner.source(queue), dice: self.dice.clone() })
    }

    async fn state(&self, id: RequestId) -> Result<Option<AsyncState>, QueueError> {
        self.inner.state(id).await
    }

    async fn cancel(&self, id: RequestId) -> Result<CancelOutcome, QueueError> {
        self.inner.cancel(id).await
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        self.inner.stats().await
    }

    async fn collect(&self, ended_before: Timestamp) -> Result<u64, QueueError> {
        self.inner.collect(ended_before).await
    }

    async fn pinned(&self) -> Result<Vec<Digest>, QueueError> {
        self.inner.pinned().await
    }

    async fn durability_warnings(&self) -> Vec<String> {
        self.inner.durability_warnings().await
    }
}

/// What a receipt of the flaky source holds: a call may be made after its caller gave up, and needs
/// the receipt then.
struct SharedReceipt(Arc<Receipt>);

fn shared(receipt: &Receipt) -> Arc<Receipt> {
    receipt.token::<SharedReceipt>().unwrap().0.clone()
}

struct FlakySource {
    inner: Arc<dyn EventSource>,
    dice: Arc<FaultDice>,
}

#[async_trait]
impl EventSource for FlakySource {
    async fn claim(
        &self,
        max: usize,
        hold: Duration,
        node: &NodeId,
    ) -> Result<Vec<Claim>, QueueError> {
        let (inner, node) = (self.inner.clone(), node.clone());
        let claims = self.dice.through(async move { inner.claim(max, hold, &node).await }).await?;
        let shared = claims.into_iter().map(|claim| {
            let receipt = Receipt::new(SharedReceipt(Arc::new(claim.receipt)));
            Claim { receipt, ..claim }
        });
        Ok(shared.collect())
    }

    async fn extend(&self, receipt: &Receipt, hold: Duration) -> Result<HoldStatus, QueueError> {
        let (inner, receipt) = (self.inner.clone(), shared(receipt));
        self.dice.through(async move { inner.extend(&receipt, hold).await }).await
    }

    async fn end(
        &self,
        receipt: &Receipt,
        attempt: Option<Attempt>,
        ended: EventEnd,
    ) -> Result<(), QueueError> {
        let (inner, receipt) = (self.inner.clone(), shared(receipt));
        self.dice.through(async move { inner.end(&receipt, attempt, ended).await }).await
    }

    async fn retry(
        &self,
        receipt: &Receipt,
        due: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<RetryOutcome, QueueError> {
        let (inner, receipt) = (self.inner.clone(), shared(receipt));
        self.dice.through(async move { inner.retry(&receipt, due, attempt).await }).await
    }
}

/// Runs events for up to 40 seconds, longer than a hold, and records runs of ended events.
struct EndedRunWatcher {
    queue: Arc<FakeQueue>,
    dice: Arc<FaultDice>,
    runs: Mutex<HashMap<RequestId, u32>>,
    late: Mutex<Vec<RequestId>>,
    cancelled: watch::Sender<Vec<RequestId>>,
}

#[async_trait]
impl Invoke for EndedRunWatcher {
    async fn invoke(&self, invocation: Invocation) -> Outcome {
        let id = invocation.request_id;
        let has_ended = {
            let kept = self.queue.kept.lock().unwrap();
            kept.iter().any(|kept| kept.event.request_id == id && kept.ended.is_some())
        };
        if has_ended {
            self.late.lock().unwrap().push(id);
        }
        *self.runs.lock().unwrap().entry(id).or_default() += 1;
        let takes = match self.dice.number(4) {
            0 => Duration::from_millis(self.dice.number(40_000)),
            _ => Duration::from_millis(self.dice.number(200)),
        };
        let mut cancelled = self.cancelled.subscribe();
        let is_cancelled = tokio::select! {
            () = sleep(takes) => false,
            _ = cancelled.wait_for(|all| all.contains(&id)) => true,
        };
        let verdict = match self.dice.number(10) {
            _ if is_cancelled => Verdict::Failed(Failure::cancelled()),
            0 => Verdict::Failed(Failure::seen(StatusCode::UserException, "boom")),
            1 => Verdict::Refused(Refusal::Unavailable { reason: "the node stops".into() }),
            2 => Verdict::Refused(Refusal::Concurrency { limit: 1 }),
            _ => Verdict::Returned(invocation.event.payload),
        };
        let report = Report {
            started_at: START.parse().unwrap(),
            duration: takes,
            cold: false,
            init: None,
            memory_bytes: 0,
            node: None,
            log_tail: None,
        };
        Outcome { verdict, report }
    }

    async fn cancel(&self, request_id: RequestId) -> CancelReach {
        // Now and then the node cannot be reached.
        if self.dice.number(3) == 0 {
            return CancelReach::Unknown;
        }
        self.cancelled.send_modify(|all| all.push(request_id));
        CancelReach::Reached
    }
}

fn call(function: &str) -> FunctionCall {
    FunctionCall {
        request_id: RequestId::new(),
        function: FunctionId { namespace: Namespace::default(), name: function.parse().unwrap() },
        qualifier: Qualifier::Latest,
        event: Event { origin: Origin::Direct, payload: Bytes::from_static(b"1") },
        tail: false,
    }
}

/// Cancels a few of these events in the course of some minutes; returns those that have ended so.
async fn cancel_some(
    accepted: &[RequestId],
    queue: &FakeQueue,
    watcher: &EndedRunWatcher,
    dice: &FaultDice,
) -> Vec<RequestId> {
    let mut cancelled = Vec::new();
    for _ in 0..10 {
        sleep(Duration::from_secs(dice.number(30))).await;
        let Some(id) = accepted.get(usize::try_from(dice.number(40)).unwrap()) else { continue };
        match queue.cancel(*id).await.unwrap() {
            CancelOutcome::Cancelled => cancelled.push(*id),
            CancelOutcome::Requested => {
                watcher.cancel(*id).await;
            }
            CancelOutcome::Ended(_) => {}
            CancelOutcome::Unknown => panic!("an accepted event is unknown"),
        }
    }
    cancelled
}

/// Two nodes, thirty events of two functions, five minutes of faults, then none.
async fn events_under_faults(seed: u64, faults: u64) {
    let (clock, dice) = (TokioClock::new(), FaultDice::new(seed, faults));
    let inner = FakeQueue::new(clock.clone());
    let queue = Arc::new(FlakyQueue { inner: inner.clone(), dice: dice.clone() });
    let catalog = FakeCatalog::of([revision("hello", None), revision("other", Some(1))]);
    let watcher = Arc::new(EndedRunWatcher {
        queue: inner.clone(),
        dice: dice.clone(),
        runs: Mutex::default(),
        late: Mutex::default(),
        cancelled: watch::Sender::default(),
    });
    let (stop, mut nodes) = (StopSignals::default(), JoinSet::new());
    for _ in 0..2 {
        let context = context(queue.clone(), catalog.clone(), watcher.clone(), clock.clone());
        let options = DispatcherOptions {
            in_flight_max: 4,
            per_function_max: 3,
            ..DispatcherOptions::default()
        };
        nodes.spawn(QueueDispatcher::new(context, options).run(stop.clone()));
    }
    let intake = intake(catalog, queue.clone(), clock.clone());
    let mut accepted = Vec::new();
    for n in 0..30 {
        let call = call(if n % 3 == 0 { "other" } else { "hello" });
        let id = call.request_id;
        let pushed =
            timeout(ADAPTER_DEADLINE * 4, intake.accept(&Actor::process(), call, None)).await;
        if pushed.expect("every caller is answered").is_ok() {
            accepted.push(id);
        }
    }
    let cancelled = cancel_some(&accepted, &inner, &watcher, &dice).await;
    sleep(Duration::from_secs(300)).await;
    dice.no_more_faults();
    let ended = |id: &RequestId| {
        let kept = inner.kept.lock().unwrap();
        let found = kept.iter().find(|kept| kept.event.request_id == *id);
        found.expect("an accepted event was lost").ended.clone()
    };
    let open = || accepted.iter().filter(|id| ended(id).is_none()).count();
    // Retries are minutes apart, and holds have to run out.
    for _ in 0..240 {
        if open() == 0 {
            break;
        }
        sleep(Duration::from_secs(30)).await;
    }
    assert_eq!(open(), 0, "of {} accepted events some never end", accepted.len());
    stop.intake.cancel();
    let all = async { while nodes.join_next().await.transpose().unwrap().is_some() {} };
    timeout(Duration::from_secs(120), all).await.expect("a slot was never freed");
    assert_eq!(*watcher.late.lock().unwrap(), [], "ran after it had ended");
    for id in &accepted {
        let ran = watcher.runs.lock().unwrap().get(id).copied().unwrap_or_default();
        assert!(
            !matches!(ended(id), Some(EventEnd::Succeeded(_))) || 0 < ran,
            "ended without a run"
        );
    }
    for id in &cancelled {
        assert_eq!(ended(id), Some(EventEnd::Cancelled));
    }
}

/// Two nodes, two timers, two minutes of faults, then none. Few enough faults that no tick gets
/// older than a minute.
async fn ticks_under_faults(seed: u64, faults: u64) {
    let (clock, dice) = (TokioClock::new(), FaultDice::new(seed, faults));
    let inner = FakeQueue::new(clock.clone());
    let catalog = FakeCatalog::of([revision("hello", None)]);
    let queue = Arc::new(FlakyQueue { inner: inner.clone(), dice: dice.clone() });
    let intake = intake(catalog, queue, clock.clone());
    let (feed, view) = TriggersFeed::new();
    let (stop, mut nodes) = (StopSignals::default(), JoinSet::new());
    for _ in 0..2 {
        let timers = TimerScheduler::new(intake.clone(), TimerOptions::default());
        nodes.spawn(timers.run(view.clone(), stop.clone()));
    }
    let timer = |name, cron: &str| Trigger {
        id: trigger_id(name),
        spec: TriggerSpec::new(TimerTrigger { cron: cron.into(), ..TimerTrigger::default() }),
        enabled: true,
    };
    feed.replace(vec![timer("often", "*/10 * * * * *"), timer("seldom", "*/15 * * * * *")]);
    sleep(Duration::from_secs(120)).await;
    dice.no_more_faults();
    sleep(Duration::from_millis(120_500)).await;
    stop.intake.cancel();
    stop.work.cancel();
    let all = async { while nodes.join_next().await.transpose().unwrap().is_some() {} };
    timeout(Duration::from_secs(60), all).await.expect("the timers end after a stop");
    let start: Timestamp = START.parse().unwrap();
    assert!(start < clock.now());
    for (name, every) in [("often", 10), ("seldom", 15)] {
        let kept = inner.kept.lock().unwrap();
        let ticks = kept.iter().filter_map(|kept| kept.event.tick.as_ref());
        let its = ticks.filter(|tick| tick.trigger == trigger_id(name));
        let at: Vec<_> = its.map(|tick| tick.at.as_second() - start.as_second()).collect();
        let all: Vec<_> = (1..=240 / every).map(|n| n * every).collect();
        assert_eq!(at, all, "{name}: each tick once and in order");
    }
}

fn in_no_time(life: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(life);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the queue does, and whatever is cancelled meanwhile, an accepted event is neither
    /// lost nor run after its end, every caller is answered, and every slot is freed.
    #[test]
    fn an_accepted_event_survives_every_fault_of_its_queue(seed: u64, faults in 0..60u64) {
        in_no_time(events_under_faults(seed, faults));
    }

    /// Whatever the queue does, each tick is queued once.
    #[test]
    fn a_tick_is_queued_once_under_every_fault_of_its_queue(seed: u64, faults in 0..30u64) {
        in_no_time(ticks_under_faults(seed, faults));
    }
}
