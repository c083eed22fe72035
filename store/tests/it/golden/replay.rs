//! What golden files hold, written once more through the ports of this program into empty stores:
//! so its own format of the same things is seen.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hanshu_core::ports::{
    Claim, EventEnd, EventQueue, EventSource, FunctionRegistry as _, InvocationJournal,
    NewDeployment, NewEvent, QueueName, RetryOutcome, TimerTick,
};
use hanshu_core::{
    AsyncState, Attempt, Clock as _, ColdStart, ColdStartParts, Event, InvocationState, LogBatch,
    LogSource, ManualClock, Origin, Qualifier, RequestId, TimerTrigger, TriggerConfig as _,
    TriggerId,
};
use hanshu_store::SqlRegistry;

use super::answers;
use super::journal::GoldenJournal;
use super::places::GoldenQueue;
use crate::queue_kinds::{HOLD, digest, event, node};
use crate::registries::everything;

/// Everything that is live, deployed and published.
pub(crate) async fn registry(from: &SqlRegistry, to: &SqlRegistry) {
    for entry in everything(from).await.functions {
        let (latest, at) = &entry.revisions[0];
        let deployment = NewDeployment {
            function: latest.function.clone(),
            config: latest.config.clone(),
            code: latest.code.clone(),
            revision: latest.digest.clone(),
            triggers: entry.triggers.clone(),
            now: *at,
        };
        to.deploy(deployment).await.unwrap();
        to.publish(&latest.function, *at).await.unwrap();
    }
    for key in from.keys().await.unwrap() {
        to.add_key(key).await.unwrap();
    }
}

/// Every event brought into its state, each in a queue of its own.
pub(crate) async fn queue(from: &GoldenQueue, to: &dyn EventQueue, clock: &Arc<ManualClock>) {
    for (number, id) in from.answers["queued"].as_array().unwrap().iter().enumerate() {
        let id: RequestId = id.as_str().unwrap().parse().unwrap();
        let state = from.queue.state(id).await.unwrap().unwrap();
        let mut queue =
            QueueName { function: state.function.clone(), trigger: state.trigger.clone() };
        queue.function.name = format!("function-{number}").parse().unwrap();
        to.push(new_event(&state, &queue, clock)).await.unwrap();
        bring(&state, &*to.source(&queue), clock).await;
        if state.state == InvocationState::Cancelled {
            to.cancel(id).await.unwrap();
        }
        let brought = to.state(id).await.unwrap().unwrap();
        assert_eq!(brought.state, state.state, "{id}");
    }
}

fn new_event(state: &AsyncState, queue: &QueueName, clock: &ManualClock) -> NewEvent {
    let origin = queue
        .trigger
        .clone()
        .map_or(Origin::Direct, |name| Origin::trigger_of(TimerTrigger::KIND, name));
    let tick = queue.trigger.clone().map(|name| TimerTick {
        trigger: TriggerId { function: queue.function.clone(), name },
        at: clock.now(),
    });
    NewEvent {
        request_id: state.request_id,
        queue: queue.clone(),
        version: state.version,
        revision: digest(1),
        event: Event { origin, payload: Bytes::from_static(b"{}") },
        tick,
        ..event("default/hello", clock.now())
    }
}

async fn bring(state: &AsyncState, source: &dyn EventSource, clock: &ManualClock) {
    let mut attempts: Vec<Attempt> = state.attempts.clone();
    let is_settled = state.state.has_ended() && state.state != InvocationState::Cancelled;
    let last = if is_settled { attempts.pop() } else { None };
    for attempt in attempts {
        let claim = claim(source).await;
        match attempt.status {
            Some(_) => {
                let put = source.retry(&claim.receipt, clock.now(), Some(attempt)).await;
                assert_eq!(put.unwrap(), RetryOutcome::Waiting);
            }
            None if state.attempts.last() == Some(&attempt) => return,
            None => clock.advance(HOLD + Duration::from_secs(1)),
        }
    }
    let ended = match state.state {
        // One that waits is cancelled without a claim.
        InvocationState::Queued
        | InvocationState::Running
        | InvocationState::Retrying
        | InvocationState::Cancelled => return,
        InvocationState::Succeeded => EventEnd::Succeeded(state.result.clone().unwrap().into()),
        InvocationState::Failed => EventEnd::Failed(state.error.clone().unwrap()),
        InvocationState::Expired => EventEnd::Expired(state.error.clone()),
    };
    source.end(&claim(source).await.receipt, last, ended).await.unwrap();
}

async fn claim(source: &dyn EventSource) -> Claim {
    source.claim(1, HOLD, &node()).await.unwrap().pop().unwrap()
}

/// Every record, and every line of output in a batch of its own.
pub(crate) async fn journal(from: &GoldenJournal, to: &dyn InvocationJournal) {
    let parts = Some(ColdStartParts::default());
    let cold_start = Some(ColdStart { parts, ..ColdStart::default() });
    for id in answers::by(&from.answers["invocations"], "requestId").into_keys() {
        for record in from.journal.find(id.parse().unwrap()).await.unwrap() {
            to.record(record);
        }
    }
    for query in from.queries() {
        for line in from.journal.read(&query).await.unwrap().lines {
            if line.from == LogSource::Platform {
                continue;
            }
            to.log(LogBatch {
                request_id: line.request_id,
                function: query.function.clone(),
                version: Qualifier::Latest,
                time: line.time,
                lines: vec![line.text],
                first: true,
                cold_start: cold_start.filter(|_| line.request_id.is_some()),
            });
        }
    }
    to.flush().await.unwrap();
}
