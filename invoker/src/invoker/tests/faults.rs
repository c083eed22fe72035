//! Faults at every call of the backend and the packages, and in every event, from a seed; and
//! connections that break at every byte.

use std::path::PathBuf;

use hanshu_core::ports::PackageError;

use super::*;

/// Has every package, with faults.
#[derive(Debug)]
struct FlakyPackages(ScriptedBackend);

#[async_trait]
impl PackageStore for FlakyPackages {
    async fn has(&self, digest: &Digest) -> bool {
        EmptyPackages.has(digest).await
    }

    async fn put(&self, digest: &Digest, zip: Bytes) -> Result<(), PackageError> {
        EmptyPackages.put(digest, zip).await
    }

    async fn zip(&self, digest: &Digest) -> Result<Bytes, PackageError> {
        EmptyPackages.zip(digest).await
    }

    async fn folder(&self, digest: &Digest) -> Result<PathBuf, PackageError> {
        match self.0.0.roll(10) {
            1 => return Err(PackageError::Missing(digest.clone())),
            2 => time::sleep(Duration::from_millis(30)).await,
            _ => {}
        }
        EmptyPackages.folder(digest).await
    }

    async fn collect(&self, keep: &[Digest]) -> Result<u64, PackageError> {
        EmptyPackages.collect(keep).await
    }
}

const WAIT_TIMEOUT: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_millis(150);
/// A start that is not heard of is given up after a second, code that is not loaded after another;
/// the rest is for a machine that does other things, too.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

fn some_event(roll: impl Fn(u64) -> u64) -> Bytes {
    let what = match roll(16) {
        0 => "exit",
        1 => "oom",
        2 => "foreign",
        3 => "twice",
        4 => "garbage",
        5 => "last",
        6 => "hang",
        7 => "fail",
        8 => return command("part", json!({ "bytes": roll(20), "then": "end" })),
        9 => return command("part", json!({ "bytes": roll(20), "then": "nothing" })),
        10 | 11 => return command("sleep", json!({ "ms": roll(60) })),
        _ => return Bytes::from_static(b"1"),
    };
    command(what, json!({}))
}

/// Cancels, now and then, one of the last calls, which may wait, run or have ended.
async fn cancel_one_of_the_last(world: &InvokerWorld) {
    let roll = |below| world.backend.0.roll(below);
    if roll(3) == 0 {
        let ids = world.request_ids.lock().unwrap().clone();
        let back = usize::try_from(roll(8)).unwrap();
        world.invoker.cancel(ids[ids.len().saturating_sub(1 + back)]).await;
    }
}

/// Two hundred calls of three functions by eight callers, some of whom hang up, some of them cancelled,
/// on a node with room for four sandboxes.
async fn a_life_under_faults(seed: u64) {
    let backend = ScriptedBackend::default();
    *backend.0.chance.lock().unwrap() = Some(seed);
    let packages = Arc::new(FlakyPackages(backend.clone()));
    let world = Arc::new(world_with(backend, packages, |options| {
        options.memory_mb = 4 * 128;
        options.sandboxes_max = 4;
        options.start_timeout_s = 1;
        options.freeze_after_ms = 20;
    }));
    let functions: Vec<_> = (0..3u32)
        .map(|n| {
            let mut function = revision(&format!("function-{n}"));
            function.config.timeout = TIMEOUT;
            function.config.concurrency = (n == 0).then_some(2);
            Arc::new(function)
        })
        .collect();
    let general = world.general.as_ref().unwrap().handle().clone();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (world, functions) = (Arc::clone(&world), functions.clone());
            general.spawn(async move {
                let roll = |below| world.backend.0.roll(below);
                for _ in 0..25 {
                    let function = &functions[usize::try_from(roll(3)).unwrap()];
                    let mode = InvocationMode::Sync { wait_timeout: WAIT_TIMEOUT, tail: false };
                    let call = world.call_as(function, some_event(roll), mode);
                    let hangs_up = Duration::from_millis(roll(400));
                    if roll(5) == 0 {
                        let _ = time::timeout(hangs_up, call).await;
                    } else {
                        let answered = time::timeout(ANSWERED_WITHIN, call).await;
                        assert!(answered.is_ok(), "seed {seed}: a caller was never answered");
                    }
                    cancel_one_of_the_last(&world).await;
                    if roll(40) == 0 {
                        world.invoker.retire(&function.function, &[]);
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    *world.backend.0.chance.lock().unwrap() = None;
    // Starts that met a fault end first.
    let at_rest = |world: &InvokerWorld| {
        let sandboxes = world.invoker.sandboxes();
        sandboxes.starting + sandboxes.busy + sandboxes.waiting == 0
    };
    world.until(at_rest).await;
    for function in &functions {
        let outcome = world.call_of(function, Bytes::from_static(b"1")).await;
        assert_eq!(returned(&outcome), b"1", "seed {seed}: it works again");
    }
    // No call had two outcomes.
    let mut ids: Vec<_> = {
        let records = world.journal.records.lock().unwrap();
        records.iter().map(|record| record.request_id).collect()
    };
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "seed {seed}: somebody has two records");
    let node = Arc::clone(&world.invoker.node);
    Arc::into_inner(world).unwrap().close().await;
    let uids: Vec<_> = (0..4).map(|_| node.launcher.user_ids.take()).collect();
    assert!(uids.iter().all(Option::is_some), "seed {seed}: a user id was lost");
    assert!(node.capacity.reserve(4 * 128).is_ok(), "seed {seed}: room was lost");
}

#[tokio::test]
async fn whatever_fails_everybody_is_answered_once_and_nothing_is_left() {
    for seed in [1, 20, 300, 4_000, 50_000, 600_000] {
        a_life_under_faults(seed).await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_at_any_byte_is_one_failure() {
    let world = world(|_| ());
    let breaks = async |then: &str, status: u16| {
        let mut function = revision(then);
        function.config.timeout = Duration::from_millis(100);
        let function = Arc::new(function);
        for bytes in 0..20 {
            let event = command("part", json!({ "bytes": bytes, "then": then }));
            let outcome = world.call_of(&function, event).await;
            let seen = outcome.verdict.status().number();
            assert_eq!(seen, status, "{bytes} bytes, then {then}");
            assert_eq!(returned(&world.call_of(&function, Bytes::from_static(b"1")).await), b"1");
        }
    };
    tokio::join!(breaks("end", 439), breaks("nothing", 433), breaks("garbage", 443));
    world.until(|world| world.invoker.sandboxes().stopping == 0).await;
    assert_eq!(world.invoker.sandboxes().idle, 3);
    world.close().await;
}
