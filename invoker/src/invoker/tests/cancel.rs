//! Cancelling what runs, what waits, and what is no longer there.

use hanshu_core::Failure;
use hanshu_core::ports::CancelReach;

use super::*;

/// Starts a call in a task of its own.
fn spawn_call(
    world: &Arc<InvokerWorld>,
    revision: &Arc<Revision>,
    payload: Bytes,
) -> tokio::task::JoinHandle<Outcome> {
    let general = world.general.as_ref().unwrap().handle().clone();
    let (world, revision) = (Arc::clone(world), Arc::clone(revision));
    general.spawn(async move { world.call_of(&revision, payload).await })
}

impl InvokerWorld {
    fn request_id(&self, call: usize) -> RequestId {
        self.request_ids.lock().unwrap()[call]
    }

    fn terms(&self) -> u32 {
        self.backend.0.terminated.load(Ordering::Relaxed)
    }

    /// Waits until the nth event that waits for SIGTERM has begun.
    async fn until_running(&self, call: usize) {
        let begun = |world: &Self| world.backend.0.waiting_for_term.load(Ordering::Relaxed);
        self.until(|world| call < begun(world) as usize).await;
    }
}

fn cancelled() -> Verdict {
    Verdict::Failed(Failure::cancelled())
}

#[tokio::test]
async fn a_running_event_gets_sigterm_and_ends_as_cancelled() {
    let world = Arc::new(world(|options| options.cancel_grace_ms = 20_000));
    let hello = changed(|revision| revision.config.timeout = Duration::from_secs(30));
    for (call, then) in ["exit", "fail"].into_iter().enumerate() {
        let running = spawn_call(&world, &hello, command("wait_for_term", json!({"then": then})));
        world.until_running(call).await;
        let begun = Instant::now();
        assert_eq!(world.invoker.cancel(world.request_id(call)).await, CancelReach::Reached);
        let outcome = running.await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10), "{then}: {:?}", begun.elapsed());
        assert_eq!(outcome.verdict, cancelled(), "{then}");
        assert!(outcome.report.node.is_some());
        let again = world.invoker.cancel(world.request_id(call)).await;
        assert_eq!(again, CancelReach::NotFound, "{then}");
    }
    assert_eq!((world.started(), world.terms()), (2, 2), "no sandbox is used again");
    assert_eq!(world.journal.statuses(), [499, 499]);
    Arc::into_inner(world).unwrap().close().await;
}

#[tokio::test]
async fn an_event_that_ignores_sigterm_is_stopped_after_the_grace() {
    let world = Arc::new(world(|options| options.cancel_grace_ms = 200));
    let hello = changed(|revision| revision.config.timeout = Duration::from_secs(30));
    // Longer than it takes the watching of deadlines to sleep until the next one.
    let running = spawn_call(&world, &hello, command("wait_for_term", json!({"then": "hang"})));
    world.until_running(0).await;
    time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(world.invoker.cancel(world.request_id(0)).await, CancelReach::Reached);
    }
    assert_eq!(running.await.unwrap().verdict, cancelled());
    let took = begun.elapsed().as_millis();
    assert!((200..5_000).contains(&took), "{took} ms");
    assert_eq!(world.terms(), 1, "told once");
    Arc::into_inner(world).unwrap().close().await;
}

#[tokio::test]
async fn a_value_that_is_returned_after_sigterm_is_the_outcome() {
    let world = Arc::new(world(|_| ()));
    let hello = Arc::new(revision("hello"));
    let running = spawn_call(&world, &hello, command("wait_for_term", json!({})));
    world.until_running(0).await;
    world.invoker.cancel(world.request_id(0)).await;
    returned(&running.await.unwrap());
    assert_eq!(returned(&world.call_of(&hello, Bytes::from_static(b"1")).await), b"1");
    assert_eq!(world.started(), 2, "a sandbox that was sent SIGTERM is not used again");
    Arc::into_inner(world).unwrap().close().await;
}

#[tokio::test]
async fn a_call_that_waits_for_a_sandbox_is_answered_at_once() {
    let world = Arc::new(world(|_| ()));
    let one = changed(|revision| revision.config.concurrency = Some(1));
    let busy = spawn_call(&world, &one, command("sleep", json!({ "ms": 500 })));
    world.until(|world| world.invoker.sandboxes().busy == 1).await;
    let waits = spawn_call(&world, &one, Bytes::from_static(b"1"));
    world.until(|world| world.invoker.sandboxes().waiting == 1).await;
    assert_eq!(world.invoker.cancel(world.request_id(1)).await, CancelReach::Reached);
    let outcome = waits.await.unwrap();
    assert_eq!((outcome.verdict, outcome.report.node), (cancelled(), None));
    assert!(!outcome.report.cold);
    assert_eq!(world.invoker.sandboxes().waiting, 0);
    returned(&busy.await.unwrap());
    assert_eq!(world.journal.statuses(), [499, 200]);
    Arc::into_inner(world).unwrap().close().await;
}

#[tokio::test]
async fn an_event_whose_caller_hung_up_is_cancelled_too() {
    let world = Arc::new(world(|options| options.cancel_grace_ms = 100));
    let hello = changed(|revision| revision.config.timeout = Duration::from_secs(30));
    for (call, then) in ["exit", "hang"].into_iter().enumerate() {
        let running = spawn_call(&world, &hello, command("wait_for_term", json!({"then": then})));
        world.until_running(call).await;
        // Cancelled by turns before and after the caller is gone.
        if then == "hang" {
            world.invoker.cancel(world.request_id(call)).await;
        }
        running.abort();
        let _ = running.await;
        let reach = world.invoker.cancel(world.request_id(call)).await;
        assert_eq!(reach, CancelReach::Reached, "{then}");
        world.until(|world| world.journal.statuses().len() == 1 + call).await;
    }
    assert_eq!(world.journal.statuses(), [499, 499]);
    world.until(|world| world.invoker.sandboxes().busy == 0).await;
    Arc::into_inner(world).unwrap().close().await;
}

#[tokio::test]
async fn what_is_not_here_is_not_found() {
    let world = world(|_| ());
    assert_eq!(world.invoker.cancel(RequestId::new()).await, CancelReach::NotFound);
    world.call(Bytes::from_static(b"1")).await;
    let reach = world.invoker.cancel(world.request_id(0)).await;
    assert_eq!(reach, CancelReach::NotFound, "it has ended");
    assert_eq!(returned(&world.call(Bytes::from_static(b"2")).await), b"2");
    assert_eq!((world.started(), world.terms()), (1, 0));
    world.close().await;
}

/// Cancellations at random moments of short events: each call has one outcome, and no other call is
/// hit.
#[tokio::test]
async fn a_cancellation_never_hits_another_event() {
    let world = Arc::new(world(|options| options.cancel_grace_ms = 50));
    let hello = Arc::new(revision("hello"));
    for round in 0..60u64 {
        let call = usize::try_from(round * 2).unwrap();
        let running = spawn_call(&world, &hello, command("sleep", json!({ "ms": round % 4 })));
        world.until(|world| call < world.request_ids.lock().unwrap().len()).await;
        time::sleep(Duration::from_micros(round * 97 % 4_000)).await;
        world.invoker.cancel(world.request_id(call)).await;
        // The next call, perhaps in the same sandbox, is not cancelled.
        returned(&world.call_of(&hello, Bytes::from_static(b"1")).await);
        let outcome = running.await.unwrap();
        let is_fine = matches!(outcome.verdict, Verdict::Returned(_));
        assert!(is_fine || outcome.verdict == cancelled(), "{outcome:?}");
    }
    assert_eq!(world.journal.statuses().len(), 120);
    Arc::into_inner(world).unwrap().close().await;
}
