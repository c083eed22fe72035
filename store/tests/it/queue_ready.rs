//! The contract of `EventQueue`: what is ready, waking up, figures, and callers that go away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{join_all, poll_immediate};
use hanshu_core::ports::{EventEnd, EventQueue, NewEvent, PushOutcome, QueueError, QueueStats};
use hanshu_core::{Event, HttpTrigger, InvocationState, Origin, RequestId, TriggerConfig as _};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tokio::time::{sleep, timeout};

use crate::queue_kinds::{HOLD, TestQueue, failure, kinds, name, node, shared_kinds, sqlite_file};

const SECOND: Duration = Duration::from_secs(1);
const Q: &str = "default/hello";

#[tokio::test]
async fn queues_with_something_due_are_ready_oldest_first() {
    for kind in kinds().await {
        let empty = kind.queue.ready(10).await.unwrap();
        assert_eq!((empty.queues, empty.next_due), (vec![], None), "{}", kind.name);
        for queue in ["default/cc", "default/aa", "default/bb"] {
            kind.push(queue).await;
            kind.push(queue).await;
            kind.clock.advance(SECOND);
        }
        let all = [name("default/cc"), name("default/aa"), name("default/bb")];
        let ready = kind.queue.ready(10).await.unwrap();
        assert_eq!((&ready.queues[..], ready.next_due), (&all[..], None), "{}", kind.name);
        assert_eq!(kind.queue.ready(2).await.unwrap().queues, all[..2], "{}", kind.name);
        assert_eq!(kind.queue.ready(0).await.unwrap().queues, [], "{}", kind.name);
        kind.claim("default/cc", 10).await;
        kind.claim("default/aa", 1).await;
        assert_eq!(kind.queue.ready(10).await.unwrap().queues, all[1..], "{}", kind.name);
    }
}

#[tokio::test]
async fn what_is_due_later_says_when() {
    for kind in kinds().await {
        kind.push(Q).await;
        kind.push("default/other").await;
        let claim = kind.claim_one(Q).await;
        let held = kind.claim_one("default/other").await;
        let due = kind.now() + 5 * SECOND;
        kind.queue.source(&name(Q)).retry(&claim.receipt, due, None).await.unwrap();
        let ready = kind.queue.ready(10).await.unwrap();
        assert_eq!(ready.queues, [], "{}", kind.name);
        assert_eq!(ready.next_due.unwrap().as_microsecond(), due.as_microsecond());
        kind.clock.advance(5 * SECOND);
        assert_eq!(kind.queue.ready(10).await.unwrap().queues, [name(Q)], "{}", kind.name);
        kind.clock.advance(HOLD);
        let both = [name(Q), name("default/other")];
        assert_eq!(kind.queue.ready(10).await.unwrap().queues, both, "{}: lapsed", kind.name);
        let source = kind.queue.source(&held.queue);
        source.end(&held.receipt, None, EventEnd::Expired(None)).await.unwrap();
        assert_eq!(kind.queue.ready(10).await.unwrap().queues, both[..1], "{}", kind.name);
    }
}

/// 100,000 events that wait in one queue, and one that ended in each of 10,000 others.
const FLOOD: &str = "
INSERT INTO queue_events (request_id, queue, seq, version, revision, origin, accepted_at,
  expires_at, state, due_at, held_until, ended_at, claims, ran, attempts, begun, payload)
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 110000)
SELECT 'flood-' || i, CASE WHEN i <= 100000 THEN 'default/hello' ELSE 'default/q-' || i END, i, 'v',
  'r', 'o', i, i, CASE WHEN i <= 100000 THEN 'queued' ELSE 'succeeded' END, i, 0,
  CASE WHEN i <= 100000 THEN NULL ELSE i END, 0, 0, '', '', '' FROM n";

async fn flood(kind: &TestQueue) {
    let (url, _) = kind.place.address();
    match kind.name {
        "sqlite file" => {
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            sqlx::raw_sql(FLOOD).execute(&mut connection).await.unwrap();
        }
        "postgres" => {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            sqlx::raw_sql(FLOOD).execute(&mut connection).await.unwrap();
        }
        _ => {
            for queue in (0..500).map(|n| format!("default/q-{n}")) {
                kind.push(&queue).await;
                let claim = kind.claim_one(&queue).await;
                let source = kind.queue.source(&claim.queue);
                source.end(&claim.receipt, None, EventEnd::Expired(None)).await.unwrap();
            }
            join_all((0..5000).map(|_| kind.push(Q))).await;
        }
    }
}

/// What a look costs at best, in so many tries or until it is within the bound: the machine does
/// other things too.
async fn best_look(kind: &TestQueue, tries: usize, bound: Duration) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..tries {
        let start = Instant::now();
        assert_eq!(kind.queue.ready(10).await.unwrap().queues, [name(Q)]);
        best = best.min(start.elapsed());
        if best <= bound {
            break;
        }
    }
    best
}

#[tokio::test]
async fn readiness_does_not_cost_by_empty_queues_or_by_waiting_events() {
    for kind in kinds().await {
        kind.push(Q).await;
        let alone = best_look(&kind, 20, Duration::ZERO).await;
        flood(&kind).await;
        // Going through 100,000 entries is a hundred times a look-up.
        let bound = alone * 8 + Duration::from_millis(2);
        let best = best_look(&kind, 200, bound).await;
        eprintln!("{}: ready takes {best:?}, with one event {alone:?}", kind.name);
        assert!(best <= bound, "{}: {best:?}, with one event {alone:?}", kind.name);
    }
}

#[tokio::test]
async fn stats_count_waiting_running_dead_lettered_and_the_oldest_age() {
    for kind in kinds().await {
        let start = kind.now();
        kind.push(Q).await;
        kind.clock.advance(SECOND);
        for _ in 0..3 {
            kind.push(Q).await;
        }
        kind.push("default/other/tt").await;
        let source = kind.queue.source(&name(Q));
        let mut claims = kind.claim(Q, 3).await.into_iter();
        let first = claims.next().unwrap();
        let third = claims.next_back().unwrap();
        source.end(&third.receipt, None, EventEnd::Failed(failure("boom"))).await.unwrap();
        let stats = kind.queue.stats().await.unwrap();
        let of = |waiting, running, oldest: Option<Duration>, dead_lettered| QueueStats {
            queue: name(Q),
            waiting,
            running,
            oldest: oldest.map(|after| us(start + after)),
            dead_lettered,
        };
        let other = QueueStats {
            queue: name("default/other/tt"),
            waiting: 1,
            running: 0,
            oldest: Some(us(start + SECOND)),
            dead_lettered: 0,
        };
        assert_eq!(stats, [of(1, 2, Some(SECOND), 1), other], "{}", kind.name);
        let later = kind.now() + HOLD;
        source.retry(&first.receipt, later, None).await.unwrap();
        let stats = kind.queue.stats().await.unwrap();
        assert_eq!(stats[0], of(2, 1, Some(Duration::ZERO), 1), "{}: put back", kind.name);
    }
}

/// Cut to what stores keep.
fn us(time: hanshu_core::Timestamp) -> hanshu_core::Timestamp {
    hanshu_core::Timestamp::from_microsecond(time.as_microsecond()).unwrap()
}

#[tokio::test]
async fn a_push_wakes_whoever_waits_at_once() {
    for kind in kinds().await {
        let wait = async {
            let start = Instant::now();
            loop {
                kind.queue.changed(Duration::from_secs(60)).await;
                if !kind.queue.ready(1).await.unwrap().queues.is_empty() {
                    return start.elapsed();
                }
            }
        };
        let push = async {
            sleep(Duration::from_millis(20)).await;
            kind.push(Q).await;
        };
        let (waited, ()) = timeout(10 * SECOND, async { tokio::join!(wait, push) }).await.unwrap();
        assert!(waited < SECOND, "{}: {waited:?}", kind.name);
        kind.push(Q).await;
        let before = kind.queue.changed(Duration::from_secs(60));
        timeout(SECOND, before).await.expect("a push before the wait is not forgotten");
        let start = Instant::now();
        kind.queue.changed(Duration::from_millis(30)).await;
        assert!(start.elapsed() < SECOND, "{}: nothing happened, yet it ends", kind.name);
    }
}

#[tokio::test]
async fn a_push_of_another_process_is_noticed_soon() {
    for kind in shared_kinds().await {
        let other = kind.place.open(Arc::clone(&kind.clock)).await;
        kind.push("default/other").await;
        kind.claim_one("default/other").await;
        kind.queue.changed(SECOND).await;
        let wait = async {
            while kind.queue.ready(1).await.unwrap().queues.is_empty() {
                kind.queue.changed(Duration::from_secs(60)).await;
            }
        };
        let push = async {
            sleep(Duration::from_millis(50)).await;
            other.push(kind.event(Q)).await.unwrap();
        };
        timeout(2 * SECOND, async { tokio::join!(wait, push) }).await.expect(kind.name);
    }
}

/// Waits until it is so; a state cannot be seen before what leads to it was carried out.
async fn eventually(what: impl AsyncFn() -> bool) {
    let waiting = async {
        while !what().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(10 * SECOND, waiting).await.expect("it never came");
}

#[tokio::test]
async fn a_push_whose_caller_goes_away_is_kept() {
    for kind in kinds().await.into_iter().filter(|kind| kind.name != "redis") {
        let events: Vec<_> = (0..40).map(|_| kind.event(Q)).collect();
        for event in &events {
            assert!(poll_immediate(kind.queue.push(event.clone())).await.is_none());
        }
        for event in &events {
            let is_there = async || kind.queue.state(event.request_id).await.unwrap().is_some();
            eventually(is_there).await;
        }
    }
}

#[tokio::test]
async fn events_claimed_for_a_caller_that_went_away_go_back_at_once() {
    for kind in kinds().await.into_iter().filter(|kind| kind.name != "redis") {
        let id = kind.push(Q).await;
        let source = kind.queue.source(&name(Q));
        assert!(poll_immediate(source.claim(5, HOLD, &node())).await.is_none());
        let claims = tokio::sync::Mutex::new(Vec::new());
        let is_back = async || {
            claims.lock().await.extend(kind.claim(Q, 5).await);
            !claims.lock().await.is_empty()
        };
        eventually(is_back).await;
        let claim = claims.into_inner().pop().unwrap();
        assert_eq!((claim.request_id, claim.attempt), (id, 1), "{}: it cost none", kind.name);
    }
}

#[tokio::test]
async fn one_failing_command_does_not_take_its_group_along() {
    let kind = sqlite_file().await;
    let (url, _) = kind.place.address();
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(
        "CREATE TRIGGER boom BEFORE INSERT ON queue_events WHEN NEW.origin LIKE '%boom%'
         BEGIN SELECT RAISE(ABORT, 'boom'); END",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let push = |n: usize| {
        let boom = || Origin::trigger_of(HttpTrigger::KIND, "boom".parse().unwrap());
        let origin = if n % 10 == 3 { boom() } else { Origin::Direct };
        let event = Event { origin, ..kind.event(Q).event };
        kind.queue.push(NewEvent { event, ..kind.event(Q) })
    };
    let pushed = join_all((0..40).map(push)).await;
    for (n, pushed) in pushed.into_iter().enumerate() {
        match pushed {
            Ok(PushOutcome::Accepted) => assert_ne!(n % 10, 3),
            Err(QueueError::Internal(_)) => assert_eq!(n % 10, 3),
            other => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!(kind.claim(Q, 100).await.len(), 36);
}

#[tokio::test]
async fn a_closed_queue_carries_out_what_it_was_given_and_refuses_the_rest() {
    let test = crate::databases::memory().await;
    let tasks = tokio_util::task::TaskTracker::new();
    let clock = crate::queue_kinds::new_clock();
    let queue = hanshu_store::SqlQueue::start(test.db.clone(), clock.clone(), &tasks);
    let given: Vec<RequestId> = {
        let now = hanshu_core::Clock::now(&*clock);
        let events: Vec<_> = (0..20).map(|_| crate::queue_kinds::event(Q, now)).collect();
        let mut pushes: Vec<_> = events.iter().map(|event| queue.push(event.clone())).collect();
        for push in &mut pushes {
            assert!(poll_immediate(push).await.is_none());
        }
        events.into_iter().map(|event| event.request_id).collect()
    };
    queue.close();
    tasks.close();
    timeout(10 * SECOND, tasks.wait()).await.expect("the writer ends");
    for id in given {
        let state = queue.state(id).await.unwrap().unwrap();
        assert_eq!(state.state, InvocationState::Queued);
    }
    let late = queue.push(crate::queue_kinds::event(Q, hanshu_core::Clock::now(&*clock))).await;
    assert!(matches!(late, Err(QueueError::Unavailable(_))), "{late:?}");
}

#[tokio::test]
async fn payloads_of_the_largest_size_pass() {
    for kind in kinds().await {
        let text = format!("\"{}\"", "x".repeat(hanshu_core::ASYNC_PAYLOAD_BYTES_MAX - 2));
        let event = Event { origin: Origin::Direct, payload: Bytes::from(text) };
        let pushed = NewEvent { event: event.clone(), ..kind.event(Q) };
        kind.queue.push(pushed).await.unwrap();
        assert_eq!(claim_payload(&kind).await, event.payload, "{}", kind.name);
    }
}

async fn claim_payload(kind: &TestQueue) -> Bytes {
    kind.claim_one(Q).await.payload
}
