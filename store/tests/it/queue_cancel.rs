//! Cancelling events that are claimed, on every adapter: whoever wins, each ends once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use hanshu_core::ports::{CancelOutcome, EventEnd, HoldStatus, QueueError, RetryOutcome};
use hanshu_core::{InvocationState, RequestId, StatusCode};

use crate::ended_events::{fill, stream_of};
use crate::queue_kinds::{HOLD, TestQueue, failure, kinds, lasting_kinds, name, node};

const Q: &str = "default/hello";

async fn state(kind: &TestQueue, id: RequestId) -> InvocationState {
    kind.queue.state(id).await.unwrap().unwrap().state
}

async fn assert_nothing_left(kind: &TestQueue) {
    assert_eq!(kind.claim(Q, 10).await.len(), 0, "{}", kind.name);
    assert_eq!(kind.queue.pinned().await.unwrap(), [], "{}", kind.name);
    for stats in kind.queue.stats().await.unwrap() {
        let left = (stats.waiting, stats.running, stats.dead_lettered);
        assert_eq!(left, (0, 0, 0), "{}", kind.name);
    }
}

#[tokio::test]
async fn the_holder_of_a_cancelled_event_is_told_and_ends_it() {
    for kind in kinds().await {
        let (stream, history) = stream_of(&kind).await;
        let id = kind.push(Q).await;
        let claim = kind.claim_one(Q).await;
        assert!(!claim.cancel_requested, "{}", kind.name);
        let source = kind.queue.source(&name(Q));
        let held = source.extend(&claim.receipt, HOLD).await.unwrap();
        assert_eq!(held, HoldStatus::Extended, "{}", kind.name);
        for _ in 0..2 {
            let outcome = kind.queue.cancel(id).await.unwrap();
            assert_eq!(outcome, CancelOutcome::Requested, "{}", kind.name);
            let held = source.extend(&claim.receipt, HOLD).await.unwrap();
            assert_eq!(held, HoldStatus::CancelRequested, "{}", kind.name);
        }
        assert_eq!(state(&kind, id).await, InvocationState::Running, "{}", kind.name);
        let attempt = kind.attempt(&claim, StatusCode::RequestCanceled);
        source.end(&claim.receipt, attempt, EventEnd::Cancelled).await.unwrap();
        let ended = kind.queue.cancel(id).await.unwrap();
        let cancelled = InvocationState::Cancelled;
        assert_eq!(ended, CancelOutcome::Ended(cancelled), "{}", kind.name);
        let kept = kind.queue.state(id).await.unwrap().unwrap();
        assert_eq!((kept.state, kept.attempts.len()), (cancelled, 1), "{}", kind.name);
        assert_eq!(kept.attempts[0].status, Some(StatusCode::RequestCanceled), "{}", kind.name);
        assert_nothing_left(&kind).await;
        assert_eq!(fill(&stream, &history).await, 1, "{}", kind.name);
    }
}

#[tokio::test]
async fn a_cancelled_event_that_is_put_back_ends_instead() {
    for kind in kinds().await {
        let (stream, history) = stream_of(&kind).await;
        for ran in [true, false] {
            let id = kind.push(Q).await;
            let claim = kind.claim_one(Q).await;
            kind.queue.cancel(id).await.unwrap();
            let source = kind.queue.source(&name(Q));
            let attempt = kind.attempt(&claim, StatusCode::UserException).filter(|_| ran);
            let put = source.retry(&claim.receipt, kind.now(), attempt).await.unwrap();
            assert_eq!(put, RetryOutcome::Cancelled, "{}", kind.name);
            let kept = kind.queue.state(id).await.unwrap().unwrap();
            let expected = (InvocationState::Cancelled, usize::from(ran));
            assert_eq!((kept.state, kept.attempts.len()), expected, "{}", kind.name);
            let late = source.retry(&claim.receipt, kind.now(), None).await;
            assert!(matches!(late, Err(QueueError::Stale(_))), "{}: {late:?}", kind.name);
        }
        assert_nothing_left(&kind).await;
        assert_eq!(fill(&stream, &history).await, 2, "{}", kind.name);
    }
}

#[tokio::test]
async fn an_attempt_that_ends_its_event_is_faster_than_a_cancellation() {
    for kind in kinds().await {
        let (stream, history) = stream_of(&kind).await;
        let ends = [
            (EventEnd::Succeeded(Bytes::from_static(b"1")), InvocationState::Succeeded),
            (EventEnd::Failed(failure("boom")), InvocationState::Failed),
            (EventEnd::Expired(None), InvocationState::Expired),
        ];
        for (end, expected) in ends {
            let id = kind.push(Q).await;
            let claim = kind.claim_one(Q).await;
            kind.queue.cancel(id).await.unwrap();
            kind.queue.source(&name(Q)).end(&claim.receipt, None, end).await.unwrap();
            assert_eq!(state(&kind, id).await, expected, "{}", kind.name);
            let late = kind.queue.cancel(id).await.unwrap();
            assert_eq!(late, CancelOutcome::Ended(expected), "{}", kind.name);
        }
        assert_eq!(fill(&stream, &history).await, 3, "{}", kind.name);
    }
}

#[tokio::test]
async fn who_claims_a_cancelled_event_after_its_holder_was_lost_is_told() {
    for kind in lasting_kinds().await {
        let (stream, history) = stream_of(&kind).await;
        let id = kind.push(Q).await;
        let lost = kind.claim_one(Q).await;
        assert_eq!(kind.queue.cancel(id).await.unwrap(), CancelOutcome::Requested);
        kind.clock.advance(HOLD);
        // Another process, which knows only what is stored.
        let other = kind.place.open(Arc::clone(&kind.clock)).await;
        let source = other.source(&name(Q));
        let claims = source.claim(10, HOLD, &node()).await.unwrap();
        let [claim] = &claims[..] else { panic!("{}: {claims:?}", kind.name) };
        assert!(claim.cancel_requested, "{}", kind.name);
        source.end(&claim.receipt, None, EventEnd::Cancelled).await.unwrap();
        let late = kind.queue.source(&name(Q)).end(&lost.receipt, None, EventEnd::Cancelled).await;
        assert!(matches!(late, Err(QueueError::Stale(_))), "{}: {late:?}", kind.name);
        assert_eq!(state(&kind, id).await, InvocationState::Cancelled, "{}", kind.name);
        assert_nothing_left(&kind).await;
        assert_eq!(fill(&stream, &history).await, 1, "{}", kind.name);
    }
}

/// Claims, settles and cancellations of two processes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_ends_once_whoever_wins() {
    const EVENTS: usize = 60;
    for kind in lasting_kinds().await {
        let (stream, history) = stream_of(&kind).await;
        let other = kind.place.open(Arc::clone(&kind.clock)).await;
        let ids = join_all((0..EVENTS).map(|_| kind.push(Q))).await;
        let cancels = async {
            for some in ids.chunks(7) {
                let queues = [&kind.queue, &other].into_iter().cycle();
                join_all(some.iter().zip(queues).map(|(id, queue)| queue.cancel(*id))).await;
            }
        };
        let work = async {
            let source = other.source(&name(Q));
            let mut ends: BTreeMap<RequestId, usize> = BTreeMap::new();
            for round in 0..4 * EVENTS {
                let claims = source.claim(3, HOLD, &node()).await.unwrap();
                for claim in &claims {
                    let retries =
                        !claim.cancel_requested && (round + claim.tries as usize).is_multiple_of(3);
                    let ended = if retries {
                        let put = source.retry(&claim.receipt, kind.now(), None).await.unwrap();
                        put == RetryOutcome::Cancelled
                    } else {
                        let end = match claim.cancel_requested {
                            true => EventEnd::Cancelled,
                            false => EventEnd::Succeeded(Bytes::from_static(b"1")),
                        };
                        source.end(&claim.receipt, None, end).await.unwrap();
                        true
                    };
                    *ends.entry(claim.request_id).or_default() += usize::from(ended);
                }
            }
            ends
        };
        let ((), ends) = tokio::join!(cancels, work);
        assert!(ends.values().all(|ends| *ends <= 1), "{}: {ends:?}", kind.name);
        for id in &ids {
            assert!(state(&kind, *id).await.has_ended(), "{}", kind.name);
        }
        assert_nothing_left(&kind).await;
        assert_eq!(fill(&stream, &history).await, EVENTS, "{}", kind.name);
    }
}
