//! Stories of a sandbox's life: room, deploys, freezing, the end of the node.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hanshu_core::{Digest, InvocationMode, Refusal, Verdict};
use serde_json::json;
use tokio::time;

use super::{GRACE, SandboxCounts, changed, returned, world};
use crate::test_support::{command, revision};

#[tokio::test]
async fn idle_sandboxes_of_other_functions_make_room() {
    let world = world(|options| options.memory_mb = 300);
    for name in ["first", "second", "third", "fourth"] {
        let outcome = world.call_of(&Arc::new(revision(name)), Bytes::from_static(b"0")).await;
        returned(&outcome);
    }
    assert_eq!(world.started(), 4);
    assert!(world.invoker.sandboxes().idle <= 2);
    let large = changed(|revision| revision.config.memory_mb = 512);
    let outcome = world.call_of(&large, Bytes::from_static(b"0")).await;
    assert!(matches!(outcome.verdict, Verdict::Refused(Refusal::Capacity { .. })), "{outcome:?}");
    world.close().await;
}

#[tokio::test]
async fn without_room_a_caller_is_told_so() {
    let world = world(|options| options.memory_mb = 128);
    let (first, second) = (Arc::new(revision("first")), Arc::new(revision("second")));
    world.call_of(&first, Bytes::from_static(b"0")).await;
    let short = InvocationMode::Sync { wait_timeout: Duration::from_millis(50), tail: false };
    let (busy, waits) = tokio::join!(
        world.call_of(&first, command("sleep", json!({ "ms": 300 }))),
        world.call_as(&second, Bytes::from_static(b"1"), short),
    );
    returned(&busy);
    let reason = "the node's memory of 128 MB is in use".into();
    assert_eq!(waits.verdict, Verdict::Refused(Refusal::Capacity { reason }));
    world.close().await;
}

#[tokio::test]
async fn a_deploy_lets_running_events_finish_and_starts_new_ones_on_the_new_code() {
    let world = world(|_| ());
    let old = changed(|_| ());
    let new = changed(|revision| revision.digest = Digest::from_bytes([9; 32]));
    world.call_of(&old, Bytes::from_static(b"0")).await;
    let deploy = async {
        time::sleep(Duration::from_millis(20)).await;
        world.invoker.retire(&old.function, std::slice::from_ref(&new.digest));
        returned(&world.call_of(&new, Bytes::from_static(b"1")).await).to_vec()
    };
    let running = world.call_of(&old, command("sleep", json!({ "ms": 200 })));
    let (running, fresh) = tokio::join!(running, deploy);
    assert!(matches!(running.verdict, Verdict::Returned(_)));
    assert_eq!(fresh, b"1");
    world.until(|world| world.backend.0.stopped.load(Ordering::Relaxed) == 1).await;
    assert_eq!(world.invoker.sandboxes().idle, 1, "the old one is gone");
    // An event that was accepted for the old code still runs on it.
    returned(&world.call_of(&old, Bytes::from_static(b"2")).await);
    world.invoker.retire(&old.function, &[]);
    world.until(|world| world.invoker.sandboxes() == SandboxCounts::default()).await;
    world.close().await;
}

#[tokio::test]
async fn an_idle_sandbox_is_frozen_and_thawed_for_its_next_event() {
    let world = world(|options| options.freeze_after_ms = 1);
    world.call(Bytes::from_static(b"0")).await;
    world.until(|world| world.invoker.sandboxes().frozen == 1).await;
    assert_eq!(returned(&world.call(Bytes::from_static(b"1")).await), b"1");
    assert_eq!(world.backend.0.thawed.load(Ordering::Relaxed), 1);
    assert_eq!(world.started(), 1);
    world.close().await;
}

#[tokio::test]
async fn a_sandbox_that_dies_while_idle_is_replaced() {
    let world = world(|_| ());
    world.call(Bytes::from_static(b"0")).await;
    for pool in world.invoker.node.pools.all() {
        for (_, _, instance) in pool.idle() {
            instance.sandbox.stop().await;
        }
    }
    world.until(|world| world.invoker.sandboxes().idle == 0).await;
    assert_eq!(returned(&world.call(Bytes::from_static(b"1")).await), b"1");
    assert_eq!(world.started(), 2);
    world.invoker.stop(GRACE).await;
}

#[tokio::test]
async fn stopping_lets_running_events_finish_and_takes_no_new_ones() {
    let world = world(|_| ());
    world.call(Bytes::from_static(b"0")).await;
    let stop = async {
        time::sleep(Duration::from_millis(20)).await;
        let invoker = Arc::clone(&world.invoker);
        let general = world.general.as_ref().unwrap();
        let stopping = general.spawn(async move { invoker.stop(GRACE).await });
        time::sleep(Duration::from_millis(20)).await;
        let late = world.call(Bytes::from_static(b"1")).await;
        assert!(matches!(late.verdict, Verdict::Refused(Refusal::Unavailable { .. })));
        stopping.await.unwrap();
    };
    let running = world.call(command("sleep", json!({ "ms": 200 })));
    let (running, ()) = tokio::join!(running, stop);
    assert!(matches!(running.verdict, Verdict::Returned(_)));
    world.close().await;
}

#[tokio::test]
async fn what_outlives_the_grace_is_ended_and_is_not_the_functions_fault() {
    let world = world(|_| ());
    world.call(Bytes::from_static(b"0")).await;
    let stop = async {
        time::sleep(Duration::from_millis(20)).await;
        world.invoker.stop(Duration::from_millis(50)).await;
    };
    let (running, ()) = tokio::join!(world.call(command("hang", json!({}))), stop);
    assert!(matches!(running.verdict, Verdict::Refused(Refusal::Sandbox { .. })), "{running:?}");
    assert_eq!(world.invoker.sandboxes(), SandboxCounts::default());
}

#[tokio::test]
async fn what_an_earlier_process_left_is_removed() {
    let world = world(|_| ());
    let left = world.run_dir.path().join("run").join(hanshu_core::InstanceId::new().to_string());
    std::fs::create_dir_all(&left).unwrap();
    world.invoker.recover().await.unwrap();
    assert!(!left.exists());
    assert_eq!(world.backend.0.swept.load(Ordering::Relaxed), 1);
    world.close().await;
}

#[tokio::test]
async fn a_hundred_functions_in_turn_evict_only_when_they_must_and_the_oldest() {
    let world = world(|options| options.memory_mb = 20 * 128);
    let functions: Vec<_> = (0..100).map(|n| Arc::new(revision(&format!("fn-{n}")))).collect();
    // The first is in use all the time.
    let patient = changed(|revision| revision.config.timeout = Duration::from_secs(60));
    let mut used = Box::pin(world.call_of(&patient, command("hang", json!({}))));
    let stopped = || world.backend.0.stopped.load(Ordering::Relaxed);
    let rounds = async {
        world.until(|world| world.invoker.sandboxes().busy == 1).await;
        for (turn, function) in functions.iter().enumerate().skip(1) {
            returned(&world.call_of(function, Bytes::from_static(b"1")).await);
            if turn < 20 {
                assert_eq!(stopped(), 0, "there is room for all of them");
            }
        }
        // The last nineteen are warm: nobody has to go for them.
        world.until(|world| world.invoker.sandboxes().stopping == 0).await;
        let (started, evicted) = (world.started(), stopped());
        for function in &functions[82..] {
            returned(&world.call_of(function, Bytes::from_static(b"1")).await);
        }
        assert_eq!((world.started(), stopped()), (started, evicted));
        assert_eq!(started, 100);
    };
    tokio::select! {
        biased;
        () = rounds => {}
        outcome = &mut used => panic!("the one in use ended: {outcome:?}"),
    }
    let (ended, ()) = tokio::join!(used, world.invoker.stop(Duration::ZERO));
    assert!(matches!(ended.verdict, Verdict::Refused(Refusal::Sandbox { .. })), "{ended:?}");
    assert_eq!(world.invoker.sandboxes(), SandboxCounts::default());
}
