//! Events of golden queues, in every state: on SQLite, PostgreSQL and Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use hanshu_core::ports::{Claim, EventEnd, NewEvent, PushOutcome, QueueName, TimerTick};
use hanshu_core::{
    AsyncState, Event, InvocationState, Origin, RequestId, StatusCode, TimerTrigger,
    TriggerConfig as _, TriggerId,
};
use serde_json::Value;

use super::answers;
use super::files::versions;
use super::places::{GoldenQueue, queues};
use crate::queue_kinds::{DAY, HOLD, digest, event, name, node};

/// Later than any due time of a golden queue.
const ALL_DUE: Duration = Duration::from_secs(6 * 3600);

impl GoldenQueue {
    /// What the API said of the events that were queued, by request id.
    fn expected(&self) -> BTreeMap<String, Value> {
        let mut all = answers::by(&self.answers["invocations"], "requestId");
        let queued = self.answers["queued"].as_array().unwrap();
        all.retain(|id, _| queued.contains(&id.as_str().into()));
        all
    }

    async fn state(&self, id: &str) -> AsyncState {
        let id: RequestId = id.parse().unwrap();
        let found = self.queue.state(id).await.unwrap();
        found.unwrap_or_else(|| panic!("{}: {id} is not there", self.name))
    }

    /// Everything that can be claimed from all queues now.
    async fn claim_all(&self) -> Vec<(QueueName, Claim)> {
        let mut all = Vec::new();
        for queue in self.queue.ready(1000).await.unwrap().queues {
            let claims = self.queue.source(&queue).claim(100, HOLD, &node()).await.unwrap();
            all.extend(claims.into_iter().map(|claim| (queue.clone(), claim)));
        }
        all
    }

    fn revision(&self, digest: &str) -> &Value {
        let all = self.answers["revisions"].as_array().unwrap();
        all.iter().find(|each| each["digest"] == *digest).unwrap()
    }
}

#[tokio::test]
async fn every_event_is_in_its_state_with_its_attempts_and_its_end() {
    for golden in all_queues().await {
        let mut states = BTreeMap::<_, usize>::new();
        for (id, answer) in golden.expected() {
            let state = golden.state(&id).await;
            assert_eq!(answers::queued(&state), answers::without_kind(&answer), "{}", golden.name);
            *states.entry(state.state.as_str()).or_default() += 1;
        }
        let all = ["expired", "failed", "queued", "retrying", "running", "succeeded"];
        assert!(states.keys().copied().eq(all), "{}: {states:?}", golden.name);
    }
}

#[tokio::test]
async fn what_differs_between_events_of_one_state_is_all_there() {
    for golden in all_queues().await {
        let mut seen = BTreeSet::new();
        for id in golden.expected().into_keys() {
            let state = golden.state(&id).await;
            let attempts = state.attempts.iter().map(|each| each.status.map(StatusCode::number));
            let error = state.error.as_ref().map(|error| error.status_code.number());
            seen.insert((state.state.as_str(), attempts.collect::<Vec<_>>(), error));
        }
        for wanted in [
            ("queued", vec![], None),
            // Its first node died.
            ("running", vec![None, None], None),
            ("retrying", vec![Some(430)], None),
            ("failed", vec![Some(430), Some(430)], Some(430)),
            ("failed", vec![Some(433)], Some(433)),
            // Its function was deleted.
            ("failed", vec![], Some(435)),
            ("expired", vec![Some(430)], Some(430)),
            // For want of a place; and because it was claimed too late.
            ("expired", vec![], Some(449)),
            ("expired", vec![], None),
            ("succeeded", vec![Some(200)], None),
        ] {
            assert!(seen.contains(&wanted), "{}: no {wanted:?} in {seen:?}", golden.name);
        }
    }
}

#[tokio::test]
async fn figures_of_all_queues_are_the_same() {
    for golden in all_queues().await {
        let key = |view: &Value| view.to_string();
        let mut found: Vec<_> =
            golden.queue.stats().await.unwrap().iter().map(answers::stats).collect();
        let mut expected = golden.answers["queues"].as_array().unwrap().clone();
        found.sort_by_key(key);
        expected.sort_by_key(key);
        assert_eq!(found, expected, "{}", golden.name);
    }
}

#[tokio::test]
async fn whatever_has_not_ended_is_claimed_as_it_was_accepted() {
    for golden in all_queues().await {
        golden.clock.advance(ALL_DUE);
        let mut waiting = golden.expected();
        waiting.retain(|_, answer| answer["endedAt"].is_null());
        for (queue, claim) in golden.claim_all().await {
            let id = claim.request_id.to_string();
            let answer = waiting.remove(&id).unwrap_or_else(|| panic!("{}: {id}", golden.name));
            check(&golden, &answer, (&queue, &claim));
        }
        assert!(waiting.is_empty(), "{}: {waiting:?}", golden.name);
    }
}

fn check(golden: &GoldenQueue, answer: &Value, (queue, claim): (&QueueName, &Claim)) {
    let (name, id) = (&golden.name, claim.request_id.to_string());
    assert_eq!(answer["acceptedAt"], claim.accepted_at.to_string(), "{name}: {id}");
    assert_eq!(answer["version"], claim.version.to_string(), "{name}: {id}");
    assert_eq!(answer["function"], queue.function.name.as_str(), "{name}: {id}");
    let before = answer["attempts"].as_array().unwrap().len();
    assert_eq!(usize::try_from(claim.attempt).unwrap(), before + 1, "{name}: {id}");
    assert!(claim.attempt <= claim.tries, "{name}: {id}");
    let revision = golden.revision(claim.revision.as_str());
    assert_eq!(answer["function"], revision["name"], "{name}: {id}");
    let age = Duration::try_from(claim.expires_at.duration_since(claim.accepted_at)).unwrap();
    assert_eq!(revision["async"]["maxAgeS"], age.as_secs(), "{name}: {id}");
    let payload: Value = serde_json::from_slice(&claim.payload).unwrap();
    match &claim.origin {
        Origin::Direct => {
            assert_eq!(golden.answers["events"][&id], payload, "{name}: {id}");
            assert_eq!(queue.trigger, None, "{name}: {id}");
        }
        Origin::Trigger { kind, name: trigger } if kind.as_str() == "timer" => {
            assert_eq!(payload["TriggerName"], trigger.as_str(), "{name}: {id}");
            assert_eq!(answer["trigger"]["name"], trigger.as_str(), "{name}: {id}");
            assert_eq!(queue.trigger.as_ref(), Some(trigger), "{name}: {id}");
        }
        other @ (Origin::Trigger { .. } | Origin::Function(_)) => panic!("{name}: {id}: {other:?}"),
    }
}

#[tokio::test]
async fn what_was_claimed_can_be_put_back_and_ended() {
    for golden in all_queues().await {
        golden.clock.advance(ALL_DUE);
        for (queue, claim) in golden.claim_all().await {
            let source = golden.queue.source(&queue);
            source.extend(&claim.receipt, HOLD).await.unwrap();
            source.retry(&claim.receipt, claim.accepted_at, None).await.unwrap();
        }
        let mut ended = 0;
        for (queue, claim) in golden.claim_all().await {
            let (id, source) = (claim.request_id.to_string(), golden.queue.source(&queue));
            let result = EventEnd::Succeeded(Bytes::from_static(b"\"now\""));
            source.end(&claim.receipt, None, result).await.unwrap();
            let state = golden.state(&id).await;
            assert_eq!(state.state, InvocationState::Succeeded, "{}: {id}", golden.name);
            assert_eq!(state.result.as_deref(), Some("\"now\""), "{}: {id}", golden.name);
            ended += 1;
        }
        assert!(6 < ended, "{}: {ended}", golden.name);
        assert_eq!(golden.queue.pinned().await.unwrap(), [], "{}", golden.name);
        let stats = golden.queue.stats().await.unwrap();
        assert!(stats.iter().all(|each| each.waiting + each.running == 0), "{}", golden.name);
    }
}

#[tokio::test]
async fn a_held_event_is_claimed_when_its_hold_is_over() {
    for golden in all_queues().await {
        let slow = name("default/slow");
        let (source, running) = (golden.queue.source(&slow), running(&golden));
        let waiting = source.claim(10, HOLD, &node()).await.unwrap();
        assert!(waiting.iter().all(|claim| claim.request_id != running), "{}", golden.name);
        assert_eq!(waiting.len(), 1, "{}", golden.name);
        golden.clock.advance(Duration::from_secs(45));
        let held = source.claim(10, HOLD, &node()).await.unwrap();
        let [claim] = &held[..] else { panic!("{}: {held:?}", golden.name) };
        assert_eq!((claim.request_id, claim.attempt), (running, 3), "{}", golden.name);
        let attempts = golden.state(&running.to_string()).await.attempts;
        let ended: Vec<_> = attempts.iter().map(|each| (each.number, each.ended_at)).collect();
        assert_eq!(ended, [(1, None), (2, None), (3, None)], "{}", golden.name);
    }
}

/// The one that ran when its node was killed.
fn running(golden: &GoldenQueue) -> RequestId {
    let expected = golden.expected();
    let mut all = expected.values().filter(|answer| answer["state"] == "running");
    all.next().unwrap()["requestId"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_revisions_of_whatever_has_not_ended_are_pinned() {
    for golden in all_queues().await {
        let pinned: BTreeSet<_> = golden.queue.pinned().await.unwrap().into_iter().collect();
        golden.clock.advance(ALL_DUE);
        let claims = golden.claim_all().await;
        let named: BTreeSet<_> = claims.iter().map(|(_, claim)| claim.revision.clone()).collect();
        assert_eq!(pinned, named, "{}", golden.name);
        let later =
            pinned.iter().filter(|digest| golden.revision(digest.as_str())["name"] == "later");
        assert_eq!(later.count(), 2, "{}: one of them was replaced", golden.name);
    }
}

#[tokio::test]
async fn a_tick_that_was_queued_is_not_queued_again() {
    for golden in all_queues().await {
        let ticker = name("default/ticker/each-second");
        let (function, trigger) = (ticker.function.clone(), ticker.trigger.clone().unwrap());
        let expected = golden.expected();
        let ticks = expected.values().filter(|answer| answer["function"] == "ticker");
        let last = ticks.map(|answer| answer["acceptedAt"].as_str().unwrap()).max().unwrap();
        let last: hanshu_core::Timestamp = last.parse().unwrap();
        let at = hanshu_core::Timestamp::from_second(last.as_second()).unwrap();
        let push = |at| NewEvent {
            queue: ticker.clone(),
            event: Event {
                origin: Origin::trigger_of(TimerTrigger::KIND, trigger.clone()),
                payload: Bytes::new(),
            },
            revision: digest(1),
            tick: Some(TimerTick {
                trigger: TriggerId { function: function.clone(), name: trigger.clone() },
                at,
            }),
            ..event("default/ticker", last)
        };
        let pushed = golden.queue.push(push(at)).await.unwrap();
        assert_eq!(pushed, PushOutcome::Duplicate, "{}", golden.name);
        let next = at + Duration::from_secs(1);
        let pushed = golden.queue.push(push(next)).await.unwrap();
        assert_eq!(pushed, PushOutcome::Accepted, "{}", golden.name);
    }
}

#[tokio::test]
async fn what_has_ended_goes_when_its_time_is_over() {
    for golden in all_queues().await {
        let expected = golden.expected();
        let (ended, others): (Vec<_>, Vec<_>) =
            expected.iter().partition(|(_, answer)| !answer["endedAt"].is_null());
        golden.clock.advance(DAY);
        let now = hanshu_core::Clock::now(&*golden.clock);
        let collected = golden.queue.collect(now).await.unwrap();
        assert_eq!(usize::try_from(collected).unwrap(), ended.len(), "{}", golden.name);
        for (id, _) in ended {
            let state = golden.queue.state(id.parse().unwrap()).await.unwrap();
            assert_eq!(state, None, "{}", golden.name);
        }
        for (id, _) in others {
            golden.state(id).await;
        }
        let stats = golden.queue.stats().await.unwrap();
        assert!(stats.iter().all(|each| each.dead_lettered == 0), "{}: {stats:?}", golden.name);
    }
}

async fn all_queues() -> Vec<GoldenQueue> {
    let mut all = Vec::new();
    for version in versions() {
        all.extend(queues(version).await);
    }
    all
}
