//! Random sequences of pushes, claims, settles, cancellations and lapses, against a model that is a
//! list. Whatever the order, each event has one end, and the stream of ended events has it once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hanshu_core::ports::{
    CancelOutcome, EventEnd, HoldStatus, NewEvent, PushOutcome, QueueError, Receipt, RetryOutcome,
};
use hanshu_core::{Clock as _, InvocationState, RequestId, StatusCode, Timestamp};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop};
use proptest::prop_oneof;
use proptest::test_runner::TestRunner;

use crate::ended_events::{fill, stream_of};
use crate::queue_kinds::{TestQueue, event, failure, name, node, redis, sqlite_memory};

const QUEUES: [&str; 3] = ["default/aa", "default/bb", "default/bb/tt"];
const MAX_WAITING: u32 = 6;
const HOLD: Duration = Duration::from_millis(50);

/// One step. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum QueueStep {
    Push { queue: usize },
    Claim { queue: usize, max: usize },
    End { receipt: usize, ran: bool },
    Retry { receipt: usize, after_ms: u64, ran: bool },
    Extend { receipt: usize },
    Cancel { event: usize },
    Pass { ms: u64 },
}

/// An event as the model has it.
#[derive(Debug)]
struct ModelEvent {
    id: RequestId,
    queue: usize,
    state: InvocationState,
    due: Timestamp,
    held_until: Timestamp,
    claims: u64,
    /// Somebody asked to cancel it while it was claimed.
    cancel_requested: bool,
    /// For each attempt, whether it has an end.
    attempts: Vec<bool>,
}

fn steps() -> impl Strategy<Value = Vec<QueueStep>> {
    let queue = 0..QUEUES.len();
    let step = prop_oneof![
        4 => queue.clone().prop_map(|queue| QueueStep::Push { queue }),
        4 => (queue, 1..4_usize).prop_map(|(queue, max)| QueueStep::Claim { queue, max }),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(receipt, ran)| QueueStep::End { receipt, ran }),
        3 => (any::<usize>(), prop_oneof![Just(0), 1..80_u64], any::<bool>())
            .prop_map(|(receipt, after_ms, ran)| QueueStep::Retry { receipt, after_ms, ran }),
        1 => any::<usize>().prop_map(|receipt| QueueStep::Extend { receipt }),
        2 => any::<usize>().prop_map(|event| QueueStep::Cancel { event }),
        3 => (1..60_u64).prop_map(|ms| QueueStep::Pass { ms }),
    ];
    prop::collection::vec(step, 1..60)
}

/// A receipt that was given out: for which event and which claim of it.
#[derive(Clone)]
struct GivenReceipt {
    index: usize,
    claim: u64,
    receipt: Arc<Receipt>,
}

/// A queue, its model, and every receipt that was ever given out.
struct ModelRun {
    kind: TestQueue,
    events: Vec<ModelEvent>,
    receipts: Vec<GivenReceipt>,
}

impl ModelRun {
    async fn step(&mut self, step: &QueueStep) {
        match *step {
            QueueStep::Push { queue } => self.push(queue).await,
            QueueStep::Claim { queue, max } => self.claim(queue, max).await,
            QueueStep::End { receipt, ran } => self.end(receipt, ran).await,
            QueueStep::Retry { receipt, after_ms, ran } => self.retry(receipt, after_ms, ran).await,
            QueueStep::Extend { receipt } => self.extend(receipt).await,
            QueueStep::Cancel { event } => self.cancel(event).await,
            QueueStep::Pass { ms } => self.kind.clock.advance(Duration::from_millis(ms)),
        }
    }

    fn waiting(&self, queue: usize) -> impl Iterator<Item = &ModelEvent> {
        self.events.iter().filter(move |event| {
            use InvocationState::{Queued, Retrying};
            event.queue == queue && matches!(event.state, Queued | Retrying)
        })
    }

    fn running(&self, queue: usize) -> impl Iterator<Item = &ModelEvent> {
        self.events
            .iter()
            .filter(move |event| event.queue == queue && event.state == InvocationState::Running)
    }

    async fn push(&mut self, queue: usize) {
        let now = self.kind.now();
        let new = NewEvent { max_waiting: MAX_WAITING, ..event(QUEUES[queue], now) };
        let id = new.request_id;
        let pushed = self.kind.queue.push(new).await;
        if self.waiting(queue).count() < MAX_WAITING as usize {
            assert!(matches!(pushed, Ok(PushOutcome::Accepted)), "{pushed:?}");
            let state = InvocationState::Queued;
            let (due, held_until) = (now, now);
            self.events.push(ModelEvent {
                id,
                queue,
                state,
                due,
                held_until,
                claims: 0,
                cancel_requested: false,
                attempts: Vec::new(),
            });
        } else {
            assert!(matches!(pushed, Err(QueueError::Full { .. })), "{pushed:?}");
        }
    }

    /// Which are to come: any of those that lapsed, then in order those that are due.
    fn expected(&self, queue: usize, max: usize) -> (Vec<usize>, Vec<usize>) {
        let now = self.kind.now();
        let index = |model: &ModelEvent| self.events.iter().position(|e| e.id == model.id).unwrap();
        let mut lapsed: Vec<_> =
            self.running(queue).filter(|e| e.held_until <= now).map(index).collect();
        lapsed.sort_by_key(|n| self.events[*n].held_until);
        lapsed.truncate(max);
        let mut due: Vec<_> = self.waiting(queue).filter(|e| e.due <= now).map(index).collect();
        due.sort_by_key(|n| self.events[*n].due);
        due.truncate(max - lapsed.len());
        (lapsed, due)
    }

    async fn claim(&mut self, queue: usize, max: usize) {
        let (lapsed, due) = self.expected(queue, max);
        let source = self.kind.queue.source(&name(QUEUES[queue]));
        let claims = source.claim(max, HOLD, &node()).await.unwrap();
        let claimed: Vec<RequestId> = claims.iter().map(|claim| claim.request_id).collect();
        let of = |indexes: &[usize]| indexes.iter().map(|n| self.events[*n].id).collect::<Vec<_>>();
        let split = lapsed.len().min(claimed.len());
        let set = |ids: &[RequestId]| ids.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(set(&claimed[..split]), set(&of(&lapsed)), "lapsed");
        assert_eq!(claimed[split..], of(&due), "due");
        for claim in claims {
            let until = self.kind.now() + HOLD;
            let index = self.events.iter().position(|e| e.id == claim.request_id).unwrap();
            let model = &mut self.events[index];
            model.state = InvocationState::Running;
            model.held_until = until;
            model.claims += 1;
            model.attempts.push(false);
            assert_eq!(u64::from(claim.tries), model.claims);
            assert_eq!(claim.attempt as usize, model.attempts.len());
            assert_eq!(claim.cancel_requested, model.cancel_requested);
            let receipt = Arc::new(claim.receipt);
            self.receipts.push(GivenReceipt { index, claim: model.claims, receipt });
        }
    }

    /// One of the receipts, and whether it is still good.
    fn receipt(&self, choice: usize) -> Option<(usize, Arc<Receipt>, bool)> {
        let given = self.receipts.get(choice.checked_rem(self.receipts.len())?)?;
        let GivenReceipt { index, claim, receipt } = given.clone();
        let model = &self.events[index];
        let good = model.state == InvocationState::Running && model.claims == claim;
        Some((index, receipt, good))
    }

    fn attempt(&self, index: usize, ran: bool) -> Option<hanshu_core::Attempt> {
        ran.then(|| hanshu_core::Attempt {
            number: u32::try_from(self.events[index].attempts.len()).unwrap(),
            started_at: self.kind.now(),
            ended_at: Some(self.kind.now()),
            status: Some(StatusCode::UserException),
            node: Some(node()),
            cold: false,
        })
    }

    async fn end(&mut self, choice: usize, ran: bool) {
        let Some((index, receipt, good)) = self.receipt(choice) else { return };
        let source = self.kind.queue.source(&name(QUEUES[self.events[index].queue]));
        let (how, state) = match choice % 4 {
            0 => (EventEnd::Succeeded(Bytes::from_static(b"1")), InvocationState::Succeeded),
            1 => (EventEnd::Failed(failure("boom")), InvocationState::Failed),
            2 => (EventEnd::Expired(None), InvocationState::Expired),
            _ => (EventEnd::Cancelled, InvocationState::Cancelled),
        };
        let ended = source.end(&receipt, self.attempt(index, ran), how).await;
        self.check(good, ended.as_ref().map(drop));
        if good {
            self.settle(index, ran, state);
        }
    }

    async fn retry(&mut self, choice: usize, after_ms: u64, ran: bool) {
        let Some((index, receipt, good)) = self.receipt(choice) else { return };
        let source = self.kind.queue.source(&name(QUEUES[self.events[index].queue]));
        let due = self.kind.now() + Duration::from_millis(after_ms);
        let put = source.retry(&receipt, due, self.attempt(index, ran)).await;
        self.check(good, put.as_ref().map(drop));
        if good && self.events[index].cancel_requested {
            assert_eq!(put.unwrap(), RetryOutcome::Cancelled);
            self.settle(index, ran, InvocationState::Cancelled);
        } else if good {
            assert_eq!(put.unwrap(), RetryOutcome::Waiting);
            self.events[index].due = due;
            self.settle(index, ran, InvocationState::Retrying);
            if self.events[index].attempts.is_empty() {
                self.events[index].state = InvocationState::Queued;
            }
        }
    }

    async fn extend(&mut self, choice: usize) {
        let Some((index, receipt, good)) = self.receipt(choice) else { return };
        let source = self.kind.queue.source(&name(QUEUES[self.events[index].queue]));
        let held = source.extend(&receipt, HOLD).await;
        self.check(good, held.as_ref().map(drop));
        if good {
            self.events[index].held_until = self.kind.now() + HOLD;
            let told = held.unwrap() == HoldStatus::CancelRequested;
            assert_eq!(told, self.events[index].cancel_requested);
        }
    }

    async fn cancel(&mut self, choice: usize) {
        let Some(index) = choice.checked_rem(self.events.len()) else { return };
        let model = &mut self.events[index];
        let outcome = self.kind.queue.cancel(model.id).await.unwrap();
        let expected = match model.state {
            InvocationState::Queued | InvocationState::Retrying => CancelOutcome::Cancelled,
            InvocationState::Running => CancelOutcome::Requested,
            ended => CancelOutcome::Ended(ended),
        };
        assert_eq!(outcome, expected);
        match expected {
            CancelOutcome::Cancelled => model.state = InvocationState::Cancelled,
            CancelOutcome::Requested => model.cancel_requested = true,
            CancelOutcome::Ended(_) | CancelOutcome::Unknown => {}
        }
    }

    fn check(&self, good: bool, result: Result<(), &QueueError>) {
        match result {
            Ok(()) => assert!(good, "a claim that is not ours was settled"),
            Err(QueueError::Stale(_)) => assert!(!good, "a claim of ours was refused"),
            Err(other) => panic!("{other}"),
        }
    }

    fn settle(&mut self, index: usize, ran: bool, state: InvocationState) {
        let model = &mut self.events[index];
        model.state = state;
        model.attempts.pop();
        if ran {
            model.attempts.push(true);
        }
    }

    /// Everything that can be seen is as the model has it.
    async fn compare(&self) {
        for model in &self.events {
            let state = self.kind.queue.state(model.id).await.unwrap().unwrap();
            assert_eq!(state.state, model.state);
            let ends: Vec<bool> = state.attempts.iter().map(|a| a.ended_at.is_some()).collect();
            assert_eq!(ends, model.attempts);
            assert_eq!(state.ended_at.is_some(), model.state.has_ended());
        }
        let now = self.kind.now();
        let (mut ready, mut next) = (BTreeSet::new(), None);
        for (queue, text) in QUEUES.iter().enumerate() {
            let dues = self.waiting(queue).map(|e| e.due);
            let first = dues.chain(self.running(queue).map(|e| e.held_until)).min();
            if first.is_some_and(|first| first <= now) {
                ready.insert(name(text));
            }
            next = next.into_iter().chain(first).min();
        }
        let seen = self.kind.queue.ready(10).await.unwrap();
        assert_eq!(seen.queues.into_iter().collect::<BTreeSet<_>>(), ready);
        let next = next.filter(|_| ready.is_empty()).map(Timestamp::as_microsecond);
        assert_eq!(seen.next_due.map(Timestamp::as_microsecond), next);
        for stats in self.kind.queue.stats().await.unwrap() {
            let queue = QUEUES.iter().position(|text| name(text) == stats.queue).unwrap();
            assert_eq!(stats.waiting, self.waiting(queue).count() as u64);
            assert_eq!(stats.running, self.running(queue).count() as u64);
        }
    }
}

async fn play(kind: TestQueue, steps: &[QueueStep]) {
    let mut play = ModelRun { kind, events: Vec::new(), receipts: Vec::new() };
    // Whole milliseconds, so that no rounding can put two due times in another order.
    let start = play.kind.clock.now().as_millisecond();
    play.kind.clock.set(Timestamp::from_millisecond(start).unwrap());
    for step in steps {
        play.step(step).await;
        play.compare().await;
    }
    let (stream, history) = stream_of(&play.kind).await;
    let ended = play.events.iter().filter(|event| event.state.has_ended()).count();
    assert_eq!(fill(&stream, &history).await, ended, "each end once");
}

/// Plays on kinds of its own; `None` where this kind cannot be had here.
fn run(cases: u32, open: impl AsyncFn() -> Option<TestQueue>) {
    let runtime =
        Arc::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let played = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async {
            if let Some(kind) = open().await {
                play(kind, &steps).await;
            }
        });
        Ok(())
    });
    played.unwrap();
}

#[test]
fn any_sequence_on_sqlite_is_as_on_a_list() {
    run(96, async || Some(sqlite_memory().await));
}

#[test]
fn any_sequence_on_redis_is_as_on_a_list() {
    run(48, redis);
}
