//! Slots and waiting events, under every order of steps.

use proptest::prelude::*;
use tokio::time::advance;

use super::*;
use crate::test_support::function_id;

const LIMITS: FairQueueLimits =
    FairQueueLimits { running_max: 8, claimed_max: 40, waiting_max: 24 };
const FAST: Duration = Duration::from_micros(200);

fn fair_queue() -> FairQueue<u32> {
    FairQueue::new(LIMITS)
}

/// Claims as many events as are wanted, runs what gets a slot, and returns how many that is.
fn fill(queue: &FairQueue<u32>, function: &str, limit: usize) -> usize {
    let id = function_id(function);
    let wanted = queue.wanted(&id, limit).min(queue.claimable());
    queue.add(&id, limit, Instant::now(), vec![0; wanted]);
    std::iter::from_fn(|| queue.next()).count()
}

#[tokio::test(start_paused = true)]
async fn an_unknown_function_is_claimed_slot_by_slot() {
    let queue = fair_queue();
    assert_eq!(fill(&queue, "hello", 4), 4);
    assert_eq!(queue.wanted(&function_id("hello"), 4), 0);
}

#[tokio::test(start_paused = true)]
async fn a_fast_function_is_claimed_ahead_and_within_limits() {
    let queue = fair_queue();
    fill(&queue, "hello", 4);
    queue.run_ended(&function_id("hello"), RunFeedback::Ran(FAST));
    assert_eq!(queue.wanted(&function_id("hello"), 4), 1 + LIMITS.waiting_max);
    assert_eq!(fill(&queue, "hello", 4), 1, "the rest waits for a slot");
    assert_eq!(queue.wanted(&function_id("hello"), 4), 0, "there is enough");
    assert_eq!(queue.claimable(), LIMITS.claimed_max - 4 - 1 - LIMITS.waiting_max);
}

#[tokio::test(start_paused = true)]
async fn a_slow_function_is_not_claimed_ahead() {
    let queue = fair_queue();
    fill(&queue, "hello", 4);
    queue.run_ended(&function_id("hello"), RunFeedback::Ran(Duration::from_secs(1)));
    assert_eq!(queue.wanted(&function_id("hello"), 4), 1);
}

#[tokio::test(start_paused = true)]
async fn functions_take_turns_at_free_slots() {
    let queue = FairQueue::new(FairQueueLimits { running_max: 1, ..LIMITS });
    for (function, event) in [("hello", 1), ("other", 2)] {
        queue.add(&function_id(function), 1, Instant::now(), vec![event; 3]);
    }
    let mut ran = Vec::new();
    while let Some(NextRun { event, .. }) = queue.next() {
        ran.push(event);
        let function = if event == 1 { "hello" } else { "other" };
        queue.run_ended(&function_id(function), RunFeedback::Ran(FAST));
    }
    assert_eq!(ran, [1, 2, 1, 2, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn stale_events_are_removed_and_a_pause_keeps_the_count_of_throttled_runs() {
    let queue = fair_queue();
    let id = function_id("hello");
    queue.add(&id, 1, Instant::now(), vec![1, 2]);
    assert_eq!(queue.next(), Some(NextRun { event: 1, throttled_runs: 0 }));
    queue.run_ended(&id, RunFeedback::Throttled(Duration::from_secs(1)));
    assert_eq!(queue.next(), None, "the function is paused");
    advance(Duration::from_secs(4)).await;
    queue.add(&id, 1, Instant::now(), vec![3]);
    assert_eq!(queue.take_stale(Duration::from_secs(2)), [2]);
    assert_eq!(queue.next(), Some(NextRun { event: 3, throttled_runs: 1 }));
}

proptest! {
    /// No limit is exceeded, and each event is handed out once: to a slot, or back.
    #[test]
    fn no_event_is_lost_and_no_limit_exceeded(steps in prop::collection::vec((0u8..5, 0usize..3), 1..200)) {
        let (names, limits) = (["one", "two", "three"], [1, 3, 8]);
        let queue = fair_queue();
        let (mut number, mut waiting, mut running) = (0, Vec::new(), Vec::new());
        for (step, which) in steps {
            let id = function_id(names[which]);
            match step {
                0 | 1 => {
                    let wanted = queue.wanted(&id, limits[which]).min(queue.claimable());
                    let events: Vec<_> = (number..).take(wanted).map(|n| n * 3 + u32::try_from(which).unwrap()).collect();
                    number += u32::try_from(wanted).unwrap();
                    waiting.extend(events.iter().copied());
                    queue.add(&id, limits[which], Instant::now(), events);
                }
                2 => {
                    if let Some(NextRun { event, .. }) = queue.next() {
                        prop_assert!(waiting.contains(&event));
                        waiting.retain(|each| *each != event);
                        running.push(event);
                    }
                }
                3 => {
                    if let Some(at) = running.iter().position(|e| *e as usize % 3 == which) {
                        running.remove(at);
                        let how = if number % 5 == 0 { RunFeedback::NotRun } else { RunFeedback::Ran(FAST) };
                        queue.run_ended(&id, how);
                        queue.settled();
                    }
                }
                _ => {
                    for event in queue.take_stale(Duration::ZERO) {
                        prop_assert!(waiting.contains(&event));
                        waiting.retain(|each| *each != event);
                        queue.settled();
                    }
                    prop_assert_eq!(&waiting, &Vec::<u32>::new());
                }
            }
            prop_assert_eq!(queue.running(), running.len());
            prop_assert!(running.len() <= LIMITS.running_max);
            prop_assert_eq!(queue.claimable(), LIMITS.claimed_max - running.len() - waiting.len());
            for (at, limit) in limits.into_iter().enumerate() {
                let ours = running.iter().filter(|event| **event as usize % 3 == at).count();
                prop_assert!(ours <= limit);
            }
        }
    }
}
