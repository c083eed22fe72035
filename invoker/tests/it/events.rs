//! Events through the whole invoker: the real shim and Python's real bootstrap, on every backend
//! that is here.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hanshu_core::ports::{
    InvocationJournal, Invoke as _, JournalError, LogPage, LogQuery, NoFunctionCalls, PackageError,
    PackageStore,
};
use hanshu_core::{
    AsyncPolicy, Digest, Event, FunctionConfig, FunctionId, Invocation, InvocationMode,
    InvocationRecord, LogBatch, Origin, Outcome, Qualifier, RequestId, Revision, SystemClock,
    Timestamp, Verdict,
};
use hanshu_invoker::{Invoker, InvokerOptions, InvokerPorts, SandboxBackend, SandboxCounts};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::backends::bench::{BenchNode, WAIT_MAX, is_root};
use crate::backends::each_backend;

const CODE: &str = r#"
import os, subprocess, sys, time
print("loaded")
kept = []
def main_handler(event, context):
    do = event.get("do") if isinstance(event, dict) else None
    if do == "print":
        print(event["text"], flush=True)
    elif do == "raise":
        raise ValueError("boom")
    elif do == "exit":
        os._exit(3)
    elif do == "kill":
        os.kill(os.getpid(), 9)
    elif do == "loop":
        if os.fork() == 0 and os.fork() == 0:
            time.sleep(1000)
        while True:
            pass
    elif do == "memory":
        while True:
            kept.append(bytearray(8 << 20))
    elif do == "spam":
        line = "s" * 99 + "\n"
        for _ in range(500):
            sys.stdout.write(line * 1000)
    elif do == "sleep":
        time.sleep(event["s"])
    return event
"#;

struct EventsWorld {
    invoker: Arc<Invoker>,
    journal: Arc<RecordingJournal>,
    revision: Arc<Revision>,
}

/// Keeps what it is given.
#[derive(Debug, Default)]
struct RecordingJournal {
    records: Mutex<Vec<InvocationRecord>>,
    batches: Mutex<Vec<LogBatch>>,
}

#[async_trait]
impl InvocationJournal for RecordingJournal {
    fn record(&self, record: InvocationRecord) {
        self.records.lock().unwrap().push(record);
    }

    fn log(&self, batch: LogBatch) {
        self.batches.lock().unwrap().push(batch);
    }

    async fn flush(&self) -> Result<(), JournalError> {
        Ok(())
    }

    async fn find(&self, _: RequestId) -> Result<Vec<InvocationRecord>, JournalError> {
        Err(JournalError::Failed("this double only takes".into()))
    }

    async fn read(&self, _: &LogQuery) -> Result<LogPage, JournalError> {
        Err(JournalError::Failed("this double only takes".into()))
    }

    async fn collect(&self, _: Timestamp) -> Result<u64, JournalError> {
        Ok(0)
    }
}

/// Has one package for every digest.
#[derive(Debug)]
struct OneFolder(PathBuf);

#[async_trait]
impl PackageStore for OneFolder {
    async fn has(&self, _: &Digest) -> bool {
        true
    }

    async fn put(&self, _: &Digest, _: Bytes) -> Result<(), PackageError> {
        Err(PackageError::Io("this double only gives".into()))
    }

    async fn zip(&self, digest: &Digest) -> Result<Bytes, PackageError> {
        Err(PackageError::Missing(digest.clone()))
    }

    async fn folder(&self, _: &Digest) -> Result<PathBuf, PackageError> {
        Ok(self.0.clone())
    }

    async fn collect(&self, _: &[Digest]) -> Result<u64, PackageError> {
        Ok(0)
    }
}

fn world(node: &BenchNode, backend: Arc<dyn SandboxBackend>) -> EventsWorld {
    std::fs::write(node.dir.path().join("code/index.py"), CODE).unwrap();
    let journal = Arc::new(RecordingJournal::default());
    let options = InvokerOptions {
        run_dir: node.dir.path().join("run"),
        uid_first: node.spare_uids(),
        sandboxes_max: 20,
        freeze_after_ms: 300,
        ..InvokerOptions::default()
    };
    let ports = InvokerPorts {
        backend,
        packages: Arc::new(OneFolder(node.dir.path().join("code"))),
        journal: Arc::clone(&journal) as _,
        clock: Arc::new(SystemClock),
        calls: Arc::new(NoFunctionCalls),
    };
    let invoker = Invoker::new(options, ports, node.id.clone(), Handle::current());
    let revision = Revision {
        function: FunctionId {
            namespace: hanshu_core::Namespace::default(),
            name: "hello".parse().unwrap(),
        },
        version: Qualifier::Latest,
        digest: Digest::from_bytes([1; 32]),
        code: Digest::from_bytes([2; 32]),
        config: FunctionConfig {
            runtime: "Python3.10".parse().unwrap(),
            handler: "index.main_handler".into(),
            memory_mb: 128,
            timeout: Duration::from_secs(10),
            init_timeout: Duration::from_secs(60),
            concurrency: None,
            network: Some(false),
            async_policy: AsyncPolicy::default(),
            env: std::collections::BTreeMap::new(),
        },
    };
    EventsWorld { invoker, journal, revision: Arc::new(revision) }
}

impl EventsWorld {
    async fn call(&self, payload: impl Into<Bytes>) -> Outcome {
        let mode = InvocationMode::Sync { wait_timeout: WAIT_MAX, tail: true };
        let event = Event { origin: Origin::Direct, payload: payload.into() };
        let function = Arc::clone(&self.revision);
        let request_id = RequestId::new();
        self.invoker.invoke(Invocation { request_id, function, event, mode }).await
    }
}

#[track_caller]
fn status(outcome: &Outcome) -> (u16, &str) {
    match &outcome.verdict {
        Verdict::Returned(_) => (200, ""),
        Verdict::Failed(failure) => (failure.status_code.number(), &failure.error_message),
        Verdict::Refused(refusal) => panic!("{refusal}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_end_as_they_should_and_leave_nothing() {
    let node = BenchNode::new();
    for backend in each_backend(&node).await {
        let name = backend.name();
        let world = world(&node, backend);
        let first = world.call("{\"a\": 1}").await;
        assert_eq!(status(&first).0, 200, "{name}: {first:?}");
        assert!(first.report.cold);
        assert_eq!(first.report.log_tail.as_deref(), Some("loaded\n"));
        let printed = world.call(r#"{"do": "print", "text": "é"}"#).await;
        assert_eq!(printed.report.log_tail.as_deref(), Some("é\n"));
        assert!(!printed.report.cold);
        assert!(1_000_000 < printed.report.memory_bytes, "{name}: {}", printed.report.memory_bytes);
        let spam = world.call(r#"{"do": "spam"}"#).await;
        assert_eq!(status(&spam).0, 200, "{name}: {spam:?}");
        let faults = [("raise", 430), ("exit", 439), ("kill", 439), ("memory", 434), ("loop", 433)];
        for (what, code) in faults {
            let begun = Instant::now();
            let outcome = world.call(format!("{{\"do\": \"{what}\"}}")).await;
            assert_eq!(status(&outcome).0, code, "{name}: {what}: {outcome:?}");
            let took = begun.elapsed();
            // Before its time limit: nobody waited for that.
            assert!(what == "loop" || took < Duration::from_secs(8), "{name}: {what}: {took:?}");
            let next = world.call("1").await;
            assert_eq!(next.verdict, Verdict::Returned("1".into()), "{name}: after {what}");
        }
        let hung_up = tokio::time::timeout(
            Duration::from_millis(50),
            world.call(r#"{"do": "sleep", "s": 0.3}"#),
        );
        assert!(hung_up.await.is_err());
        world.invoker.stop(Duration::from_secs(10)).await;
        assert_eq!(world.invoker.sandboxes(), SandboxCounts::default(), "{name}");
        let records = world.journal.records.lock().unwrap();
        assert_eq!(records.len(), 14, "{name}: one for each call, the hung-up one too");
        assert_eq!(records.iter().filter(|record| record.cold).count(), 5, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_sandbox_wakes_for_its_next_event_and_can_be_removed() {
    let node = BenchNode::new();
    for backend in each_backend(&node).await {
        let name = backend.name();
        // Without rights to a cgroup there is nothing to freeze by.
        if name == "process" && !is_root() {
            continue;
        }
        let world = world(&node, backend);
        for call in 0..2 {
            let outcome = world.call("1").await;
            assert_eq!(outcome.verdict, Verdict::Returned("1".into()), "{name}");
            assert_eq!(outcome.report.cold, call == 0, "{name}");
            let deadline = Instant::now() + WAIT_MAX;
            while world.invoker.sandboxes().frozen != 1 {
                assert!(Instant::now() < deadline, "{name}: {:?}", world.invoker.sandboxes());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        world.invoker.stop(Duration::from_secs(10)).await;
        assert_eq!(world.invoker.sandboxes(), SandboxCounts::default(), "{name}");
    }
}
