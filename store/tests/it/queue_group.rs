//! Commands that come at once and share a transaction: each ends as if it had come alone.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use hanshu_core::ports::{EventEnd, NewEvent, PushOutcome, QueueError, TimerTick};
use hanshu_core::{Event, InvocationState, StatusCode, TriggerId};

use crate::queue_kinds::{TestQueue, failure, kinds, name};

const Q: &str = "default/hello";

async fn push(kind: &TestQueue, events: Vec<NewEvent>) -> Vec<Result<PushOutcome, QueueError>> {
    join_all(events.into_iter().map(|event| kind.queue.push(event))).await
}

fn with_payload(kind: &TestQueue, queue: &str, payload: String) -> NewEvent {
    let event = kind.event(queue);
    NewEvent { event: Event { payload: Bytes::from(payload), ..event.event.clone() }, ..event }
}

#[tokio::test]
async fn events_pushed_at_once_keep_their_own_payloads_and_queues() {
    for kind in kinds().await {
        let queues = [Q, "default/hello-2", "default/hello/tt"];
        let events: Vec<_> = (0..60)
            .map(|n| {
                with_payload(&kind, queues[n % 3], format!("[{n},\"{}\u{e9}\"]", "x".repeat(n * 7)))
            })
            .collect();
        let pushed = push(&kind, events.clone()).await;
        assert!(pushed.iter().all(|one| matches!(one, Ok(PushOutcome::Accepted))), "{}", kind.name);
        for queue in queues {
            let claims = kind.claim(queue, 100).await;
            assert_eq!(claims.len(), 20, "{}", kind.name);
            for claim in claims {
                let sent = events.iter().find(|event| event.request_id == claim.request_id);
                let sent = sent.unwrap();
                assert_eq!((&claim.payload, &claim.queue), (&sent.event.payload, &sent.queue));
            }
        }
    }
}

#[tokio::test]
async fn one_that_is_out_of_the_ordinary_does_not_spoil_the_others() {
    for kind in kinds().await {
        let repeated = kind.event(Q);
        let narrow = |_| NewEvent { max_waiting: 2, ..kind.event("default/narrow") };
        let mut events = vec![repeated.clone(), kind.event(Q), repeated];
        events.extend((0..5).map(narrow));
        let pushed = push(&kind, events).await;
        let accepted = pushed.iter().filter(|one| matches!(one, Ok(PushOutcome::Accepted))).count();
        let full = pushed.iter().filter(|one| matches!(one, Err(QueueError::Full { .. }))).count();
        assert_eq!((accepted, full), (5, 3), "{}: {pushed:?}", kind.name);
        let mut stats = kind.queue.stats().await.unwrap();
        stats.sort_by(|one, other| one.queue.cmp(&other.queue));
        let waiting: Vec<_> = stats.iter().map(|one| one.waiting).collect();
        assert_eq!(waiting, [2, 2], "{}", kind.name);
        let more = push(&kind, (0..2).map(narrow).collect()).await;
        assert!(more.iter().all(Result::is_err), "{}: the count is right", kind.name);
    }
}

#[tokio::test]
async fn ticks_pushed_at_once_are_queued_once_each() {
    for kind in kinds().await {
        let start = kind.now();
        let tick = |timer: u32, second: u64| NewEvent {
            tick: Some(TimerTick {
                trigger: TriggerId {
                    function: name(Q).function,
                    name: format!("tt-{timer}").parse().unwrap(),
                },
                at: start + Duration::from_secs(second),
            }),
            max_waiting: 3,
            ..kind.event(&format!("{Q}/tt-{timer}"))
        };
        let pushed = push(&kind, (0..20).map(|timer| tick(timer, 1)).collect()).await;
        assert!(pushed.iter().all(|one| matches!(one, Ok(PushOutcome::Accepted))), "{}", kind.name);
        // Half are known, half are new; one timer has two at once.
        let mut both: Vec<_> = (0..20).map(|timer| tick(timer, 1)).collect();
        both.extend((0..20).map(|timer| tick(timer, 2)));
        both.push(tick(0, 3));
        let pushed = push(&kind, both).await;
        let count =
            |wanted| pushed.iter().filter(|one| matches!(one, Ok(p) if *p == wanted)).count();
        assert_eq!(
            (count(PushOutcome::Accepted), count(PushOutcome::Duplicate)),
            (21, 20),
            "{}",
            kind.name
        );
        let full = kind.queue.push(tick(0, 4)).await;
        assert!(
            matches!(full, Err(QueueError::Full { waiting: 3, .. })),
            "{}: {full:?}",
            kind.name
        );
        assert_eq!(
            kind.queue.push(tick(1, 4)).await.unwrap(),
            PushOutcome::Accepted,
            "{}",
            kind.name
        );
    }
}

#[tokio::test]
async fn events_ended_at_once_end_each_in_its_own_way() {
    for kind in kinds().await {
        for stale in [false, true] {
            push(&kind, (0..20).map(|_| kind.event(Q)).collect()).await;
            let claims = kind.claim(Q, 100).await;
            let source = kind.queue.source(&name(Q));
            let ended = |n: usize| match n % 3 {
                0 => EventEnd::Succeeded(Bytes::from(format!("{{\"n\":{n},\"nul\":\"\\u0000\"}}"))),
                1 => EventEnd::Failed(failure("it \"broke\"\u{0}")),
                _ => EventEnd::Expired(None),
            };
            let receipts = claims.iter().enumerate().map(|(n, claim)| (n, &claim.receipt));
            let twice = stale.then(|| (0, &claims[0].receipt));
            let ends = receipts.chain(twice).map(|(n, receipt)| {
                source.end(receipt, kind.attempt(&claims[n], StatusCode::Success), ended(n))
            });
            let results = join_all(ends).await;
            let lost = results.iter().filter(|one| matches!(one, Err(QueueError::Stale(_))));
            assert_eq!(lost.count(), usize::from(stale), "{}: {results:?}", kind.name);
            for (n, claim) in claims.iter().enumerate() {
                let state = kind.queue.state(claim.request_id).await.unwrap().unwrap();
                let wanted = match n % 3 {
                    0 => InvocationState::Succeeded,
                    1 => InvocationState::Failed,
                    _ => InvocationState::Expired,
                };
                assert_eq!(state.state, wanted, "{}", kind.name);
                assert_eq!(state.attempts.len(), 1, "{}", kind.name);
                if let EventEnd::Succeeded(json) = ended(n) {
                    assert_eq!(state.result.map(Bytes::from), Some(json), "{}", kind.name);
                }
            }
        }
    }
}
