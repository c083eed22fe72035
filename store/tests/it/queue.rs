//! The contract of `EventQueue` and `EventSource`: events and their states.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use hanshu_core::ports::{EventEnd, NewEvent, PushOutcome, QueueError, TimerTick};
use hanshu_core::{
    Event, InvocationState, Origin, Qualifier, RequestId, StatusCode, TimerTrigger, Timestamp,
    TriggerConfig as _, TriggerId,
};

use crate::queue_kinds::{
    DAY, HOLD, TestQueue, digest, failure, ids, kinds, lasting_kinds, name, node,
};

const SECOND: Duration = Duration::from_secs(1);
const Q: &str = "default/hello";

fn ok() -> EventEnd {
    EventEnd::Succeeded(Bytes::from_static(b"{\"ok\":true}"))
}

/// To the microsecond: what stores keep.
fn us(time: Timestamp) -> i64 {
    time.as_microsecond()
}

#[tokio::test]
async fn an_event_is_claimed_as_it_was_pushed() {
    for kind in kinds().await {
        let trigger: hanshu_core::TriggerName = "every-day".parse().unwrap();
        let event = NewEvent {
            queue: name("ns-1/hello/every-day"),
            version: Qualifier::Version(7),
            revision: digest(9),
            event: Event {
                origin: Origin::trigger_of(TimerTrigger::KIND, trigger.clone()),
                ..kind.event(Q).event
            },
            ..kind.event(Q)
        };
        assert_eq!(kind.queue.push(event.clone()).await.unwrap(), PushOutcome::Accepted);
        let claim = kind.claim_one("ns-1/hello/every-day").await;
        assert_eq!(claim.request_id, event.request_id);
        assert_eq!(claim.queue, event.queue);
        assert_eq!(claim.version, event.version);
        assert_eq!(claim.revision, event.revision);
        assert_eq!(claim.payload, event.event.payload);
        assert_eq!(claim.origin, event.event.origin);
        assert_eq!((claim.attempt, claim.tries), (1, 1));
        assert_eq!(us(claim.accepted_at), us(event.accepted_at));
        assert_eq!(us(claim.expires_at), us(event.expires_at));
        let state = kind.queue.state(event.request_id).await.unwrap().unwrap();
        assert_eq!(state.trigger, Some(trigger));
        assert_eq!(state.version, Qualifier::Version(7));
        assert_eq!(state.function, event.queue.function);
    }
}

#[tokio::test]
async fn an_event_that_was_never_pushed_has_no_state() {
    for kind in kinds().await {
        assert_eq!(kind.queue.state(RequestId::new()).await.unwrap(), None, "{}", kind.name);
        assert!(kind.claim(Q, 5).await.is_empty());
        assert!(kind.queue.durability_warnings().await.is_empty(), "{}", kind.name);
    }
}

#[tokio::test]
async fn a_push_that_is_repeated_keeps_one_event() {
    for kind in kinds().await {
        let event = kind.event(Q);
        for _ in 0..2 {
            assert_eq!(kind.queue.push(event.clone()).await.unwrap(), PushOutcome::Accepted);
        }
        assert_eq!(kind.queue.stats().await.unwrap()[0].waiting, 1, "{}", kind.name);
        let claim = kind.claim_one(Q).await;
        kind.queue.source(&name(Q)).end(&claim.receipt, None, ok()).await.unwrap();
        assert_eq!(kind.queue.push(event).await.unwrap(), PushOutcome::Accepted);
        assert!(kind.claim(Q, 5).await.is_empty(), "{}: it ran once more", kind.name);
    }
}

#[tokio::test]
async fn events_come_by_due_time_and_then_by_acceptance() {
    for kind in kinds().await {
        let first = kind.push(Q).await;
        let claim = kind.claim_one(Q).await;
        let mut pushed = Vec::new();
        for _ in 0..4 {
            pushed.push(kind.push(Q).await);
        }
        let due = kind.now() + SECOND;
        kind.queue.source(&name(Q)).retry(&claim.receipt, due, None).await.unwrap();
        kind.clock.advance(SECOND);
        pushed.push(first);
        kind.clock.advance(SECOND);
        for _ in 0..2 {
            pushed.push(kind.push(Q).await);
        }
        let mut claimed = ids(&kind.claim(Q, 3).await);
        claimed.extend(ids(&kind.claim(Q, 30).await));
        assert_eq!(claimed, pushed, "{}", kind.name);
    }
}

#[tokio::test]
async fn an_event_is_not_claimed_before_it_is_due() {
    for kind in kinds().await {
        kind.push(Q).await;
        let claim = kind.claim_one(Q).await;
        let source = kind.queue.source(&name(Q));
        source.retry(&claim.receipt, kind.now() + HOLD, None).await.unwrap();
        kind.clock.advance(HOLD - Duration::from_millis(1));
        assert!(kind.claim(Q, 5).await.is_empty(), "{}", kind.name);
        kind.clock.advance(Duration::from_millis(1));
        kind.claim_one(Q).await;
    }
}

#[tokio::test]
async fn an_attempt_is_seen_to_begin_and_to_end() {
    for kind in kinds().await {
        let id = kind.push(Q).await;
        let queued = kind.queue.state(id).await.unwrap().unwrap();
        assert_eq!((queued.state, queued.attempts.len()), (InvocationState::Queued, 0));
        assert_eq!((us(queued.accepted_at), queued.ended_at), (us(kind.now()), None));

        let claim = kind.claim_one(Q).await;
        let running = kind.queue.state(id).await.unwrap().unwrap();
        assert_eq!(running.state, InvocationState::Running);
        let [begun] = &running.attempts[..] else { panic!("{}: {running:?}", kind.name) };
        assert_eq!((begun.number, begun.ended_at, begun.status), (1, None, None));
        assert_eq!((begun.started_at, &begun.node), (kind.now(), &Some(node())));

        let attempt = kind.attempt(&claim, StatusCode::Success);
        kind.clock.advance(SECOND);
        kind.queue.source(&name(Q)).end(&claim.receipt, attempt.clone(), ok()).await.unwrap();
        let ended = kind.queue.state(id).await.unwrap().unwrap();
        assert_eq!(ended.state, InvocationState::Succeeded);
        assert_eq!(ended.attempts, [attempt.unwrap()]);
        assert_eq!(ended.result.as_deref(), Some("{\"ok\":true}"));
        assert_eq!((ended.error, ended.ended_at.map(us)), (None, Some(us(kind.now()))));
        kind.clock.advance(2 * HOLD);
        assert!(kind.claim(Q, 5).await.is_empty(), "{}: ended events stay ended", kind.name);
    }
}

#[tokio::test]
async fn failed_attempts_are_kept_until_the_last() {
    for kind in kinds().await {
        let id = kind.push(Q).await;
        let source = kind.queue.source(&name(Q));
        let mut attempts = Vec::new();
        for number in 1..=2 {
            let claim = kind.claim_one(Q).await;
            assert_eq!((claim.attempt, claim.tries), (number, number));
            let attempt = kind.attempt(&claim, StatusCode::UserException);
            attempts.extend(attempt.clone());
            let due = kind.now() + SECOND;
            source.retry(&claim.receipt, due, attempt).await.unwrap();
            let state = kind.queue.state(id).await.unwrap().unwrap();
            assert_eq!(state.state, InvocationState::Retrying, "{}", kind.name);
            assert_eq!(state.attempts, attempts);
            kind.clock.advance(SECOND);
        }
        let claim = kind.claim_one(Q).await;
        let attempt = kind.attempt(&claim, StatusCode::TimeLimitReached);
        attempts.extend(attempt.clone());
        source.end(&claim.receipt, attempt, EventEnd::Failed(failure("boom"))).await.unwrap();
        let state = kind.queue.state(id).await.unwrap().unwrap();
        assert_eq!(state.state, InvocationState::Failed);
        assert_eq!((state.attempts, state.error), (attempts, Some(failure("boom"))));
        assert_eq!(state.result, None);
    }
}

#[tokio::test]
async fn a_refusal_costs_no_attempt_and_leaves_no_trace() {
    for kind in kinds().await {
        let id = kind.push(Q).await;
        let source = kind.queue.source(&name(Q));
        for tries in 1..=3 {
            let claim = kind.claim_one(Q).await;
            assert_eq!((claim.attempt, claim.tries), (1, tries), "{}", kind.name);
            source.retry(&claim.receipt, kind.now(), None).await.unwrap();
            let state = kind.queue.state(id).await.unwrap().unwrap();
            assert_eq!((state.state, state.attempts.len()), (InvocationState::Queued, 0));
        }
        let claim = kind.claim_one(Q).await;
        let attempt = kind.attempt(&claim, StatusCode::UserException);
        source.retry(&claim.receipt, kind.now(), attempt).await.unwrap();
        let claim = kind.claim_one(Q).await;
        assert_eq!((claim.attempt, claim.tries), (2, 5), "{}", kind.name);
        source.retry(&claim.receipt, kind.now(), None).await.unwrap();
        let state = kind.queue.state(id).await.unwrap().unwrap();
        assert_eq!((state.state, state.attempts.len()), (InvocationState::Retrying, 1));
    }
}

#[tokio::test]
async fn an_event_can_end_without_an_attempt() {
    for kind in kinds().await {
        let source = kind.queue.source(&name(Q));
        for last in [None, Some(failure("boom"))] {
            let id = kind.push(Q).await;
            let claim = kind.claim_one(Q).await;
            source.end(&claim.receipt, None, EventEnd::Expired(last.clone())).await.unwrap();
            let state = kind.queue.state(id).await.unwrap().unwrap();
            assert_eq!((state.state, state.attempts.len()), (InvocationState::Expired, 0));
            assert_eq!((state.error, state.result), (last, None), "{}", kind.name);
        }
    }
}

#[tokio::test]
async fn an_event_whose_hold_ran_out_is_claimed_again_and_the_first_holder_is_stale() {
    for kind in kinds().await {
        let id = kind.push(Q).await;
        let late = kind.push(Q).await;
        let source = kind.queue.source(&name(Q));
        let first = kind.claim(Q, 1).await.pop().unwrap();
        kind.clock.advance(HOLD - SECOND);
        assert_eq!(ids(&kind.claim(Q, 1).await), [late]);
        assert!(kind.claim(Q, 1).await.is_empty(), "{}: it is held", kind.name);
        kind.clock.advance(SECOND);
        let second = kind.claim_one(Q).await;
        assert_eq!((second.request_id, second.attempt, second.tries), (id, 2, 2));
        assert!(first.tries < second.tries);

        let attempt = kind.attempt(&first, StatusCode::Success);
        let old = first.receipt;
        let is_stale =
            |result| matches!(result, Err(QueueError::Stale(key)) if key == id.to_string());
        assert!(is_stale(source.extend(&old, HOLD).await.map(drop)), "{}", kind.name);
        assert!(is_stale(source.retry(&old, kind.now(), attempt.clone()).await.map(drop)));
        assert!(is_stale(source.end(&old, attempt.clone(), ok()).await));
        let state = kind.queue.state(id).await.unwrap().unwrap();
        assert_eq!(state.state, InvocationState::Running);
        let [dead, begun] = &state.attempts[..] else { panic!("{}: {state:?}", kind.name) };
        assert_eq!((dead.number, dead.ended_at), (1, None), "its node may have died");
        assert_eq!((begun.number, begun.ended_at), (2, None));

        source.end(&second.receipt, attempt.clone(), ok()).await.unwrap();
        assert!(is_stale(source.end(&second.receipt, attempt, ok()).await), "it has ended");
    }
}

#[tokio::test]
async fn a_late_settle_counts_as_long_as_nobody_claimed_again() {
    for kind in kinds().await {
        let id = kind.push(Q).await;
        let claim = kind.claim_one(Q).await;
        kind.clock.advance(2 * HOLD);
        kind.queue.source(&name(Q)).end(&claim.receipt, None, ok()).await.unwrap();
        let state = kind.queue.state(id).await.unwrap().unwrap();
        assert_eq!(state.state, InvocationState::Succeeded, "{}", kind.name);
        assert!(kind.claim(Q, 5).await.is_empty());
    }
}

#[tokio::test]
async fn a_hold_that_is_renewed_does_not_run_out() {
    for kind in kinds().await {
        kind.push(Q).await;
        let claim = kind.claim_one(Q).await;
        let source = kind.queue.source(&name(Q));
        for _ in 0..5 {
            kind.clock.advance(HOLD / 2);
            assert!(kind.claim(Q, 5).await.is_empty(), "{}", kind.name);
            source.extend(&claim.receipt, HOLD).await.unwrap();
        }
        let held = kind.queue.ready(5).await.unwrap();
        assert_eq!(held.next_due.map(us), Some(us(kind.now() + HOLD)), "{}", kind.name);
        kind.clock.advance(HOLD);
        assert_eq!(kind.claim_one(Q).await.tries, 2);
    }
}

#[tokio::test]
async fn each_tick_of_a_timer_is_queued_once() {
    for kind in kinds().await {
        let other = kind.place.open(std::sync::Arc::clone(&kind.clock)).await;
        let start = kind.now();
        let tick = |trigger: &str, second: u32| NewEvent {
            tick: Some(TimerTick {
                trigger: TriggerId { function: name(Q).function, name: trigger.parse().unwrap() },
                at: start + SECOND * second,
            }),
            ..kind.event(&format!("{Q}/{trigger}"))
        };
        for second in [1, 2, 4] {
            let (one, two) =
                tokio::join!(kind.queue.push(tick("aa", second)), other.push(tick("aa", second)));
            let both = [one.unwrap(), two.unwrap()];
            assert!(both.contains(&PushOutcome::Accepted), "{}: {both:?}", kind.name);
            assert!(both.contains(&PushOutcome::Duplicate), "{}: {both:?}", kind.name);
        }
        let earlier = kind.queue.push(tick("aa", 3)).await.unwrap();
        assert_eq!(earlier, PushOutcome::Duplicate, "{}: behind the mark", kind.name);
        assert_eq!(kind.queue.push(tick("bb", 1)).await.unwrap(), PushOutcome::Accepted);
        assert_eq!(kind.claim(&format!("{Q}/aa"), 10).await.len(), 3, "{}", kind.name);
        assert_eq!(kind.claim(&format!("{Q}/bb"), 10).await.len(), 1, "{}", kind.name);
    }
}

#[tokio::test]
async fn a_tick_that_found_the_queue_full_is_not_lost_for_good() {
    for kind in kinds().await {
        let trigger = TriggerId { function: name(Q).function, name: "tt".parse().unwrap() };
        let queue = format!("{Q}/tt");
        let tick = |second: u32| NewEvent {
            tick: Some(TimerTick { trigger: trigger.clone(), at: kind.now() + SECOND * second }),
            max_waiting: 1,
            ..kind.event(&queue)
        };
        assert_eq!(kind.queue.push(tick(1)).await.unwrap(), PushOutcome::Accepted);
        let full = kind.queue.push(tick(2)).await;
        assert!(matches!(full, Err(QueueError::Full { .. })), "{}: {full:?}", kind.name);
        assert_eq!(
            kind.queue.push(tick(1)).await.unwrap(),
            PushOutcome::Duplicate,
            "{}",
            kind.name
        );
        kind.claim_one(&queue).await;
        assert_eq!(kind.queue.push(tick(2)).await.unwrap(), PushOutcome::Accepted, "{}", kind.name);
    }
}

#[tokio::test]
async fn a_queue_takes_no_more_waiting_events_than_it_may() {
    for kind in kinds().await {
        let push =
            || async { kind.queue.push(NewEvent { max_waiting: 10, ..kind.event(Q) }).await };
        let pushed = join_all((0..25).map(|_| push())).await;
        assert_eq!(pushed.iter().filter(|one| one.is_ok()).count(), 10, "{}", kind.name);
        for refused in pushed.into_iter().filter_map(Result::err) {
            let QueueError::Full { queue, waiting } = refused else { panic!("{refused}") };
            assert_eq!((queue, waiting), (name(Q), 10), "{}", kind.name);
        }
        let mut claims = kind.claim(Q, 2).await;
        push().await.unwrap();
        push().await.unwrap();
        assert!(push().await.is_err(), "{}: two were claimed, two were let in", kind.name);
        let back = claims.pop().unwrap();
        kind.queue.source(&name(Q)).retry(&back.receipt, kind.now(), None).await.unwrap();
        assert_eq!(kind.queue.stats().await.unwrap()[0].waiting, 11, "{}", kind.name);
        assert!(push().await.is_err());
        kind.queue.push(kind.event("default/other")).await.unwrap();
        let none = kind.queue.push(NewEvent { max_waiting: 0, ..kind.event("default/none") }).await;
        assert!(matches!(none, Err(QueueError::Full { waiting: 0, .. })), "{}", kind.name);
    }
}

#[tokio::test]
async fn ended_events_are_kept_until_they_are_collected() {
    for kind in kinds().await {
        let source = kind.queue.source(&name(Q));
        let mut ended = Vec::new();
        let ways = [ok(), EventEnd::Failed(failure("boom")), EventEnd::Expired(None)];
        for how in ways {
            ended.push(kind.push(Q).await);
            let claim = kind.claim_one(Q).await;
            source.end(&claim.receipt, None, how).await.unwrap();
            kind.clock.advance(SECOND);
        }
        let waiting = kind.push(Q).await;
        let dead_lettered = |stats: Vec<hanshu_core::ports::QueueStats>| stats[0].dead_lettered;
        assert_eq!(dead_lettered(kind.queue.stats().await.unwrap()), 2, "{}", kind.name);
        kind.clock.advance(DAY);
        let last = kind.queue.state(ended[2]).await.unwrap().unwrap().ended_at.unwrap();
        assert_eq!(kind.queue.collect(last).await.unwrap(), 2, "{}", kind.name);
        assert_eq!(dead_lettered(kind.queue.stats().await.unwrap()), 1, "{}", kind.name);
        assert_eq!(kind.queue.state(ended[0]).await.unwrap(), None);
        assert_eq!(kind.queue.state(ended[1]).await.unwrap(), None);
        assert!(kind.queue.state(ended[2]).await.unwrap().is_some());
        assert_eq!(kind.queue.collect(kind.now()).await.unwrap(), 1, "{}", kind.name);
        assert_eq!(dead_lettered(kind.queue.stats().await.unwrap()), 0, "{}", kind.name);
        assert_eq!(kind.claim_one(Q).await.request_id, waiting, "what waits is never collected");
    }
}

#[tokio::test]
async fn more_is_collected_than_one_step_takes() {
    for kind in lasting_kinds().await {
        let source = kind.queue.source(&name(Q));
        join_all((0..600).map(|_| kind.push(Q))).await;
        for _ in 0..6 {
            let claims = kind.claim(Q, 100).await;
            let ends = claims.iter().map(|claim| source.end(&claim.receipt, None, ok()));
            join_all(ends).await.into_iter().for_each(Result::unwrap);
        }
        kind.clock.advance(SECOND);
        assert_eq!(kind.queue.collect(kind.now()).await.unwrap(), 600, "{}", kind.name);
        assert_eq!(kind.queue.stats().await.unwrap(), [], "{}", kind.name);
    }
}

#[tokio::test]
async fn revisions_are_pinned_by_events_that_have_not_ended() {
    for kind in kinds().await {
        for (queue, byte) in [(Q, 1), (Q, 1), ("default/other", 2)] {
            let event = NewEvent { revision: digest(byte), ..kind.event(queue) };
            kind.queue.push(event).await.unwrap();
        }
        assert_eq!(pins(&kind).await, [digest(1), digest(2)]);
        let source = kind.queue.source(&name(Q));
        let claims = kind.claim(Q, 5).await;
        assert_eq!(pins(&kind).await, [digest(1), digest(2)], "{}: running ones too", kind.name);
        for (left, claim) in [1, 0].into_iter().zip(claims) {
            assert_eq!(pins(&kind).await, [digest(1), digest(2)], "{}: {left} left", kind.name);
            source.end(&claim.receipt, None, ok()).await.unwrap();
        }
        assert_eq!(pins(&kind).await, [digest(2)], "{}", kind.name);
    }
}

async fn pins(kind: &TestQueue) -> Vec<hanshu_core::Digest> {
    let mut pins = kind.queue.pinned().await.unwrap();
    pins.sort();
    pins
}
