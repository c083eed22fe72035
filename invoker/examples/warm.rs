//! Measures a warm call: `cargo run -p hanshu-invoker --example warm -- PROGRAM [CALLS]`, where
//! PROGRAM is `shim-under-test` or `hanshu`. One Python function in a process sandbox, the caller
//! on a runtime with one thread, as in the server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use hanshu_core::ports::{
    InvocationJournal, Invoke, JournalError, LogPage, LogQuery, NoFunctionCalls, PackageError,
    PackageStore,
};
use hanshu_core::{
    AsyncPolicy, Digest, Event, FunctionConfig, FunctionId, Invocation, InvocationMode,
    InvocationRecord, LogBatch, Namespace, NodeId, Origin, Qualifier, RequestId, Revision,
    SystemClock, Timestamp, Verdict,
};
use hanshu_invoker::{Invoker, InvokerOptions, InvokerPorts, ProcessBackend, ProcessOptions};
use tokio::runtime::Builder;
use tokio_util::task::TaskTracker;

/// A journal that keeps nothing.
struct NoJournal;

#[async_trait]
impl InvocationJournal for NoJournal {
    fn record(&self, _: InvocationRecord) {}

    fn log(&self, _: LogBatch) {}

    async fn flush(&self) -> Result<(), JournalError> {
        Ok(())
    }

    async fn find(&self, _: RequestId) -> Result<Vec<InvocationRecord>, JournalError> {
        Ok(Vec::new())
    }

    async fn read(&self, _: &LogQuery) -> Result<LogPage, JournalError> {
        Err(JournalError::Failed("nothing is kept".into()))
    }

    async fn collect(&self, _: Timestamp) -> Result<u64, JournalError> {
        Ok(0)
    }
}

/// One folder for every digest.
struct ExamplePackages(PathBuf);

#[async_trait]
impl PackageStore for ExamplePackages {
    async fn has(&self, _: &Digest) -> bool {
        true
    }

    async fn put(&self, _: &Digest, _: Bytes) -> Result<(), PackageError> {
        Ok(())
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

fn revision() -> anyhow::Result<Revision> {
    Ok(Revision {
        function: FunctionId { namespace: Namespace::default(), name: "hello".parse()? },
        version: Qualifier::Latest,
        digest: Digest::from_bytes([1; 32]),
        code: Digest::from_bytes([2; 32]),
        config: FunctionConfig {
            runtime: "python".parse()?,
            handler: "index.main_handler".into(),
            memory_mb: 128,
            timeout: Duration::from_secs(3),
            init_timeout: Duration::from_secs(20),
            concurrency: None,
            network: Some(false),
            async_policy: AsyncPolicy::default(),
            env: BTreeMap::new(),
        },
    })
}

async fn caller(invoker: Arc<Invoker>, revision: Arc<Revision>, calls: usize) -> Vec<Duration> {
    let mode = InvocationMode::Sync { wait_timeout: Duration::from_secs(10), tail: false };
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let event = Event { origin: Origin::Direct, payload: Bytes::from_static(b"{}") };
        let function = Arc::clone(&revision);
        let begun = Instant::now();
        let request_id = RequestId::new();
        let outcome = invoker.invoke(Invocation { request_id, function, event, mode }).await;
        assert!(matches!(outcome.verdict, Verdict::Returned(_)), "{outcome:?}");
        times.push(begun.elapsed());
    }
    times
}

#[expect(clippy::print_stdout, reason = "it is a program for a person")]
async fn measure(invoker: &Arc<Invoker>, callers: usize, calls: usize) -> anyhow::Result<()> {
    let revision = Arc::new(revision()?);
    let tasks = TaskTracker::new();
    let begun = Instant::now();
    let running: Vec<_> = (0..callers)
        .map(|_| tasks.spawn(caller(Arc::clone(invoker), Arc::clone(&revision), calls / callers)))
        .collect();
    let mut times = Vec::new();
    for one in running {
        times.extend(one.await?);
    }
    let took = begun.elapsed();
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    let rate = f64::from(u32::try_from(times.len())?) / took.as_secs_f64();
    println!(
        "{callers:3} callers: {rate:8.0} calls/s, p50 {:?}, p99 {:?}, {:?}",
        at(50),
        at(99),
        invoker.sandboxes()
    );
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let program = words.next().context("PROGRAM is missing")?;
    let calls = words.next().map_or(Ok(50_000), |word| word.parse())?;
    let dir = tempfile::tempdir()?;
    let code = dir.path().join("code");
    std::fs::create_dir(&code)?;
    let hello = "def main_handler(event, context):\n    return {\"message\": \"hello\"}\n";
    std::fs::write(code.join("index.py"), hello)?;
    let runtime_dir =
        hanshu_runtimes::runtime_dir::install(&dir.path().join("runtime"), Path::new(&program))?;
    let general = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let node = NodeId::new();
    let process = ProcessOptions {
        node: node.clone(),
        dir: dir.path().join("process"),
        runtime_dir,
        shown: Vec::new(),
    };
    let backend = general.block_on(ProcessBackend::new(process, TaskTracker::new()))?;
    let ports = InvokerPorts {
        backend: Arc::new(backend),
        packages: Arc::new(ExamplePackages(code)),
        journal: Arc::new(NoJournal),
        clock: Arc::new(SystemClock),
        calls: Arc::new(NoFunctionCalls),
    };
    let options = InvokerOptions { run_dir: dir.path().join("run"), ..InvokerOptions::default() };
    let invoker = Invoker::new(options, ports, node, general.handle().clone());
    let data_plane = Builder::new_current_thread().enable_all().build()?;
    data_plane.block_on(async {
        measure(&invoker, 1, 100).await?;
        for callers in [1, 4, 16, 64] {
            measure(&invoker, callers, calls).await?;
        }
        anyhow::Ok(())
    })?;
    general.block_on(invoker.stop(Duration::from_secs(5)));
    Ok(())
}
