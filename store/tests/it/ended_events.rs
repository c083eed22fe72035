//! The stream of ended events, and the history that is made from it, on every adapter.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hanshu_core::ports::{
    CancelOutcome, EndedEventReader, EndedEvents as _, EventEnd, HistoryBounds, HistoryCursor,
    HistoryQuery, InvocationHistory as _, NewEvent, RetryOutcome,
};
use hanshu_core::{AsyncState, InvocationState, ManualClock, RequestId, StatusCode};
use hanshu_store::{RedisOptions, RedisQueue, SqlEndedEvents, SqlHistory};
use tokio_util::task::TaskTracker;

use crate::databases::memory;
use crate::queue_kinds::{DAY, QueuePlace, TestQueue, failure, kinds, name};

const READER: EndedEventReader = EndedEventReader::History;

/// The stream of a queue, and the history behind it. A Redis queue's is in a database in memory.
pub(crate) async fn stream_of(kind: &TestQueue) -> (SqlEndedEvents, SqlHistory) {
    match &kind.place {
        QueuePlace::Sql(test) => {
            (SqlEndedEvents::new(test.db.clone()), SqlHistory::new(test.db.clone()))
        }
        QueuePlace::Redis { url, name } => {
            let options = RedisOptions { name: name.clone(), ..RedisOptions::default() };
            let clock = Arc::<ManualClock>::clone(&kind.clock);
            let queue =
                RedisQueue::connect(url, clock, &TaskTracker::new(), &options).await.unwrap();
            let db = memory().await.db;
            let stream = SqlEndedEvents::fed_from(db.clone(), queue.ended_stream());
            (stream, SqlHistory::new(db))
        }
    }
}

/// Everything that ended, moved into the history; returns how many events were read.
pub(crate) async fn fill(stream: &SqlEndedEvents, history: &SqlHistory) -> usize {
    while stream.take_over(3).await.unwrap() != 0 {}
    let mut read = 0;
    loop {
        let batch = stream.read(READER, 3).await.unwrap();
        let Some(position) = batch.position else { return read };
        history.record(&batch.events).await.unwrap();
        stream.confirm(READER, position).await.unwrap();
        read += batch.events.len();
    }
}

async fn end(kind: &TestQueue, queue: &str, ended: EventEnd) -> RequestId {
    let id = kind.push(queue).await;
    let claim = kind.claim_one(queue).await;
    let attempt = kind.attempt(&claim, StatusCode::Success);
    kind.queue.source(&name(queue)).end(&claim.receipt, attempt, ended).await.unwrap();
    id
}

fn all_of(namespace: &str) -> HistoryQuery {
    HistoryQuery {
        namespace: namespace.parse().unwrap(),
        function: None,
        trigger: None,
        states: Vec::new(),
        from: None,
        to: None,
        text: None,
        after: None,
        limit: 100,
    }
}

/// All pages, a few events each.
async fn pages(history: &SqlHistory, query: HistoryQuery) -> Vec<AsyncState> {
    let (mut all, mut after): (Vec<AsyncState>, Option<HistoryCursor>) = (Vec::new(), None);
    loop {
        let page = history.page(&HistoryQuery { after, limit: 2, ..query.clone() }).await.unwrap();
        assert!(page.events.len() <= 2);
        all.extend(page.events);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

fn ids(events: &[AsyncState]) -> Vec<RequestId> {
    events.iter().map(|event| event.request_id).collect()
}

#[tokio::test]
async fn an_end_is_read_once_with_everything_that_was_known() {
    for kind in kinds().await {
        let (stream, history) = stream_of(&kind).await;
        let old = RequestId::new();
        let event = NewEvent { rerun_of: Some(old), ..kind.event("default/hello/orders") };
        kind.queue.push(event.clone()).await.unwrap();
        let claim = kind.claim_one("default/hello/orders").await;
        let attempt = kind.attempt(&claim, StatusCode::UserException);
        let source = kind.queue.source(&name("default/hello/orders"));
        source.end(&claim.receipt, attempt, EventEnd::Failed(failure("boom"))).await.unwrap();

        while stream.take_over(10).await.unwrap() != 0 {}
        let batch = stream.read(READER, 10).await.unwrap();
        assert_eq!(batch, stream.read(READER, 10).await.unwrap(), "{}: not confirmed", kind.name);
        let [ended] = &batch.events[..] else { panic!("{}: {batch:?}", kind.name) };
        let beside_queue = kind.queue.state(event.request_id).await.unwrap().unwrap();
        assert_eq!(ended.state, beside_queue, "{}", kind.name);
        assert_eq!(ended.state.state, InvocationState::Failed, "{}", kind.name);
        assert_eq!(ended.state.rerun_of, Some(old), "{}", kind.name);
        assert_eq!(ended.state.attempts.len(), 1, "{}", kind.name);
        assert_eq!(ended.input, event.event.payload, "{}", kind.name);
        assert_eq!(ended.revision, event.revision, "{}", kind.name);

        history.record(&batch.events).await.unwrap();
        history.record(&batch.events).await.unwrap();
        stream.confirm(READER, batch.position.unwrap()).await.unwrap();
        assert_eq!(stream.read(READER, 10).await.unwrap().position, None, "{}", kind.name);
        let found = history.find(event.request_id).await.unwrap().unwrap();
        assert_eq!(found.origin, event.event.origin, "{}", kind.name);
        assert_eq!(found.state, beside_queue, "{}", kind.name);
        let input = history.input(event.request_id).await.unwrap().unwrap();
        assert_eq!(input, event.event.payload, "{}", kind.name);
    }
}

#[tokio::test]
async fn retries_and_lost_claims_end_nothing() {
    for kind in kinds().await {
        let (stream, history) = stream_of(&kind).await;
        kind.push("default/hello").await;
        let claim = kind.claim_one("default/hello").await;
        let source = kind.queue.source(&name("default/hello"));
        source.retry(&claim.receipt, kind.now(), None).await.unwrap();
        let first = kind.claim_one("default/hello").await;
        kind.clock.advance(Duration::from_secs(61));
        let second = kind.claim_one("default/hello").await;
        let late = source.end(&first.receipt, None, EventEnd::Expired(None)).await;
        assert!(late.is_err(), "{}", kind.name);
        assert_eq!(fill(&stream, &history).await, 0, "{}", kind.name);
        source.end(&second.receipt, None, EventEnd::Expired(None)).await.unwrap();
        assert_eq!(fill(&stream, &history).await, 1, "{}", kind.name);
    }
}

#[tokio::test]
async fn ends_of_many_callers_are_all_there() {
    for kind in kinds().await {
        let (stream, history) = stream_of(&kind).await;
        let mut pushed = BTreeSet::new();
        for _ in 0..40 {
            pushed.insert(kind.push("default/hello").await);
        }
        let claims = kind.claim("default/hello", 100).await;
        let source = kind.queue.source(&name("default/hello"));
        let ends = claims.iter().map(|claim| {
            let ended = EventEnd::Succeeded(bytes::Bytes::from_static(b"1"));
            source.end(&claim.receipt, None, ended)
        });
        futures_util::future::try_join_all(ends).await.unwrap();
        assert_eq!(fill(&stream, &history).await, 40, "{}", kind.name);
        let kept: BTreeSet<_> =
            ids(&pages(&history, all_of("default")).await).into_iter().collect();
        assert_eq!(kept, pushed, "{}", kind.name);
    }
}

#[tokio::test]
async fn a_page_has_what_was_asked_for_newest_first() {
    for kind in kinds().await {
        let (stream, history) = stream_of(&kind).await;
        let mut made = Vec::new();
        let queues = ["default/aa", "default/aa/t1", "default/aa/t2", "default/bb", "other/aa"];
        for round in 0..3 {
            for queue in queues {
                let ended = match round {
                    0 => EventEnd::Succeeded(bytes::Bytes::from_static(b"{}")),
                    1 => EventEnd::Failed(failure("Cannot divide")),
                    _ => EventEnd::Expired(None),
                };
                made.push((queue, round, end(&kind, queue, ended).await));
                kind.clock.advance(Duration::from_secs(1));
            }
        }
        fill(&stream, &history).await;
        let expect = |wanted: &dyn Fn(&str, i32) -> bool| -> Vec<RequestId> {
            let of = made.iter().rev().filter(|(queue, round, _)| wanted(queue, *round));
            of.map(|(_, _, id)| *id).collect()
        };
        let default = all_of("default");
        let function = HistoryQuery { function: Some("aa".parse().unwrap()), ..default.clone() };
        let trigger = HistoryQuery { trigger: Some("t1".parse().unwrap()), ..function.clone() };
        let bad = vec![InvocationState::Failed, InvocationState::Expired];
        let failed = HistoryQuery { states: bad, ..function.clone() };
        let text = HistoryQuery { text: Some("DIVIDE".into()), ..default.clone() };
        let by_id = HistoryQuery { text: Some(made[0].2.to_string()), ..default.clone() };
        let rows: [(&str, HistoryQuery, Vec<RequestId>); 6] = [
            ("namespace", default.clone(), expect(&|queue, _| queue.starts_with("default/"))),
            ("function", function, expect(&|queue, _| queue.starts_with("default/aa"))),
            ("trigger", trigger, expect(&|queue, _| queue == "default/aa/t1")),
            ("states", failed, expect(&|queue, r| queue.starts_with("default/aa") && 0 < r)),
            ("text", text, expect(&|queue, r| queue.starts_with("default/") && r == 1)),
            ("id", by_id, vec![made[0].2]),
        ];
        for (what, query, expected) in rows {
            assert_eq!(ids(&pages(&history, query).await), expected, "{}: {what}", kind.name);
        }
        let all = pages(&history, default.clone()).await;
        let (third, first) = (all[2].ended_at.unwrap(), all[0].ended_at.unwrap());
        let period = HistoryQuery { from: Some(third), to: Some(first), ..default };
        let expected = [all[1].request_id, all[2].request_id];
        assert_eq!(ids(&pages(&history, period).await), expected, "{}", kind.name);
    }
}

#[tokio::test]
async fn what_is_over_a_bound_goes_oldest_first() {
    for kind in kinds().await {
        let (stream, history) = stream_of(&kind).await;
        let mut made = Vec::new();
        for _ in 0..6 {
            made.push(end(&kind, "default/hello", EventEnd::Expired(None)).await);
            kind.clock.advance(DAY);
        }
        fill(&stream, &history).await;
        let input_bytes = kind.event("default/hello").event.payload.len() as u64;
        let bounds = HistoryBounds {
            age_max: DAY * 5,
            events_max: 4,
            input_age_max: DAY * 3,
            input_bytes_max: 2 * input_bytes,
        };
        // The first is too old, the second one too many.
        let dropped = history.collect(&bounds, kind.now()).await.unwrap();
        assert_eq!(dropped, 2, "{}", kind.name);
        let left = pages(&history, all_of("default")).await;
        let expected: Vec<_> = made.iter().rev().take(4).copied().collect();
        assert_eq!(ids(&left), expected, "{}", kind.name);
        assert_eq!(history.find(made[0]).await.unwrap(), None, "{}", kind.name);
        let mut inputs = Vec::new();
        for id in &made {
            inputs.push(history.input(*id).await.unwrap().is_some());
        }
        assert_eq!(inputs, [false, false, false, false, true, true], "{}", kind.name);
    }
}

#[tokio::test]
async fn an_event_that_waits_ends_as_cancelled_and_is_never_claimed() {
    for kind in kinds().await {
        let (stream, history) = stream_of(&kind).await;
        let queued = kind.push("default/hello").await;
        let outcome = kind.queue.cancel(queued).await.unwrap();
        assert_eq!(outcome, CancelOutcome::Cancelled, "{}", kind.name);
        let again = kind.queue.cancel(queued).await.unwrap();
        let ended = CancelOutcome::Ended(InvocationState::Cancelled);
        assert_eq!(again, ended, "{}", kind.name);
        assert_eq!(kind.claim("default/hello", 10).await.len(), 0, "{}", kind.name);

        let retrying = kind.push("default/hello").await;
        let claim = kind.claim_one("default/hello").await;
        let attempt = kind.attempt(&claim, StatusCode::UserException);
        let source = kind.queue.source(&name("default/hello"));
        let put = source.retry(&claim.receipt, kind.now(), attempt).await.unwrap();
        assert_eq!(put, RetryOutcome::Waiting, "{}", kind.name);
        let outcome = kind.queue.cancel(retrying).await.unwrap();
        assert_eq!(outcome, CancelOutcome::Cancelled, "{}", kind.name);
        assert_eq!(kind.claim("default/hello", 10).await.len(), 0, "{}", kind.name);

        let unknown = kind.queue.cancel(RequestId::new()).await.unwrap();
        assert_eq!(unknown, CancelOutcome::Unknown, "{}", kind.name);
        assert_eq!(kind.queue.pinned().await.unwrap(), [], "{}", kind.name);
        for stats in kind.queue.stats().await.unwrap() {
            assert_eq!((stats.waiting, stats.running, stats.dead_lettered), (0, 0, 0));
        }
        assert_eq!(fill(&stream, &history).await, 2, "{}", kind.name);
        let kept = pages(&history, all_of("default")).await;
        assert_eq!(ids(&kept), [retrying, queued], "{}", kind.name);
        assert!(kept.iter().all(|event| event.state == InvocationState::Cancelled));
        assert_eq!(kept[0].attempts.len(), 1, "{}", kind.name);
    }
}

/// Whoever wins, an event is either claimed or cancelled, and ends once.
#[tokio::test]
async fn a_claim_and_a_cancellation_never_both_succeed() {
    for kind in kinds().await {
        let (stream, history) = stream_of(&kind).await;
        let mut all = Vec::new();
        for _ in 0..40 {
            all.push(kind.push("default/hello").await);
        }
        let cancels = all.iter().map(|id| kind.queue.cancel(*id));
        let claims = (0..8).map(|_| kind.claim("default/hello", 5));
        let (cancelled, claimed) = tokio::join!(
            futures_util::future::join_all(cancels),
            futures_util::future::join_all(claims),
        );
        let cancelled: BTreeSet<_> = all
            .iter()
            .zip(cancelled)
            .filter(|(_, outcome)| matches!(outcome, Ok(CancelOutcome::Cancelled)))
            .map(|(id, _)| *id)
            .collect();
        let source = kind.queue.source(&name("default/hello"));
        let mut ran = BTreeSet::new();
        let left = kind.claim("default/hello", 100).await;
        for claim in claimed.into_iter().flatten().chain(left) {
            ran.insert(claim.request_id);
            source.end(&claim.receipt, None, EventEnd::Expired(None)).await.unwrap();
        }
        assert!(cancelled.is_disjoint(&ran), "{}", kind.name);
        assert_eq!(cancelled.len() + ran.len(), all.len(), "{}", kind.name);
        assert_eq!(fill(&stream, &history).await, all.len(), "{}", kind.name);
    }
}
