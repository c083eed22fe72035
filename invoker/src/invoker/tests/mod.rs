//! Stories of the whole invoker over real sockets, with a runtime that does as it is told.

mod cancel;
mod faults;
mod life;
mod prewarm;
mod runtime;

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use hanshu_core::ports::{Invoke as _, NoFunctionCalls, PackageStore};
use hanshu_core::{
    Digest, Event, Invocation, InvocationMode, LOG_KEEP_BYTES, ManualClock, NodeId, Origin,
    Outcome, PAYLOAD_BYTES_MAX, Refusal, RequestId, Revision, StatusCode, Timestamp, Verdict,
};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::{self, Instant};

use super::{Invoker, InvokerPorts};
use crate::config::InvokerOptions;
use crate::metrics::SandboxCounts;
use crate::test_support::{EmptyPackages, MemoryJournal, ScriptedBackend, command, revision};

const GRACE: Duration = Duration::from_secs(5);

struct InvokerWorld {
    invoker: Arc<Invoker>,
    backend: ScriptedBackend,
    journal: Arc<MemoryJournal>,
    run_dir: tempfile::TempDir,
    /// The runtime that is not the caller's.
    general: Option<Runtime>,
    request_ids: Mutex<Vec<RequestId>>,
}

fn world(change: impl FnOnce(&mut InvokerOptions)) -> InvokerWorld {
    world_with(ScriptedBackend::default(), Arc::new(EmptyPackages), change)
}

fn world_with(
    backend: ScriptedBackend,
    packages: Arc<dyn PackageStore>,
    change: impl FnOnce(&mut InvokerOptions),
) -> InvokerWorld {
    let run_dir = tempfile::tempdir().unwrap();
    let mut options = InvokerOptions {
        run_dir: run_dir.path().join("run"),
        freeze_after_ms: 0,
        ..InvokerOptions::default()
    };
    options.prewarmed_min = 0;
    change(&mut options);
    let journal = Arc::new(MemoryJournal::default());
    let ports = InvokerPorts {
        backend: Arc::new(backend.clone()),
        packages,
        journal: Arc::clone(&journal) as _,
        clock: Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH)),
        calls: Arc::new(NoFunctionCalls),
    };
    let general =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let invoker = Invoker::new(options, ports, NodeId::new(), general.handle().clone());
    let request_ids = Mutex::default();
    InvokerWorld { invoker, backend, journal, run_dir, general: Some(general), request_ids }
}

impl Drop for InvokerWorld {
    fn drop(&mut self) {
        self.general.take().unwrap().shutdown_background();
    }
}

static HELLO: LazyLock<Arc<Revision>> = LazyLock::new(|| Arc::new(revision("hello")));

impl InvokerWorld {
    async fn call(&self, payload: Bytes) -> Outcome {
        self.call_of(&HELLO, payload).await
    }

    async fn call_of(&self, revision: &Arc<Revision>, payload: Bytes) -> Outcome {
        let wait_timeout = Duration::from_secs(10);
        self.call_as(revision, payload, InvocationMode::Sync { wait_timeout, tail: true }).await
    }

    async fn call_as(
        &self,
        revision: &Arc<Revision>,
        payload: Bytes,
        mode: InvocationMode,
    ) -> Outcome {
        let request_id = RequestId::new();
        self.request_ids.lock().unwrap().push(request_id);
        let event = Event { origin: Origin::Direct, payload };
        let function = Arc::clone(revision);
        self.invoker.invoke(Invocation { request_id, function, event, mode }).await
    }

    /// The lines of the nth call.
    fn lines_of(&self, call: usize) -> Vec<String> {
        self.journal.lines(Some(self.request_ids.lock().unwrap()[call]))
    }

    /// What a busy machine may add to a time: many times what a call of nothing takes now. It warms
    /// the function, too.
    async fn allowance(&self, revision: &Arc<Revision>) -> Duration {
        self.call_of(revision, Bytes::from_static(b"0")).await;
        let begun = Instant::now();
        self.call_of(revision, Bytes::from_static(b"0")).await;
        20 * begun.elapsed()
    }

    fn started(&self) -> u32 {
        self.backend.0.started.load(Ordering::Relaxed)
    }

    /// Waits until it is so.
    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !what(self) {
            assert!(Instant::now() < deadline, "{:?}", self.invoker.sandboxes());
            time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Stops and checks that nothing is left.
    async fn close(self) {
        self.invoker.stop(GRACE).await;
        assert_eq!(self.invoker.sandboxes(), SandboxCounts::default());
        assert_eq!(self.backend.0.stopped.load(Ordering::Relaxed), self.started());
        let left = std::fs::read_dir(self.run_dir.path().join("run"));
        assert!(left.is_err() || left.unwrap().next().is_none(), "run folders are left");
    }
}

fn returned(outcome: &Outcome) -> &[u8] {
    match &outcome.verdict {
        Verdict::Returned(value) => value,
        other => panic!("{other:?}"),
    }
}

fn changed(change: impl FnOnce(&mut Revision)) -> Arc<Revision> {
    let mut revision = revision("hello");
    change(&mut revision);
    Arc::new(revision)
}

#[tokio::test]
async fn an_event_comes_back_from_one_warm_sandbox() {
    let world = world(|_| ());
    for call in 0..20 {
        let payload = Bytes::from(format!("{{\"n\":{call}}}"));
        let outcome = world.call(payload.clone()).await;
        assert_eq!(returned(&outcome), payload);
        assert_eq!(outcome.report.cold, call == 0);
        assert_eq!(outcome.report.init.is_some(), call == 0);
        assert_eq!(outcome.report.memory_bytes, 12_345);
    }
    assert_eq!(world.started(), 1);
    assert_eq!(world.journal.statuses(), [200; 20]);
    world.close().await;
}

#[tokio::test]
async fn a_sandbox_serves_callers_of_several_runtimes_in_turn() {
    let world = Arc::new(world(|_| ()));
    let mut other = std::thread::spawn(|| ());
    for _ in 0..5 {
        world.call(Bytes::from_static(b"1")).await;
        let there = Arc::clone(&world);
        other.join().unwrap();
        other = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = runtime.unwrap().block_on(there.call(Bytes::from_static(b"2")));
            assert_eq!(returned(&outcome), b"2");
        });
        let there = Arc::clone(&world);
        let general = world.general.as_ref().unwrap();
        let outcome =
            general.spawn(async move { there.call(Bytes::from_static(b"3")).await }).await.unwrap();
        assert_eq!(returned(&outcome), b"3");
    }
    other.join().unwrap();
    assert!(world.started() <= 2);
    Arc::into_inner(world).unwrap().close().await;
}

#[tokio::test]
async fn six_megabytes_pass_in_both_directions_and_no_more() {
    let world = world(|_| ());
    let most = Bytes::from(vec![b'7'; PAYLOAD_BYTES_MAX]);
    assert_eq!(returned(&world.call(most.clone()).await), most);
    let small = world.call(command("big", json!({ "bytes": 100_000 }))).await;
    assert_eq!(returned(&small).len(), 100_000);
    let too_much = world.call(Bytes::from(vec![b'7'; PAYLOAD_BYTES_MAX + 1])).await;
    let Verdict::Failed(failure) = too_much.verdict else { panic!("{too_much:?}") };
    assert!(failure.error_message.contains("6291457"));
    assert_eq!(returned(&world.call(Bytes::from_static(b"1")).await), b"1");
    assert_eq!(world.started(), 1, "the refused event did no harm");
    world.close().await;
}

#[tokio::test]
async fn each_fault_has_its_status_at_once_and_the_next_call_works() {
    let world = world(|_| ());
    let cases = [
        ("fail", 430, "boom"),
        ("exit", 439, "User process exit when running (exit status 3)"),
        ("oom", 434, "Task memory exceeded 128 MB"),
        ("foreign", 443, "the runtime answered an event that it was not given"),
        ("garbage", 443, "the runtime broke the protocol: a frame has the unknown kind `255`"),
    ];
    for (what, status, message) in cases {
        let allowance = world.allowance(&HELLO).await;
        let begun = Instant::now();
        let outcome = world.call(command(what, json!({}))).await;
        let took = begun.elapsed();
        let Verdict::Failed(failure) = outcome.verdict else { panic!("{what}: {outcome:?}") };
        assert_eq!(
            (failure.status_code.number(), failure.error_message.as_str()),
            (status, message)
        );
        let bound = Duration::from_millis(150) + allowance;
        assert!(took < bound, "{what} took {took:?}, over {bound:?}");
        assert_eq!(returned(&world.call(Bytes::from_static(b"1")).await), b"1", "after {what}");
    }
    assert_eq!(world.started(), 5, "a failure of user code keeps the sandbox");
    world.close().await;
}

#[tokio::test]
async fn a_second_answer_ends_the_sandbox_and_never_reaches_another_caller() {
    let world = world(|_| ());
    world.call(command("twice", json!({}))).await;
    // It was sent right after the first: by now it is there.
    time::sleep(Duration::from_millis(20)).await;
    assert_eq!(returned(&world.call(Bytes::from_static(b"\"mine\"")).await), b"\"mine\"");
    assert_eq!(world.started(), 2);
    world.close().await;
}

#[tokio::test]
async fn an_event_that_no_runtime_has_read_is_run_in_another_sandbox() {
    let world = world(|_| ());
    for size in [10, 1_000_000] {
        world.call(command("stop_reading", json!({}))).await;
        // Its end is not to be seen yet.
        let event = format!("\"{}\"", "x".repeat(size));
        let answered = world.call(Bytes::from(event.clone())).await;
        assert!(returned(&answered) == event.as_bytes(), "{size} bytes");
    }
    assert_eq!(world.started(), 3);
    assert_eq!(world.journal.statuses(), [200; 4]);
    world.close().await;
}

#[tokio::test]
async fn a_sandbox_that_wants_no_further_event_gets_none() {
    let world = world(|_| ());
    for _ in 0..3 {
        assert_eq!(returned(&world.call(command("last", json!({}))).await), b"null");
    }
    assert_eq!(world.started(), 3);
    world.close().await;
}

#[tokio::test]
async fn time_runs_out_at_the_deadline_and_not_before() {
    let world = world(|_| ());
    let quick = changed(|revision| revision.config.timeout = Duration::from_secs(1));
    let allowance = world.allowance(&quick).await;
    let begun = Instant::now();
    let outcome = world.call_of(&quick, command("hang", json!({}))).await;
    let took = begun.elapsed();
    let Verdict::Failed(failure) = outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!(failure.status_code, StatusCode::TimeLimitReached);
    assert_eq!(failure.error_message, "Invoking task timed out after 1 seconds");
    let bound = Duration::from_millis(1150) + allowance;
    assert!(Duration::from_secs(1) <= took && took < bound, "{took:?}, over {bound:?}");
    assert_eq!(returned(&world.call_of(&quick, Bytes::from_static(b"1")).await), b"1");
    assert_eq!(world.started(), 2);
    world.close().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_a_whole_sandbox_and_a_record() {
    let world = world(|_| ());
    world.call(Bytes::from_static(b"0")).await;
    for calls in 1..11 {
        let mut slow = Box::pin(world.call(command("sleep", json!({ "ms": 30 }))));
        // Polled once: the event is in the socket, and its answer cannot be there yet.
        assert!(slow.as_mut().now_or_never().is_none());
        drop(slow);
        world.until(|world| world.journal.statuses().len() == 1 + calls).await;
    }
    assert_eq!(world.journal.statuses(), [200; 11]);
    world.until(|world| world.invoker.sandboxes().busy == 0).await;
    assert_eq!(returned(&world.call(Bytes::from_static(b"1")).await), b"1");
    assert_eq!(world.backend.0.stopped.load(Ordering::Relaxed), 0, "none was lost");
    world.close().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_in_line_starts_nothing_more() {
    let world = world(|_| ());
    let slowly = changed(|revision| revision.config.handler = "init_slowly".into());
    let call = world.call_of(&slowly, Bytes::from_static(b"0"));
    assert!(time::timeout(Duration::from_millis(20), call).await.is_err());
    world.until(|world| world.invoker.sandboxes().idle == 1).await;
    let outcome = world.call_of(&slowly, Bytes::from_static(b"1")).await;
    assert!(!outcome.report.cold, "it waited for nothing");
    assert_eq!(world.started(), 1);
    world.close().await;
}

#[tokio::test]
async fn sixteen_callers_of_a_quick_function_share_few_sandboxes() {
    let world = Arc::new(world(|_| ()));
    let slowly = changed(|revision| revision.config.handler = "init_slowly".into());
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (world, slowly) = (Arc::clone(&world), Arc::clone(&slowly));
            let general = world.general.as_ref().unwrap().handle().clone();
            general.spawn(async move {
                for _ in 0..60 {
                    let outcome = world.call_of(&slowly, Bytes::from_static(b"{\"a\":1}")).await;
                    assert_eq!(returned(&outcome), b"{\"a\":1}");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(world.journal.statuses(), [200; 960]);
    // On an idle machine two or three; how long the others wait decides, and that is the machine's, too.
    assert!(world.started() <= 8, "{} started", world.started());
    Arc::into_inner(world).unwrap().close().await;
}

#[tokio::test]
async fn output_belongs_to_its_event() {
    let world = world(|_| ());
    let talks = changed(|revision| revision.config.handler = "init_talks".into());
    let outcome = world.call_of(&talks, command("print", json!({ "text": "a\nb\n" }))).await;
    assert_eq!(outcome.report.log_tail.unwrap(), "hello from the import\na\nb\n");
    world.call_of(&talks, command("print_late", json!({}))).await;
    world.until(|world| !world.journal.lines(None).is_empty()).await;
    world.call_of(&talks, command("print", json!({ "text": "c" }))).await;
    assert_eq!(world.lines_of(0), ["hello from the import", "a", "b"]);
    assert_eq!(world.lines_of(1), [""; 0]);
    assert_eq!(world.lines_of(2), ["c"]);
    assert_eq!(world.journal.lines(None), ["too late"]);
    let firsts: Vec<_> = world.journal.records.lock().unwrap().iter().map(|r| r.first).collect();
    assert_eq!(firsts, [false, true, false]);
    world.close().await;
}

#[tokio::test]
async fn fifty_megabytes_of_output_neither_block_nor_fill_memory() {
    let world = world(|_| ());
    let patient = changed(|revision| revision.config.timeout = Duration::from_secs(30));
    let outcome = world.call_of(&patient, command("spam", json!({ "lines": 500_000 }))).await;
    assert!(matches!(outcome.verdict, Verdict::Returned(_)), "{outcome:?}");
    let lines = world.lines_of(0);
    let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    assert!(bytes <= 2 * LOG_KEEP_BYTES + 1024, "{bytes}");
    assert_eq!(lines.iter().filter(|line| line.ends_with("bytes cut …]")).count(), 1);
    world.close().await;
}

#[tokio::test]
async fn a_function_that_cannot_be_loaded_says_why_and_shows_its_output() {
    let world = world(|_| ());
    let fails = changed(|revision| revision.config.handler = "init_fails".into());
    let outcome = world.call_of(&fails, Bytes::from_static(b"0")).await;
    let Verdict::Failed(failure) = &outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!(failure.status_code, StatusCode::HandlerNotFound);
    assert_eq!(outcome.report.log_tail.as_deref(), Some("loading\n"));
    assert_eq!(world.lines_of(0), ["loading"]);
    let exits = changed(|revision| revision.config.handler = "init_exits".into());
    let exits = changed(|to| *to = Revision { version: "1".parse().unwrap(), ..(*exits).clone() });
    let outcome = world.call_of(&exits, Bytes::from_static(b"0")).await;
    let Verdict::Failed(failure) = &outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!(failure.status_code, StatusCode::UserCodeError);
    assert!(failure.error_message.ends_with("(exit status 3)"));
    assert_eq!(world.journal.statuses(), [437, 443]);
    world.close().await;
}

#[tokio::test]
async fn why_it_could_not_be_loaded_counts_more_than_that_it_ended() {
    let world = world(|_| ());
    let both = changed(|revision| revision.config.handler = "init_fails_and_exits".into());
    let outcome = world.call_of(&both, Bytes::from_static(b"0")).await;
    assert_eq!(outcome.verdict.status(), StatusCode::HandlerNotFound);
    world.close().await;
}

#[tokio::test]
async fn loading_has_a_time_limit_of_its_own() {
    let world = world(|_| ());
    let hangs = changed(|revision| {
        revision.config.handler = "init_hangs".into();
        revision.config.init_timeout = Duration::from_millis(200);
    });
    let outcome = world.call_of(&hangs, Bytes::from_static(b"0")).await;
    assert_eq!(outcome.verdict.status(), StatusCode::InitTimeout);
    world.close().await;
}

#[tokio::test]
async fn an_unavailable_backend_is_our_fault_and_may_come_back() {
    let world = world(|_| ());
    world.backend.0.broken.store(true, Ordering::Relaxed);
    let outcome = world.call(Bytes::from_static(b"0")).await;
    let reason = "the engine does not answer".into();
    assert_eq!(outcome.verdict, Verdict::Refused(Refusal::Sandbox { reason }));
    world.backend.0.broken.store(false, Ordering::Relaxed);
    assert_eq!(returned(&world.call(Bytes::from_static(b"1")).await), b"1");
    world.close().await;
}

#[tokio::test]
async fn the_line_has_an_end_and_a_time() {
    let world = world(|options| options.waiting_max = 1);
    let one = changed(|revision| revision.config.concurrency = Some(1));
    world.call_of(&one, Bytes::from_static(b"0")).await;
    let short = InvocationMode::Sync { wait_timeout: Duration::from_millis(50), tail: false };
    let (busy, waits, full) = tokio::join!(
        world.call_of(&one, command("sleep", json!({ "ms": 300 }))),
        world.call_as(&one, Bytes::from_static(b"1"), short),
        world.call_as(&one, Bytes::from_static(b"2"), short),
    );
    returned(&busy);
    assert_eq!(waits.verdict, Verdict::Refused(Refusal::Concurrency { limit: 1 }));
    assert_eq!(full.verdict, Verdict::Refused(Refusal::WaitQueueFull { waiting: 1 }));
    assert_eq!(waits.report.node, None);
    world.close().await;
}

#[tokio::test]
async fn a_refused_attempt_of_a_queued_event_leaves_no_record() {
    let world = world(|options| options.async_wait_ms = 20);
    let none = changed(|revision| revision.config.concurrency = Some(0));
    let attempt = InvocationMode::Async { attempt: 2 };
    let refused = world.call_as(&none, Bytes::from_static(b"0"), attempt).await;
    assert_eq!(refused.verdict, Verdict::Refused(Refusal::Concurrency { limit: 0 }));
    let some = Arc::new(revision("other"));
    world.call_as(&some, Bytes::from_static(b"0"), attempt).await;
    let attempts: Vec<_> =
        world.journal.records.lock().unwrap().iter().map(|r| r.attempt).collect();
    assert_eq!(attempts, [2]);
    world.close().await;
}
