//! Places and stocks, in every order that steps can come in.

use proptest::prelude::*;
use tokio::time::advance;

use super::*;
use crate::doubles::function_id;

const BOUNDS: Bounds = Bounds { running: 8, claimed: 40, ahead: 24 };
const FAST: Duration = Duration::from_micros(200);

fn shares() -> Shares<u32> {
    Shares::new(BOUNDS)
}

/// Takes in as many as are wanted, runs what has a place, and says how many that is.
fn fill(shares: &Shares<u32>, function: &str, limit: usize) -> usize {
    let id = function_id(function);
    let wanted = shares.wanted(&id, limit).min(shares.free());
    shares.add(&id, limit, Instant::now(), vec![0; wanted]);
    std::iter::from_fn(|| shares.next()).count()
}

#[tokio::test(start_paused = true)]
async fn an_unknown_function_is_claimed_place_by_place() {
    let shares = shares();
    assert_eq!(fill(&shares, "hello", 4), 4);
    assert_eq!(shares.wanted(&function_id("hello"), 4), 0);
}

#[tokio::test(start_paused = true)]
async fn a_fast_function_is_claimed_ahead_and_within_bounds() {
    let shares = shares();
    fill(&shares, "hello", 4);
    shares.ran(&function_id("hello"), Ran::For(FAST));
    assert_eq!(shares.wanted(&function_id("hello"), 4), 1 + BOUNDS.ahead);
    assert_eq!(fill(&shares, "hello", 4), 1, "the rest waits for a place");
    assert_eq!(shares.wanted(&function_id("hello"), 4), 0, "there is enough");
    assert_eq!(shares.free(), BOUNDS.claimed - 4 - 1 - BOUNDS.ahead);
}

#[tokio::test(start_paused = true)]
async fn a_slow_function_is_not_claimed_ahead() {
    let shares = shares();
    fill(&shares, "hello", 4);
    shares.ran(&function_id("hello"), Ran::For(Duration::from_secs(1)));
    assert_eq!(shares.wanted(&function_id("hello"), 4), 1);
}

#[tokio::test(start_paused = true)]
async fn functions_take_turns_at_free_places() {
    let shares = Shares::new(Bounds { running: 1, ..BOUNDS });
    for (function, event) in [("hello", 1), ("other", 2)] {
        shares.add(&function_id(function), 1, Instant::now(), vec![event; 3]);
    }
    let mut ran = Vec::new();
    while let Some((event, _)) = shares.next() {
        ran.push(event);
        let function = if event == 1 { "hello" } else { "other" };
        shares.ran(&function_id(function), Ran::For(FAST));
    }
    assert_eq!(ran, [1, 2, 1, 2, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_too_long_is_taken_out_and_a_pause_keeps_its_strikes() {
    let shares = shares();
    let id = function_id("hello");
    shares.add(&id, 1, Instant::now(), vec![1, 2]);
    assert_eq!(shares.next(), Some((1, 0)));
    shares.ran(&id, Ran::Throttled(Duration::from_secs(1)));
    assert_eq!(shares.next(), None, "the function is paused");
    advance(Duration::from_secs(4)).await;
    shares.add(&id, 1, Instant::now(), vec![3]);
    assert_eq!(shares.stale(Duration::from_secs(2)), [2]);
    assert_eq!(shares.next(), Some((3, 1)));
}

proptest! {
    /// Whatever happens: no bound is passed, and each event is handed out once, to a place or back.
    #[test]
    fn no_event_is_lost_and_no_bound_passed(steps in prop::collection::vec((0u8..5, 0usize..3), 1..200)) {
        let (names, limits) = (["one", "two", "three"], [1, 3, 8]);
        let shares = shares();
        let (mut number, mut waiting, mut running) = (0, Vec::new(), Vec::new());
        for (step, which) in steps {
            let id = function_id(names[which]);
            match step {
                0 | 1 => {
                    let wanted = shares.wanted(&id, limits[which]).min(shares.free());
                    let events: Vec<_> = (number..).take(wanted).map(|n| n * 3 + u32::try_from(which).unwrap()).collect();
                    number += u32::try_from(wanted).unwrap();
                    waiting.extend(events.iter().copied());
                    shares.add(&id, limits[which], Instant::now(), events);
                }
                2 => {
                    if let Some((event, _)) = shares.next() {
                        prop_assert!(waiting.contains(&event));
                        waiting.retain(|each| *each != event);
                        running.push(event);
                    }
                }
                3 => {
                    if let Some(at) = running.iter().position(|e| *e as usize % 3 == which) {
                        running.remove(at);
                        let how = if number % 5 == 0 { Ran::No } else { Ran::For(FAST) };
                        shares.ran(&id, how);
                        shares.settled();
                    }
                }
                _ => {
                    for event in shares.stale(Duration::ZERO) {
                        prop_assert!(waiting.contains(&event));
                        waiting.retain(|each| *each != event);
                        shares.settled();
                    }
                    prop_assert_eq!(&waiting, &Vec::<u32>::new());
                }
            }
            prop_assert_eq!(shares.running(), running.len());
            prop_assert!(running.len() <= BOUNDS.running);
            prop_assert_eq!(shares.free(), BOUNDS.claimed - running.len() - waiting.len());
            for (at, limit) in limits.into_iter().enumerate() {
                let ours = running.iter().filter(|event| **event as usize % 3 == at).count();
                prop_assert!(ours <= limit);
            }
        }
    }
}
